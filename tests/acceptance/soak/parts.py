"""The real parts: Kafka, Redis behind a proxy, a query service of two processes, a worker, and a folder."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stillwell.local import LocalStack, free_port
from tests.acceptance.chaos.arena import Proxies
from tests.acceptance.soak import truth
from tests.services import Toxiproxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

TOPIC = "orders"
PARTITIONS = 3
PROCESSES = 2
CLIENT_TIMEOUT_S = 4.0
SERVE_TIMEOUT_S = 1.0
PUSH_TIMEOUT_S = 5.0

_HERE = Path(__file__).parent


@dataclasses.dataclass(slots=True)
class Parts:
    """Everything, running. direct: the settings, without the proxy."""

    folder: Path
    bootstrap: str
    proxies: Proxies
    direct: dict[str, str]
    service: WorkerProcess
    worker: WorkerProcess

    @property
    def told(self) -> Path:
        """Where processes tell what they hold."""
        return self.folder / "told"

    def processes(self) -> dict[str, psutil.Process]:
        """Those that are watched, by what they are called."""
        parent = psutil.Process(self.service.running.pid)
        children = sorted((each for each in parent.children() if "--seat" in each.cmdline()), key=lambda each: each.pid)
        return {
            "serve": parent,
            **{f"serve {number}": each for number, each in enumerate(children)},
            "worker": psutil.Process(self.worker.running.pid),
        }

    def gauges(self, name: str, of: WorkerProcess | None = None) -> list[float]:
        """A gauge of the query service, by process; or of the worker, by whatever it has."""
        page = (of or self.service).page("/metrics")[1]
        return [float(value) for value in re.findall(rf"^{name}{{.*}} (\S+)$", page, re.M)]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of the command line."""
        return subprocess.run(
            [sys.executable, "-c", "from stillwell.cli.main import main; main()", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.direct},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def verified(self) -> list[str]:
        """What `stillwell verify` finds wrong."""
        done = self.run("verify", "--json")
        try:
            found = [f"verify: {each}" for each in json.loads(done.stdout)["findings"]]
        except (ValueError, KeyError):
            return [f"verify ended with {done.returncode}: {done.stdout}{done.stderr}"[:2_000]]
        return found or ([] if done.returncode == 0 else [f"verify ended with {done.returncode}: {done.stderr}"])


@contextlib.contextmanager
def parts(folder: Path, *, leak: int = 0, trace: str | None = None) -> Iterator[Parts]:
    """All parts, ready, for the length of a `with`; afterwards none of them runs. leak: bytes that the model's function
    keeps of each call, to see that it is found. trace: "service" or "worker", which tells who asks for memory then, and
    is slower."""
    package = folder / "soaked"
    package.mkdir(parents=True)
    (folder / "told").mkdir()
    (package / "__init__.py").write_text(truth.DEFINITIONS)
    shutil.copy(_HERE / "within.py", package)
    with contextlib.ExitStack() as ending:
        stack = ending.enter_context(LocalStack(kafka_properties={"group.min.session.timeout.ms": 500}))
        toxiproxy = Toxiproxy(folder / "toxiproxy")
        toxiproxy.start()
        ending.callback(toxiproxy.stop)
        proxies = Proxies(toxiproxy, {"redis": (f"127.0.0.1:{stack.redis.port}", free_port())})
        direct = {
            **stack.environment,
            "STILLWELL_PROJECT": "soak",
            "STILLWELL_NAMESPACE": "soak",
            "STILLWELL_DEFINITIONS": "soaked",
            "STILLWELL_OFFLINE_URL": str(folder / "offline"),
            # Shorter than by default, and yet few enough files for an hour.
            "STILLWELL_WINDOW_AGE": "10s",
            "STILLWELL_SESSION_TIMEOUT": "10s",
            "STILLWELL_REBALANCE_TIMEOUT": "20s",
            "STILLWELL_REJECT_RATIO": "1",
            "STILLWELL_SERVE_WORKERS": str(PROCESSES),
            "STILLWELL_SERVE_TIMEOUT": f"{SERVE_TIMEOUT_S:g}s",
            "STILLWELL_PUSH_TIMEOUT": f"{PUSH_TIMEOUT_S:g}s",
            "STILLWELL_SERVE_CLIENT_TIMEOUT": f"{CLIENT_TIMEOUT_S:g}s",
        }
        watched = {
            **direct,
            "STILLWELL_REDIS_URL": f"redis://{proxies['redis'].address}/0",
            "SOAK_TOLD": str(folder / "told"),
            "SOAK_LEAK": str(leak),
        }
        _create(stack.bootstrap, TOPIC, PARTITIONS)
        traced = watched | {"SOAK_TRACE": "1"}
        service = WorkerProcess(folder, traced if trace == "service" else watched, "service", command="serve")
        worker = WorkerProcess(folder, traced if trace == "worker" else watched)
        made = Parts(folder, stack.bootstrap, proxies, direct, service, worker)
        created = made.run("topics", "create", "--partitions", str(PARTITIONS))
        assert created.returncode == 0, created.stderr
        ending.callback(worker.end)
        worker.start()
        ending.callback(service.end)
        service.start()
        worker.until_ready(180)
        eventually(
            lambda: made.gauges("stillwell_serve_worker_up") == [1.0] * PROCESSES, within_s=120, what="a service"
        )
        eventually(lambda: service.page("/health")[0] == 200, within_s=60, what="health of the service")
        yield made


def _create(bootstrap: str, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        created.result(30)
