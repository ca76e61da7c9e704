"""Where it happens: Kafka, Redis, a folder for the object store, two workers and a query service, on this machine."""

import dataclasses
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from scripts.flights.ending import DemoFailed
from scripts.flights.model import URL_VARIABLE
from scripts.flights.replay import PARTITIONS
from stillwell.definitions.loading import load_definitions
from stillwell.local import LocalStack, Process, free_port
from stillwell.settings import NOT_SETTINGS, PREFIX, Settings
from stillwell.topics import chained_topics, needed_topics

STILLWELL = Path(sys.executable).with_name("stillwell")
"""The command, of the environment that this runs in."""

DEFINITIONS = "schemas"
PROJECT: Mapping[str, str] = {
    "STILLWELL_PROJECT": "flights",
    "STILLWELL_NAMESPACE": "demo",
    "STILLWELL_DEFINITIONS": DEFINITIONS,
}
"""With the settings of the stack, all that a command needs to know."""

HASTE: Mapping[str, str] = {
    # Short, so that there is something to see in Parquet from the beginning; in production it makes too many files.
    "STILLWELL_WINDOW_AGE": "2s",
    # The least that Kafka allows: so long do the partitions of the killed worker stand still.
    "STILLWELL_SESSION_TIMEOUT": "6s",
    "STILLWELL_REBALANCE_TIMEOUT": "20s",
    "STILLWELL_LOG_FORMAT": "console",
}


WORKERS = ("worker 1", "worker 2")

_REFRESH_PARTITIONS = 2
"""So that both workers compute predictions."""


@dataclasses.dataclass(slots=True)
class Command:
    """`stillwell worker` or `stillwell serve`, again and again under one name. generation: counts its processes, from
    1."""

    name: str
    log: Path
    word: str = "worker"
    port: int = dataclasses.field(default_factory=free_port)
    generation: int = 0
    process: Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start a process; does not wait until it is ready."""
        self.generation += 1
        self.process = Process(
            self.name,
            [STILLWELL, self.word],
            log=self.log,
            environment={"STILLWELL_WEB_PORT": str(self.port), "STILLWELL_SERVE_PORT": str(self.port)},
            grace_s=40.0,
        )

    def kill(self) -> int:
        """SIGKILL; gives the id of the process that was."""
        assert self.process is not None
        process, self.process = self.process, None
        process.kill()
        return process.pid

    def stop(self) -> None:
        """SIGTERM, and wait until it has written what it held."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def check(self) -> None:
        """Raises DemoFailed, with the end of the log, if the process has ended without being asked to."""
        if self.process is not None and not self.process.running:
            end = "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-15:])
            raise DemoFailed(f"{self.name} has ended by itself. The end of {self.log}:\n{end}")


def enter(stack: LocalStack) -> None:
    """Make this process, and all that it starts, see the settings of the demo and no others."""
    for name in [name for name in os.environ if name.startswith(PREFIX) and name not in NOT_SETTINGS]:
        del os.environ[name]
    os.environ.pop("STILLWELL_CONFIG", None)
    os.environ.pop(URL_VARIABLE, None)
    os.environ.update({**PROJECT, **HASTE, **stack.environment})


@functools.cache
def consumed_partitions() -> dict[str, int]:
    """How many partitions each topic has whose records come to rest: those of the flights, and those of pushes."""
    names = chained_topics(Settings.load(), load_definitions(DEFINITIONS))
    return {name: PARTITIONS.get(name, 1) for name in names}


def create_topics(bootstrap: str) -> None:
    """Create all topics that are needed."""
    needed = needed_topics(Settings.load(), load_definitions(DEFINITIONS))
    partitions = {
        each.name: _REFRESH_PARTITIONS if each.use == "refreshes" else PARTITIONS.get(each.name, 1) for each in needed
    }
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    topics = [NewTopic(name, num_partitions=count, replication_factor=1) for name, count in partitions.items()]
    for created in admin.create_topics(topics).values():
        created.result(30)
