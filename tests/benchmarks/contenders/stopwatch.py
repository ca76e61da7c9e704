"""What every contender does beside its work: read its arguments, take the time, print what it took.

A contender is a process of its own: `python -m tests.benchmarks.contenders.NAME BOOTSTRAP TOPIC EVENTS [REDIS_URL]`.
It prints one line of JSON at its end. Some run in an environment without Stillwell: the standard library alone here.
"""

import json
import os
import sys
import time
from typing import NamedTuple, NoReturn


class Task(NamedTuple):
    """What a contender is to read, and where rows go if it writes any."""

    bootstrap: str
    topic: str
    events: int
    redis_url: str

    @classmethod
    def from_arguments(cls) -> "Task":
        """From the command line."""
        bootstrap, topic, events, *redis_url = sys.argv[1:]
        return cls(bootstrap, topic, int(events), "".join(redis_url))

    @property
    def group(self) -> str:
        """A consumer group that nobody else has."""
        return f"{self.topic}-{os.getpid()}-{time.time_ns()}"


class Stopwatch:
    """Wall time, and processor time of the whole process, between the first event in hand and the end."""

    def __init__(self) -> None:
        self.running = False
        self._wall = self._cpu = 0.0

    def start(self) -> None:
        """The first event is in hand; what it took to get there, with start-up and joining the group, is left out."""
        self.running = True
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def finish(self, events: int) -> NoReturn:
        """Print what so many events took, and end the process without ceremony."""
        took = {
            "events": events,
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
        }
        print(json.dumps(took), file=sys.__stdout__, flush=True)
        os._exit(0)
