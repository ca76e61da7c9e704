"""A deployment of its own for every integration test."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillwell.instants import now
from stillwell.local import LocalStack
from stillwell.pushing.record import push_topic
from stillwell.settings import Settings
from stillwell.starter import files
from tests.developer import Developer
from tests.integration import orders
from tests.worker import WorkerProcess


@dataclasses.dataclass(slots=True)
class Deployment:
    """A topic of orders, its definitions, and the workers that a test starts."""

    folder: Path
    bootstrap: str
    topic: str
    dead_letters: str
    partitions: int
    settings: dict[str, str]
    workers: list[WorkerProcess] = dataclasses.field(default_factory=list)

    @property
    def pushes(self) -> str:
        """The topic on which rows of the view are pushed."""
        return push_topic(self.settings["STILLWELL_PROJECT"], orders.VIEW)

    def start_worker(self, **settings: str) -> WorkerProcess:
        """Start a worker; settings by their names without prefix."""
        return self.worker(**settings).start()

    def worker(self, **settings: str) -> WorkerProcess:
        """A worker that is still to be started."""
        changed = {f"STILLWELL_{name.upper()}": value for name, value in settings.items()}
        worker = WorkerProcess(self.folder, {**self.settings, **changed}, f"worker{len(self.workers)}")
        self.workers.append(worker)
        return worker

    def service(self, **settings: str) -> WorkerProcess:
        """A query service that is still to be started."""
        changed = {f"STILLWELL_{name.upper()}": value for name, value in settings.items()}
        service = WorkerProcess(self.folder, {**self.settings, **changed}, "service", command="serve")
        self.workers.append(service)
        return service

    def run(self, *arguments: str, typed: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line to its end; typed: what somebody types, where it runs on a terminal."""
        worker = WorkerProcess(self.folder, self.settings)
        with contextlib.nullcontext(subprocess.DEVNULL) if typed is None else _terminal(typed) as stdin:
            return subprocess.run(
                [sys.executable, "-c", "from stillwell.cli.main import main; main()", *arguments],
                cwd=self.folder,
                env=worker.environment,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )


@contextlib.contextmanager
def _terminal(typed: str) -> Iterator[int]:
    ours, theirs = os.openpty()
    try:
        os.write(ours, typed.encode())
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def deploy(
    stack: LocalStack, topic: Callable[..., str], namespace: str, tmp_path: Path
) -> Iterator[Callable[..., Deployment]]:
    """deploy(partitions=4, **settings): a deployment with short windows and timeouts; its workers end with the test.

    pushed=True: with topics for pushes, and a project of its own, since those are named after it.
    """
    made: list[Deployment] = []

    def make(partitions: int = 1, pushed: bool = False, **settings: str) -> Deployment:
        name, dead = topic("orders", partitions=partitions), topic("dead")
        orders.write_definitions(tmp_path, name)
        defaults = {
            **stack.environment,
            "STILLWELL_PROJECT": "test",
            "STILLWELL_NAMESPACE": namespace,
            "STILLWELL_DEFINITIONS": "orders",
            "STILLWELL_OFFLINE_URL": str(tmp_path / "offline"),
            "STILLWELL_DEAD_LETTER_TOPIC": dead,
            "STILLWELL_WINDOW_AGE": "500ms",
            "STILLWELL_SESSION_TIMEOUT": "3s",
            "STILLWELL_REBALANCE_TIMEOUT": "10s",
            "STILLWELL_REJECT_RATIO": "1",
            "STILLWELL_PUSH": "false",
        }
        if pushed:
            settings = {"project": f"p{namespace}", "push": "true", **settings}
        changed = {f"STILLWELL_{key.upper()}": value for key, value in settings.items()}
        made.append(Deployment(tmp_path, stack.bootstrap, name, dead, partitions, {**defaults, **changed}))
        if pushed:
            made[-1].run("topics", "create", "--partitions", str(partitions)).check_returncode()
        return made[-1]

    yield make
    for deployment in made:
        for worker in deployment.workers:
            worker.end()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settings]]:
    """settings(deployment, **changed): its settings, in this process, and its definitions where they are found."""

    def load(deployment: Deployment, **changed: str) -> Settings:
        monkeypatch.chdir(deployment.folder)
        monkeypatch.syspath_prepend(deployment.folder)
        own = {f"STILLWELL_{name.upper()}": value for name, value in changed.items()}
        for name, value in {**deployment.settings, **own}.items():
            monkeypatch.setenv(name, value)
        return Settings.load()

    yield load
    sys.modules.pop("orders", None)


@pytest.fixture
def developer(tmp_path: Path) -> Iterator[Developer]:
    """In a project as `stillwell init` writes it."""
    for place, content in files("shop", now()).items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(content)
    made = Developer(tmp_path)
    yield made
    made.leave()
