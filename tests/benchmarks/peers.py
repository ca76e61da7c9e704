"""Other software that reads the same topics: each contender a process of its own, in the environment that it needs."""

import dataclasses
import sys
import time
from pathlib import Path

from stillwell.local import Process
from tests.benchmarks import parsing
from tests.benchmarks.testbed import MeasurementError, Testbed
from tests.services import TOOLS

_ROOT = Path(__file__).parents[2]
_SLOWEST_EVENTS_PER_SECOND = 1_000.0
_START_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """One contender. own_environment: it runs in the peers' environment, not in ours."""

    module: str
    name: str
    own_environment: bool


BARE = Peer("bare_aiokafka", "bare aiokafka consumer", own_environment=True)
FAUST = Peer("stock_faust", "stock Faust agent, no work", own_environment=False)
QUIX = Peer("quix_redis", "Quix Streams, RedisSink", own_environment=True)
FASTSTREAM = Peer("faststream_json", "FastStream, no work", own_environment=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Took:
    """What a contender took for so many events, from the first in hand on, in seconds."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """Processor time of the process."""
        return self.cpu_seconds / self.events * 1e6

    def __str__(self) -> str:
        return f"{self.rate:9,.0f} events/s, {self.cpu_us_per_event:5.1f} µs CPU an event"


def measure(testbed: Testbed, peer: Peer, topic: str, events: int) -> Took:
    """Let a contender read so many events of a topic. Raises MeasurementError when it does not come to its end."""
    python = str(TOOLS / "peers" / "bin" / "python") if peer.own_environment else sys.executable
    module = f"tests.benchmarks.contenders.{peer.module}"
    log = testbed.folder / f"{peer.module}-{time.monotonic_ns()}.log"
    arguments = [testbed.stack.bootstrap, topic, str(events), testbed.stack.redis_url]
    environment = {"PYTHONPATH": str(_ROOT)}
    testbed.redis.flushall()
    process = Process(peer.name, [python, "-m", module, *arguments], log=log, environment=environment)
    try:
        deadline = time.monotonic() + _START_SECONDS + events / _SLOWEST_EVENTS_PER_SECOND
        while process.running:
            if time.monotonic() > deadline:
                raise MeasurementError(
                    f"{peer.name} has not read {events} events in time: {process.log_text()[-2000:]}"
                )
            time.sleep(0.05)
    finally:
        process.kill()
    try:
        printed = parsing.last_json(process.log_text())
        return Took(printed["events"], printed["seconds"], printed["cpu_seconds"])
    except ValueError as error:
        raise MeasurementError(f"{peer.name}: {error}") from error
