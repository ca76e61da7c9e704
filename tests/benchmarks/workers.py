"""Workers under measurement: `stillwell worker` processes, watched from outside.

When something is at rest is read from where it rests: the applied marks in Redis, and the links of the chain. The
workers' own pages are asked for what nobody else knows (when the first event was taken, the time of each stage), and
hardly ever while the clock runs.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey
from stillwell.layout.redis_keys import RedisKeys
from tests.benchmarks import load, parsing
from tests.benchmarks.testbed import PROJECT, Deployment, Filled, MeasurementError, Testbed
from tests.stores import store_of
from tests.worker import WorkerProcess

_LOOK_SECONDS = 0.01
_PAGE_SECONDS = 0.1
"""How often a worker that is ending is asked for its metrics: an answer costs it a millisecond or two."""

_START_SECONDS = 60.0
_SLOWEST_EVENTS_PER_SECOND = 2_000.0


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """An instant (monotonic), processor time used until then (all workers; Redis; Kafka), and the highest memory of any
    worker."""

    at: float
    worker_cpu: float
    redis_cpu: float
    kafka_cpu: float
    peak_mb: float


@dataclasses.dataclass(frozen=True, slots=True)
class Ingested:
    """What a backlog took. Times in seconds, memory in MB.

    seconds: from the first event taken until the last link was there. applied_seconds: until the last row was in Redis.
    stage_seconds: by stage; stages overlap, and several batches may be in one at a time.
    """

    events: int
    seconds: float
    applied_seconds: float
    worker_cpu_seconds: float
    redis_cpu_seconds: float
    kafka_cpu_seconds: float
    peak_mb: float
    links: int
    rows_sent: int
    stage_seconds: dict[str, float]

    @property
    def rate(self) -> float:
        """Events a second, at rest in both stores."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """Processor time of all workers."""
        return self.worker_cpu_seconds / self.events * 1e6

    def __str__(self) -> str:
        return (
            f"{self.rate:9,.0f} events/s, {self.cpu_us_per_event:5.1f} µs CPU an event "
            f"(and {self.redis_cpu_seconds / self.events * 1e6:.1f} in Redis), {self.peak_mb:.0f} MB"
        )


class Workers:
    """Worker processes of one deployment, ended with the `with`."""

    def __init__(self, testbed: Testbed, deployment: Deployment, count: int = 1) -> None:
        self.deployment = deployment
        self._testbed = testbed
        self._processes = [
            WorkerProcess(deployment.folder, deployment.settings, f"worker{number}") for number in range(count)
        ]
        self._kafka = psutil.Process(testbed.stack.kafka.pid)

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.end()

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [process.running.pid for process in self._processes]

    # ---- beginnings ----

    def until_first_event(self) -> Reading:
        """Wait until an event was taken; what was read by the last look before it, so that no work is left out."""
        reading = self._reading()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            before = self._reading()
            pages = [process.page("/metrics") for process in self._processes]
            if any(parsing.total(page, "stillwell_events_total") for status, page in pages if status == 200):
                return reading
            reading = before
            self._pause(deadline, "the first event")

    def until_shared(self) -> None:
        """Wait until all are ready and each holds an equal part of the partitions."""
        part = self.deployment.partitions // len(self._processes)
        for process in self._processes:
            process.until_ready(_START_SECONDS)
        deadline = time.monotonic() + _START_SECONDS
        while any(self._partitions_of(process) != part for process in self._processes):
            self._pause(deadline, f"{part} partitions in the hands of each worker")
        for process in self._processes:
            process.until_ready(_START_SECONDS)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All workers stand still for the length of a `with`."""
        for process in self._processes:
            process.freeze()
        try:
            yield
        finally:
            for process in self._processes:
                process.thaw()

    # ---- ends ----

    def follow(self, filled: Filled, begun: Reading) -> Ingested:
        """Watch until every event is applied, tell the workers to end, and watch until every event is linked.

        A worker links what it holds when its window is full or it is told to end: waiting for the window's age would
        measure the setting. Raises MeasurementError when something is missing then, or doubled.
        """
        deadline = time.monotonic() + _START_SECONDS + filled.load.events / _SLOWEST_EVENTS_PER_SECOND
        self._wait(lambda: self._applied(filled), deadline, "all rows in Redis")
        applied = time.monotonic()
        for process in self._processes:
            process.running.terminate()
        ended, pages = self._until_linked(filled, deadline)
        self._require_clean_end()
        self._require_complete(filled)
        return Ingested(
            events=filled.load.events,
            seconds=ended.at - begun.at,
            applied_seconds=applied - begun.at,
            worker_cpu_seconds=ended.worker_cpu - begun.worker_cpu,
            redis_cpu_seconds=ended.redis_cpu - begun.redis_cpu,
            kafka_cpu_seconds=ended.kafka_cpu - begun.kafka_cpu,
            peak_mb=ended.peak_mb,
            links=sum(1 for _ in self._links()),
            rows_sent=round(sum(parsing.total(page, "stillwell_upserts_total") for page in pages)),
            stage_seconds=_sum_by_stage(pages),
        )

    def stop(self) -> None:
        """End in order. Raises MeasurementError when one did not end well."""
        for process in self._processes:
            process.running.terminate()
        self._require_clean_end()

    def reading(self) -> Reading:
        """What has been used until now."""
        return self._reading()

    # ---- their parts ----

    def _until_linked(self, filled: Filled, deadline: float) -> tuple[Reading, list[str]]:
        """The reading at the last link, and the latest metrics page of each worker."""
        pages, asked = self._pages([""] * len(self._processes)), time.monotonic()
        reading = self._reading()
        while True:
            ends = self._ends_of_chains()
            reading = self._reading(reading)
            if ends == filled.ends:
                return reading, self._pages(pages)
            if time.monotonic() - asked > _PAGE_SECONDS:
                pages, asked = self._pages(pages), time.monotonic()
            if time.monotonic() > deadline:
                raise MeasurementError(f"the chains end at {ends} instead of {filled.ends}. {self._logs()}")
            time.sleep(_LOOK_SECONDS)

    def _pages(self, known: list[str]) -> list[str]:
        """The metrics page of each worker; what is known of one that answers no longer."""
        answers = [process.page("/metrics") for process in self._processes]
        return [page if status == 200 else old for (status, page), old in zip(answers, known, strict=True)]

    def _reading(self, known: Reading | None = None) -> Reading:
        """Now; known: what counts where a worker has ended meanwhile."""
        now = time.monotonic()
        cpu, peak = 0.0, 0.0
        try:
            for pid in self.pids:
                used = psutil.Process(pid).cpu_times()
                cpu += used.user + used.system
                peak = max(peak, parsing.status_mb(Path(f"/proc/{pid}/status").read_text(), "VmHWM"))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, OSError, ValueError):
            if known is None:
                raise MeasurementError(f"a worker ended before its time. {self._logs()}") from None
            cpu, peak = known.worker_cpu, known.peak_mb
        kafka = self._kafka.cpu_times()
        return Reading(now, cpu, self._testbed.redis_cpu_seconds(), kafka.user + kafka.system, peak)

    def _partitions_of(self, process: WorkerProcess) -> float:
        by_topic = parsing.samples(process.page("/metrics")[1], "stillwell_assigned_partitions", by="topic")
        return by_topic.get(self.deployment.topic, 0.0)

    def _applied(self, filled: Filled) -> bool:
        keys = RedisKeys(PROJECT, self.deployment.namespace)
        marks = [MarkKey(self._id(partition), load.VIEW, 1) for partition in range(len(filled.ends))]
        positions = self._testbed.redis.mget([keys.mark(mark) for mark in marks])
        return all(
            position is not None and int(position[:20]) >= end
            for position, end in zip(positions, filled.ends, strict=True)
        )

    def _links(self) -> Iterator[chain.Link]:
        store = store_of(self.deployment.settings)
        for id in chain.partitions(store):
            yield from chain.walk(store, id)[1]

    def _ends_of_chains(self) -> tuple[int, ...]:
        """Where the last link of each partition ends: a quick look, which `_require_complete` proves afterwards."""
        store = store_of(self.deployment.settings)
        last: dict[str, str] = {}
        for path in store.list("_chain/"):  # sorted, so that the last link of a folder comes last
            if not path.endswith(("topic.json", "genesis.json")):
                last[path.rpartition("/")[0]] = path
        ends = dict.fromkeys(range(self.deployment.partitions), 0)
        for path in last.values():
            link = chain.decode_link(store.read(path), path)
            ends[link.id.partition] = link.end
        return tuple(ends.values())

    def _id(self, partition: int) -> PartitionId:
        return PartitionId(self.deployment.topic, 1, partition)

    def _require_clean_end(self) -> None:
        for process in self._processes:
            if code := process.running.wait(_START_SECONDS):
                raise MeasurementError(f"a worker ended with code {code}. {self._logs()}")

    def _require_complete(self, filled: Filled) -> None:
        linked = sum(account.rows for link in self._links() for account in link.views)
        stored, users = self._testbed.rows(self.deployment), filled.load.distinct_users()
        if (linked, stored) != (filled.load.events, users):
            raise MeasurementError(
                f"{linked} of {filled.load.events} rows are linked and {stored} of {users} stored. {self._logs()}"
            )

    def _wait(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        while not condition():
            self._pause(deadline, what)

    def _pause(self, deadline: float, what: str) -> None:
        if any(process.running.poll() is not None for process in self._processes):
            raise MeasurementError(f"a worker ended while waiting for {what}. {self._logs()}")
        if time.monotonic() > deadline:
            raise MeasurementError(f"waited in vain for {what}. {self._logs()}")
        time.sleep(_LOOK_SECONDS)

    def _logs(self) -> str:
        ends = (process.log.read_text(errors="replace")[-1500:] for process in self._processes)
        return "The ends of the workers' logs:\n" + "\n---\n".join(ends)


def _sum_by_stage(pages: list[str]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for page in pages:
        stages: Mapping[str, float] = parsing.samples(page, "stillwell_stage_seconds_sum", by="stage")
        for stage, seconds in stages.items():
            summed[stage] = summed.get(stage, 0.0) + seconds
    return summed
