"""Kafka, Redis and a folder for one run of the benchmark, and the deployments of the worker that are measured there."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # their stubs forgot it
from confluent_kafka.cimpl import NewTopic

from stillwell.local import LocalStack
from stillwell.pushing.record import push_topic
from stillwell.settings import PREFIX, Settings
from tests.benchmarks import load
from tests.benchmarks.load import Load

PROJECT = "bench"
DEAD_LETTERS = "bench.dead-letters"

REDIS = {
    # What is measured is the work of the server, not that of its disk: managed services write none by default.
    "appendonly": "no",
}
"""How a Redis that is measured differs from one that the embedded stack starts."""


class MeasurementError(Exception):
    """Something was not measured: a worker ended, a peer printed nothing, events did not arrive."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filled:
    """A topic with a load in it. ends: of each partition."""

    topic: str
    load: Load
    ends: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Deployment:
    """A namespace, a folder and definitions over a topic: what nobody has read or written yet."""

    topic: str
    partitions: int
    namespace: str
    folder: Path
    settings: Mapping[str, str]

    def with_settings(self, settings: Mapping[str, str]) -> "Deployment":
        """The same with other settings, and other variables of the environment, by their full names."""
        return dataclasses.replace(self, settings={**self.settings, **settings})

    def loaded_settings(self) -> Settings:
        """Its settings, for what is measured inside this process."""
        values = {name.removeprefix(PREFIX).lower(): value for name, value in self.settings.items()}
        return Settings(**values)  # type: ignore[arg-type]  # pydantic parses them, as it does the environment's


class Testbed:
    """The embedded stack, with one broker, and names that are used once."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.redis = redis.Redis.from_url(stack.redis_url)
        # Quiet, because it goes on after the broker was stopped and would report that.
        self.admin = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})
        self._numbers = itertools.count(1)
        self._create(DEAD_LETTERS, 1)
        self._create(push_topic(PROJECT, load.VIEW), 1)

    @classmethod
    def stack_of(cls, folder: Path) -> LocalStack:
        """The stack that a testbed stands on, to be started by whoever owns it."""
        return LocalStack(folder, redis_config=REDIS)

    @property
    def folder(self) -> Path:
        """Where everything lies, to be removed afterwards."""
        return self.stack.folder

    def create_topic(self, partitions: int, name: str = "") -> str:
        """An empty topic, by default of a fresh name."""
        name = name or f"events-{next(self._numbers)}"
        self._create(name, partitions)
        return name

    def ensure_topic(self, partitions: int, name: str) -> None:
        """A topic of this name, whatever is in it."""
        if name not in self.admin.list_topics(timeout=30).topics:
            self._create(name, partitions)

    def fill(self, what: Load, partitions: int = 4, topic: str | None = None) -> Filled:
        """Produce a load into a topic, by default a fresh one."""
        topic = topic or self.create_topic(partitions)
        what.produce(self.stack.bootstrap, topic)
        ends = self.ends(topic, partitions)
        if sum(ends) != what.events:
            raise MeasurementError(f"{topic} holds {sum(ends)} events after {what.events} were produced")
        return Filled(topic, what, ends)

    def ends(self, topic: str, partitions: int) -> tuple[int, ...]:
        """The offsets at which the partitions end."""
        asked = [TopicPartition(topic, partition) for partition in range(partitions)]
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        found = self.admin.list_offsets(dict.fromkeys(asked, latest))
        return tuple(found[each].result(30).offset for each in asked)

    def remove(self, topic: str) -> None:
        """Delete a topic and its events."""
        self.admin.delete_topics([topic])[topic].result(30)

    def deploy(self, topic: str, partitions: int = 4, *, emptied: bool = True, **settings: str) -> Deployment:
        """A fresh deployment over a topic, all settings as they come but those that are given.

        emptied: whether Redis is emptied first.
        """
        if emptied:
            self.redis.flushall()
        number = next(self._numbers)
        folder = self.folder / f"deployment-{number}"
        load.write_definitions(folder, topic)
        namespace = f"n{number}"
        return Deployment(
            topic=topic,
            partitions=partitions,
            namespace=namespace,
            folder=folder,
            settings={
                **self.stack.environment,
                "STILLWELL_PROJECT": PROJECT,
                "STILLWELL_NAMESPACE": namespace,
                "STILLWELL_DEFINITIONS": load.PACKAGE,
                "STILLWELL_OFFLINE_URL": str(folder / "offline"),
                "STILLWELL_DEAD_LETTER_TOPIC": DEAD_LETTERS,
                **{f"STILLWELL_{name.upper()}": value for name, value in settings.items()},
            },
        )

    def redis_cpu_seconds(self) -> float:
        """Processor time that the Redis server has used."""
        return cpu_seconds(self.redis)

    def rows(self, deployment: Deployment) -> int:
        """How many rows of the deployment are in Redis."""
        pattern = f"{PROJECT}:{deployment.namespace}:f:*"
        found: Iterator[bytes] = self.redis.scan_iter(match=pattern, count=10_000)
        return len(set(found))

    def _create(self, topic: str, partitions: int) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def cpu_seconds(client: "redis.Redis") -> float:
    """Processor time that a Redis server has used."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
