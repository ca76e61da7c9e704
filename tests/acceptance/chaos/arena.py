"""The real parts: Kafka, Redis and an object store behind proxies, and the workers that live on them."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stillwell.local import LocalStack, free_port
from stillwell.pushing.record import push_topic
from tests.acceptance.chaos.plan import SESSION_S, WORKERS, Cut, Service
from tests.integration import orders
from tests.services import FakeGcs, Proxy, Toxiproxy
from tests.worker import WorkerProcess

PARTITIONS = 6
TOPIC = "orders"
DEAD_LETTERS = "dead-letters"
BUCKET = "chaos"

BROKER_PROPERTIES: Mapping[str, int] = {"group.min.session.timeout.ms": 500}


@dataclasses.dataclass(slots=True)
class Fall:
    """A worker that ended by itself."""

    worker: int
    code: int
    last_words: str


class Proxies:
    """One proxy for each service, by a toxiproxy of their own."""

    def __init__(self, toxiproxy: Toxiproxy, routes: Mapping[Service, tuple[str, int]]) -> None:
        """routes: where each proxy leads to, and the port that it is at."""
        self._toxiproxy = toxiproxy
        self._routes = routes
        self._proxies = self._created()
        self.restarts = 0

    def __getitem__(self, service: Service) -> Proxy:
        return self._proxies[service]

    def cut(self, service: Service, order: Callable[[Proxy], object]) -> None:
        """Have a proxy disturb its connections."""
        try:
            order(self[service])
        except TimeoutError:
            self._restart()
            order(self[service])

    def mend(self, service: Service, order: Callable[[Proxy], object]) -> None:
        """Have a proxy disturb them no longer."""
        try:
            order(self[service])
        except TimeoutError:
            self._restart()

    def _restart(self) -> None:
        """toxiproxy 2.12 stops answering for good where a toxic goes while data for a client that has died waits in it,
        once in 166 rounds. A new one has no toxics; all connections end, which is one cut more."""
        self.restarts += 1
        self._toxiproxy.kill()
        self._toxiproxy.start()
        self._proxies = self._created()

    def _created(self) -> dict[Service, Proxy]:
        return {
            service: self._toxiproxy.create(upstream, port=port) for service, (upstream, port) in self._routes.items()
        }


@dataclasses.dataclass(slots=True)
class Arena:
    """Everything, running. environment: how to reach it as the workers do; direct: without the proxies."""

    folder: Path
    bootstrap: str
    proxies: Proxies
    environment: Mapping[str, str]
    direct: Mapping[str, str]
    workers: list[WorkerProcess] = dataclasses.field(default_factory=list)
    falls: list[Fall] = dataclasses.field(default_factory=list)
    started: int = 0

    def start_workers(self) -> None:
        """Start all of them."""
        self.workers = [self._start(number) for number in range(WORKERS)]

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self.workers[number].kill()

    def replace(self, number: int) -> None:
        """Start a worker in the place of one that has ended."""
        self.workers[number] = self._start(number)

    def replace_fallen(self) -> list[Fall]:
        """Start a worker in the place of each that has ended by itself; gives what these left."""
        fallen = []
        for number, worker in enumerate(self.workers):
            code = worker.running.poll()
            if code is not None:
                fallen.append(Fall(number, code, worker.log.read_text(errors="replace")[-2_000:]))
                self.replace(number)
        self.falls += fallen
        return fallen

    def told(self) -> list[str]:
        """What each worker says of its readiness, and of the records that it has not read or not linked."""
        wanted = ("stillwell_lag_records{", "stillwell_durable_lag_records{")
        return [
            " ".join(
                [
                    worker.page("/readyz")[1],
                    *(line for line in worker.page("/metrics")[1].splitlines() if line.startswith(wanted)),
                ]
            )
            for worker in self.workers
        ]

    def cut(self, cut: Cut) -> None:
        """Begin a piece of a cut."""
        self.proxies.cut(cut.service, lambda proxy: disturb(proxy, cut))

    def mend(self, cut: Cut) -> None:
        """End a piece of a cut."""
        self.proxies.mend(cut.service, lambda proxy: relieve(proxy, cut))

    def _start(self, number: int) -> WorkerProcess:
        self.started += 1
        return WorkerProcess(self.folder, self.environment, f"worker{number}-{self.started:03d}").start()


def disturb(proxy: Proxy, cut: Cut) -> None:
    """Begin a piece of a cut."""
    match cut.way:
        case "down":
            proxy.down()
        case "silent":
            proxy.add_toxic("timeout", timeout=0)
        case "deaf":
            proxy.add_toxic("timeout", stream="upstream", timeout=0)
        case "slow":
            proxy.add_toxic("latency", latency=cut.amount, jitter=cut.amount // 2)
        case "torn":
            proxy.add_toxic("limit_data", bytes=cut.amount)
        case "half":
            proxy.add_toxic("limit_data", stream="upstream", bytes=cut.amount)
        case "reset":
            proxy.add_toxic("reset_peer", timeout=cut.amount)


def relieve(proxy: Proxy, cut: Cut) -> None:
    """End it."""
    if cut.way == "down":
        proxy.up()
    else:
        proxy.remove_toxic(
            {
                "silent": "timeout-downstream",
                "deaf": "timeout-upstream",
                "slow": "latency-downstream",
                "torn": "limit_data-downstream",
                "half": "limit_data-upstream",
                "reset": "reset_peer-downstream",
            }[cut.way]
        )


@contextlib.contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """All parts, for the length of a `with`; afterwards none of them runs."""
    with contextlib.ExitStack() as ending:
        kafka_port, gcs_port = free_port(), free_port()
        stack = ending.enter_context(LocalStack(kafka_properties=BROKER_PROPERTIES, kafka_proxied_ports=[kafka_port]))
        gcs = FakeGcs(folder / "gcs", proxied_port=gcs_port)
        gcs.start()
        ending.callback(gcs.stop)
        gcs.create_bucket(BUCKET)
        toxiproxy = Toxiproxy(folder / "toxiproxy")
        toxiproxy.start()
        ending.callback(toxiproxy.stop)
        routes: dict[Service, tuple[str, int]] = {
            "kafka": (stack.kafka.upstream(kafka_port), kafka_port),
            "redis": (f"127.0.0.1:{stack.redis.port}", free_port()),
            "store": (gcs.address, gcs_port),
        }
        proxies = Proxies(toxiproxy, routes)
        _create_topics(stack.bootstrap)
        orders.write_definitions(folder, TOPIC)
        direct = {
            "STILLWELL_PROJECT": "chaos",
            "STILLWELL_NAMESPACE": "chaos",
            "STILLWELL_DEFINITIONS": "orders",
            "STILLWELL_KAFKA_BOOTSTRAP": stack.bootstrap,
            "STILLWELL_REDIS_URL": stack.redis_url,
            "STILLWELL_OFFLINE_URL": f"gs://{BUCKET}",
            "STILLWELL_DEAD_LETTER_TOPIC": DEAD_LETTERS,
            "STILLWELL_WINDOW_AGE": "500ms",
            "STILLWELL_SESSION_TIMEOUT": f"{SESSION_S:g}s",
            "STILLWELL_REBALANCE_TIMEOUT": "10s",
            "STILLWELL_DRAIN_TIMEOUT": "15s",
            "STILLWELL_REJECT_RATIO": "1",
        }
        proxied = {
            **direct,
            "STILLWELL_KAFKA_BOOTSTRAP": proxies["kafka"].address,
            "STILLWELL_REDIS_URL": f"redis://{proxies['redis'].address}/0",
            "STORAGE_EMULATOR_HOST": f"http://{proxies['store'].address}",
        }
        ending.enter_context(_gcsfs_led_to(gcs.address))
        made = Arena(folder, stack.bootstrap, proxies, proxied, direct)
        ending.callback(_end, made)
        yield made


@contextlib.contextmanager
def _gcsfs_led_to(address: str) -> Iterator[None]:
    """This process's own way to the store, and how gcsfs is spoken to by everybody here."""
    settings = {
        "STORAGE_EMULATOR_HOST": f"http://{address}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "FSSPEC_GCS_TOKEN": "anon",
    }
    os.environ.update(settings)
    yield
    for name in settings:
        del os.environ[name]


def _create_topics(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    names = {TOPIC: PARTITIONS, DEAD_LETTERS: 1, push_topic("chaos", orders.VIEW): 1}
    topics = [NewTopic(name, partitions, 1) for name, partitions in names.items()]
    for created in admin.create_topics(topics).values():
        created.result(30)


def _end(arena: Arena) -> None:
    for worker in arena.workers:
        worker.end()
