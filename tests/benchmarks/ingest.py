"""The run of `scripts/bench ingest`: its parts in order, contenders in turn, medians at the end."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from tests.benchmarks import freshness, memory, peers, splitting
from tests.benchmarks.figures import INGEST_PARTS, ratio
from tests.benchmarks.freshness import Freshness, Pace
from tests.benchmarks.load import ALWAYS_NEW, Load
from tests.benchmarks.online_writes import Cost, Writes
from tests.benchmarks.peers import Peer, Took
from tests.benchmarks.report import Result
from tests.benchmarks.splitting import Split
from tests.benchmarks.testbed import Filled, MeasurementError, Testbed
from tests.benchmarks.workers import Ingested, Workers

KEYS = 20_000

_STEADY = Pace(rate=20_000, seconds=25.0, skip=5.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured. runs: of everything that alternates or is repeated.

    events: of each topic of the throughput part, so many that what a start costs the worker, a second of processor
    time, is little beside them; slow_events: of them, what those read that take one at a time. shared_events: of each
    backlog that one worker takes, or two.
    """

    runs: int = 5
    events: int = 1_000_000
    slow_events: int = 200_000
    shared_events: int = 400_000
    rows: int = 100_000
    wide_rows: int = 10_000
    backlog: int = 1_000_000
    pace: Pace = _STEADY

    @classmethod
    def quick(cls) -> "Scale":
        """Enough to see that every key is computed; the figures mean nothing."""
        return cls(
            runs=1,
            events=20_000,
            slow_events=5_000,
            shared_events=20_000,
            rows=5_000,
            wide_rows=500,
            backlog=64_000,
            pace=Pace(rate=2_000, seconds=7.0, skip=1.0),
        )


class Run:
    """One run: measures the parts that are asked for, and gathers their result."""

    def __init__(self, testbed: Testbed, scale: Scale, console: Console) -> None:
        self._testbed = testbed
        self._scale = scale
        self._console = console
        self.result: Result = {
            "bench": "ingest",
            "scale": dataclasses.asdict(scale),
            "notes": [],
            "skipped": [],
            "medians": {},
            "runs": {},
        }

    def measure(self, parts: Sequence[str] = INGEST_PARTS) -> Result:
        """A part that could not be measured leaves its keys out and says why in `notes`."""
        measure: Mapping[str, Callable[[], None]] = {
            "throughput": self._throughput,
            "writes": self._writes,
            "freshness": self._freshness,
            "memory": self._memory,
            "splitting": self._splitting,
        }
        for part in parts:
            self._console.rule(f"[bold]{part}")
            started = time.monotonic()
            try:
                measure[part]()
            except MeasurementError as error:
                self._note(f"{part}: {error}")
            self._say(f"{part} measured", f"in {time.monotonic() - started:.0f} s")
        return self.result

    # ---- throughput ----

    def _throughput(self) -> None:
        scale = self._scale
        few = self._fill("20 k keys", KEYS)
        many = self._fill("near-unique keys", ALWAYS_NEW)
        runs: dict[str, list[Took | Ingested]] = {}
        contenders: Sequence[tuple[str, Callable[[], Took | Ingested]]] = (
            ("bare", lambda: self._peer(peers.BARE, few, scale.events)),
            ("worker", lambda: self._worker(few)),
            ("stock_faust", lambda: self._peer(peers.FAUST, few, scale.slow_events)),
            ("quix", lambda: self._peer(peers.QUIX, few, scale.slow_events)),
            ("bare_unique", lambda: self._peer(peers.BARE, many, scale.events)),
            ("worker_unique", lambda: self._worker(many)),
            ("faststream", lambda: self._peer(peers.FASTSTREAM, few, scale.slow_events)),
        )
        for number in range(scale.runs + 1):
            for name, contender in contenders:
                took = contender()
                if number == 0:  # the broker's Java compiles itself meanwhile, and its files come into memory
                    self._say(f"warm-up, does not count  {name}", str(took))
                    continue
                runs.setdefault(name, []).append(took)
                self._say(f"run {number}/{scale.runs}  {name}", str(took))
        self.result["runs"]["throughput"] = runs
        rates = {name: [each.rate for each in of] for name, of in runs.items()}
        self.result |= {
            "ratio_raw": ratio(rates["worker"], rates["bare"]),
            "ratio_raw_unique": ratio(rates["worker_unique"], rates["bare_unique"]),
            "ratio_quix": ratio(rates["worker"], rates["quix"]),
            "ratio_stock_faust": ratio(rates["worker"], rates["stock_faust"]),
        }
        for name, of in runs.items():
            self._median(f"{name}: events a second", rates[name])
            self._median(f"{name}: µs of CPU an event", [each.cpu_us_per_event for each in of])
        for name in ("worker", "worker_unique"):
            self._stages(name, [each for each in runs[name] if isinstance(each, Ingested)])
        for topic in (few.topic, many.topic):
            self._testbed.remove(topic)

    def _fill(self, what: str, keys: int) -> Filled:
        events = self._scale.events
        self._say(f"topic with {what}", f"{events:,} events, 4 partitions")
        return self._testbed.fill(Load(events, keys, first_ts=time.time_ns() // 1_000 - events))

    def _peer(self, peer: Peer, filled: Filled, events: int) -> Took:
        return peers.measure(self._testbed, peer, filled.topic, events)

    def _worker(self, filled: Filled) -> Ingested:
        with Workers(self._testbed, self._testbed.deploy(filled.topic)) as workers:
            return workers.follow(filled, workers.until_first_event())

    def _stages(self, name: str, runs: Sequence[Ingested]) -> None:
        """Microseconds an event, medians over the runs."""
        stages = {
            stage: statistics.median(run.stage_seconds.get(stage, 0.0) / run.events * 1e6 for run in runs)
            for stage in runs[0].stage_seconds
        }
        self.result.setdefault("stage_us_per_event", {})[name] = stages
        self._say(f"{name}: µs an event by stage", ", ".join(f"{stage} {us:.2f}" for stage, us in stages.items()))
        for used in ("redis", "kafka"):
            spent = [getattr(run, f"{used}_cpu_seconds") / run.events * 1e6 for run in runs]
            self._median(f"{name}: µs of CPU an event in {used}", spent)
        self._median(f"{name}: events a second into Redis alone", [run.events / run.applied_seconds for run in runs])
        self._median(f"{name}: rows sent to Redis per event", [run.rows_sent / run.events for run in runs])
        self._median(f"{name}: peak MB", [run.peak_mb for run in runs])

    # ---- the other parts ----

    def _writes(self) -> None:
        count = 2 * self._scale.runs  # a run takes a second, and the machine's speed changes from one to the next
        with Writes(self._testbed, self._scale.rows) as writes:
            runs: dict[str, list[Cost]] = {name: [] for name in writes.contenders}
            for number in range(count + 1):
                for name, write in writes.contenders.items():
                    cost = write()
                    if number == 0:
                        self._say(f"warm-up, does not count  {name}", str(cost))
                        continue
                    runs[name].append(cost)
                    self._say(f"run {number}/{count}  {name}", str(cost))
        self.result["runs"]["writes"] = runs
        walls = {name: [cost.wall_us for cost in costs] for name, costs in runs.items()}
        servers = {name: [cost.server_us for cost in costs] for name, costs in runs.items()}
        self.result |= {
            "lww_vs_hset": ratio(walls["put_if_newer"], walls["hset_packed"]),
            "lww_vs_hset_server_cpu": ratio(servers["put_if_newer"], servers["hset_packed"]),
        }
        for name in runs:
            self._median(f"{name}: µs a row", walls[name])
            self._median(f"{name}: µs of server CPU a row", servers[name])

    def _freshness(self) -> None:
        measured: dict[str, list[Freshness]] = {"folder": [], "slow_store": []}
        kinds = {"folder": freshness.measure}
        if freshness.tools_are_there():
            kinds["slow_store"] = freshness.measure_slow_store
        else:
            self._note("servable_p999_ms: SKIPPED, because fake-gcs-server and toxiproxy are not built: install Go")
            self.result["skipped"].append("servable_p999_ms")
        # Kafka's Java compiles itself for a minute under this load, on a third of a core that the worker then lacks.
        for _ in range(min(2, self._scale.runs)):
            self._say("warm-up, does not count", str(freshness.measure(self._testbed, self._scale.pace)))
        for number in range(self._scale.runs):
            for kind, measure in kinds.items():
                seen = measure(self._testbed, self._scale.pace)
                measured[kind].append(seen)
                self._say(f"run {number + 1}/{self._scale.runs}  {kind}", str(seen))
        self.result["runs"]["freshness"] = measured
        self.result["servable_p99_ms"] = statistics.median(seen.p99_ms for seen in measured["folder"])
        if slow := measured["slow_store"]:
            self.result["servable_p999_ms"] = statistics.median(seen.p999_ms for seen in slow)
        for kind, runs in measured.items():
            for name in ("p50_ms", "p99_ms", "p999_ms", "worker_cpu_us_per_event"):
                if runs:
                    self._median(f"{kind}: {name}", [getattr(seen, name) for seen in runs])

    def _memory(self) -> None:
        rows = memory.of_rows(self._testbed, self._scale.wide_rows)
        self._say("row of 50 floats", str(rows))
        taken = [memory.of_a_worker(self._testbed, self._scale.backlog) for _ in range(self._scale.runs)]
        for each in taken:
            self._say("64 partitions, backlog", str(each))
        self.result["runs"]["memory"] = {"row": rows, "64_partitions": taken}
        self.result["bytes_per_feature"] = rows.memory_usage
        self.result["rss_mb_64_partitions"] = max(each.peak_mb for each in taken)
        self._median("bytes a feature of the server's whole memory", [rows.server_growth])
        self._median("64 partitions: events a second", [each.rate for each in taken])

    def _splitting(self) -> None:
        count = 2 * self._scale.runs  # each takes a few seconds, and the machine's speed changes from one to the next
        splits: list[Split] = []
        for number in range(count):
            split = splitting.measure(self._testbed, self._scale.shared_events, two_first=number % 2 == 1)
            splits.append(split)
            self._say(f"run {number + 1}/{count}  one worker", str(split.one))
            self._say(f"run {number + 1}/{count}  two workers", str(split.two))
        self.result["runs"]["splitting"] = splits
        one, two = [split.one.cpu_us_per_event for split in splits], [split.two.cpu_us_per_event for split in splits]
        self.result["two_workers_cpu_overhead"] = ratio(two, one) - 1
        self._median("one worker: µs of CPU an event", one)
        self._median("two workers: µs of CPU an event", two)

    # ---- telling ----

    def _median(self, name: str, values: Sequence[float]) -> None:
        self.result["medians"][name] = statistics.median(values)

    def _say(self, what: str, figures: str) -> None:
        self._console.print(f"{what:<42} {figures}", highlight=False)

    def _note(self, text: str) -> None:
        self.result["notes"].append(text)
        self._console.print(f"[bold yellow]{text}", highlight=False)
