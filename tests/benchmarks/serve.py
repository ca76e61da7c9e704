"""The run of `scripts/bench serve`: its parts in order, contenders in turn, medians at the end."""

import contextlib
import dataclasses
import datetime
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from stillwell.local import Process
from tests.benchmarks import cores, driving, parsing, serve_data, servers
from tests.benchmarks.driving import Drive, Driven
from tests.benchmarks.figures import SERVE_PARTS, median
from tests.benchmarks.freshness import KEPT_RATE, WINDOW_AGE
from tests.benchmarks.load import Load
from tests.benchmarks.report import Result
from tests.benchmarks.serve_data import ON_DEMAND, ONE_VIEW, PREDICTION, TWENTY_VIEWS, Shape
from tests.benchmarks.servers import READ, Feast, Stillwell
from tests.benchmarks.steady_producer import when_prepared
from tests.benchmarks.testbed import MeasurementError, Testbed
from tests.benchmarks.workers import Workers

NARROW, MANY = serve_data.of(1, 10), serve_data.of(100, 10)
SHAPES = (NARROW, MANY, *(serve_data.of(rows, features) for features in (50, 250) for rows in (1, 100)))

CONNECTIONS = {1: 32, 100: 4}
"""How many ask at once, by the rows of a request. Of one row Feast's server answers most with four to 32 of them, of a
hundred with one to four."""

_OPEN_CONNECTIONS = 64

_MOST_PUSHES: Mapping[int, Mapping[str, int]] = {
    1: {"async": 12_000, "sync": 12_000, "feast": 2_000},
    100: {"async": 1_000, "sync": 1_000, "feast": 400},
}
"""By the rows of a push: how many a second are prepared. Each is sent once."""

_POLLING = {"STILLWELL_SERVE_BUSY_POLL_US": "200"}
"""What a team sets whose readers want a short tail; the settings say what it costs."""

_PATIENCE_SECONDS = 90.0
_KEYS = 20_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServeScale:
    """How much is measured. runs: of everything that alternates; warm_up: whether one of each goes before them, and
    does not count. seconds: of each, at full load; skip: before them, and not counted either; steady_seconds: at a
    rate. wide: how many of the wider shapes. reads: a second, beside a worker; events: of the backlog by which the
    worker's rate is found; share: of that rate, what it gets beside reads."""

    runs: int = 5
    warm_up: bool = True
    seconds: float = 3.0
    skip: float = 0.5
    steady_seconds: float = 8.0
    wide: int = 4
    reads: int = 1_000
    events: int = 500_000
    share: float = 0.5

    @classmethod
    def quick(cls) -> "ServeScale":
        """Enough to see that every key is computed; the figures mean nothing."""
        return cls(
            runs=1,
            warm_up=False,
            seconds=1.0,
            skip=0.5,
            steady_seconds=0.5,
            wide=1,
            reads=200,
            events=20_000,
            share=0.05,
        )

    @property
    def rounds(self) -> range:
        """The numbers of the runs; 0 is that of the one that does not count."""
        return range(0 if self.warm_up else 1, self.runs + 1)


class ServeRun:
    """One run: measures the parts that are asked for, and gathers their result."""

    def __init__(self, testbed: Testbed, scale: ServeScale, console: Console) -> None:
        self._testbed = testbed
        self._scale = scale
        self._console = console
        self._numbers = itertools.count()
        self.result: Result = {
            "bench": "serve",
            "scale": dataclasses.asdict(scale),
            "notes": [],
            "skipped": [],
            "medians": {},
            "runs": {},
        }

    def measure(self, parts: Sequence[str] = SERVE_PARTS) -> Result:
        """A part that could not be measured leaves its keys out and says why in `notes`."""
        beside = [part for part in parts if part == "ingest"]
        others = [part for part in parts if part not in beside]
        if others:
            self._say("Feast's rows are written", "by its own SDK")
            with servers.both(self._testbed) as (stillwell, feast):
                measure: Mapping[str, Callable[[], None]] = {
                    "reading": lambda: self._reading(stillwell, feast),
                    "latency": lambda: self._latency(stillwell),
                    "views": lambda: self._views(stillwell),
                    "pushing": lambda: self._pushing(stillwell, feast),
                    "prediction": lambda: self._prediction(stillwell),
                    "on-demand": lambda: self._on_demand(stillwell),
                }
                for part in others:
                    self._part(part, measure[part])
        for part in beside:
            self._part(part, self._ingest)
        return self.result

    def _part(self, part: str, measure: Callable[[], None]) -> None:
        self._console.rule(f"[bold]{part}")
        started = time.monotonic()
        try:
            measure()
        except MeasurementError as error:
            self._note(f"{part}: NOT MEASURED: {error}")
        except Exception as error:
            # A mistake of the benchmark's: what was measured for a quarter of an hour is told all the same.
            self._console.print_exception()
            self._note(f"{part}: NOT MEASURED: {error!r}")
        self._say(f"{part} measured", f"in {time.monotonic() - started:.0f} s")

    # ---- reading at full load ----

    def _reading(self, stillwell: Stillwell, feast: Feast) -> None:
        shapes = SHAPES[: 2 + self._scale.wide]
        bodies = {shape: self._written(shape) for shape in shapes}
        runs = self._against_feast(stillwell, feast, {shape: bodies[shape] for shape in (NARROW, MANY)}, 1)
        generator = self._generator(stillwell, bodies)
        self.result["runs"]["reading"] = {**runs, **generator}
        rates = {name: median([each.rate for each in of]) for name, of in runs.items()}
        self.result["ratio_feast_1x10"] = rates[f"stillwell {NARROW}"] / rates[f"feast {NARROW}"]
        self.result["ratio_feast_100x10"] = rates[f"stillwell {MANY}"] / rates[f"feast {MANY}"]
        self._bare_at_full_load(stillwell, rates[f"stillwell {NARROW}"])
        # For information, and last: of the widest Feast's server answers three a second, where it has a core to itself.
        wide = {shape: file for shape, file in bodies.items() if shape not in (NARROW, MANY)}
        self.result["runs"]["reading"] |= self._against_feast(stillwell, feast, wide, 2)

    def _against_feast(
        self, stillwell: Stillwell, feast: Feast, bodies: Mapping[Shape, Path], times: int
    ) -> dict[str, list[Driven]]:
        """Both at full load, in turn. times: as long as usual."""
        runs: dict[str, list[Driven]] = {}
        for number in self._scale.rounds:
            for shape, file in bodies.items():
                how = self._at_full_load(shape.rows, times)
                for contender in (stillwell, feast):
                    self._keep(runs, f"{contender.name} {shape}", contender.read(file, how), number)
        for shape in bodies:
            ours, theirs = (runs[f"{server.name} {shape}"] for server in (stillwell, feast))
            rates = [median([each.rate for each in of]) for of in (ours, theirs)]
            self._median(f"{shape}: to Feast, x", [rates[0] / rates[1]])
            for server, of in ((stillwell, ours), (feast, theirs)):
                self._median(f"{shape}: {server.name}, requests a second", [each.rate for each in of])
                self._median(f"{shape}: {server.name}, µs of CPU a request", [each.server_cpu_us for each in of])
                self._median(f"{shape}: {server.name}, p99 ms", [each.took_us["p99"] / 1e3 for each in of])
        return runs

    def _generator(self, stillwell: Stillwell, bodies: Mapping[Shape, Path]) -> dict[str, list[Driven]]:
        """That the generator is faster than who is measured: against a server that does nothing, with the same answers.

        Raises MeasurementError where it is not twice as fast.
        """
        runs = {}
        for shape in (NARROW, MANY):
            how = self._at_full_load(shape.rows)
            answer = stillwell.raw(READ, shape.body(next(shape.users())))
            folder = self._fresh_folder()
            driven = driving.drive_trivial(folder, bodies[shape], answer, how)
            measured = stillwell.read(bodies[shape], how)
            self._say(f"generator alone  {shape}", str(driven))
            self._median(f"{shape}: generator alone, requests a second", [driven.rate])
            if driven.rate < 2 * measured.rate:
                raise MeasurementError(
                    f"the load generator makes {driven.rate:.0f} requests a second of {shape}, which is too close to "
                    f"the {measured.rate:.0f} of the service: it would be what is measured"
                )
            runs[f"generator {shape}"] = [driven]
        return runs

    def _bare_at_full_load(self, stillwell: Stillwell, served: float) -> None:
        """For information: how many of the same reads bare redis-py makes in pipelines of a hundred."""
        keys = self._keys_of(stillwell)
        rates = []
        for _ in range(self._scale.runs):
            told = self._bare("closed", keys, self._scale.seconds, self._scale.skip)
            rates.append(told["requests"] / told["seconds"])
        self._median(f"{NARROW}: bare pipelined redis-py, requests a second", rates)
        self._say("bare pipelined redis-py", f"{median(rates):,.0f} requests/s; the service {served:,.0f}")

    # ---- latency at half of saturation ----

    def _latency(self, stillwell: Stillwell) -> None:
        """Of a service that polls, and, for information, of one that sleeps between requests."""
        served = stillwell.served
        polling = dataclasses.replace(served, deployment=served.deployment.with_settings(_POLLING))
        with Stillwell(polling) as awake, cores.apart([stillwell.pid, awake.pid]) as core:
            self._latency_on(core, {"stillwell": awake, "stillwell, as it comes": stillwell})

    def _latency_on(self, core: set[int], services: Mapping[str, Stillwell]) -> None:
        stillwell = services["stillwell"]
        bodies, keys = self._written(NARROW), self._keys_of(stillwell)
        full = self._at_full_load(1)
        saturation = median([stillwell.read(bodies, full).rate for _ in range(3)])
        steady = self._at_a_rate(saturation / 2)
        self._say("half of saturation", f"{steady.rate:,.0f} requests/s")
        runs: dict[str, list[Driven]] = {}
        for number in self._scale.rounds:
            for name, service in services.items():
                self._keep(runs, name, service.read(bodies, steady), number)
            told = self._bare("open", keys, steady.rate, steady.seconds, steady.skip, core=core)
            bare = Driven(requests=told["requests"], seconds=told["seconds"], took_us=told["took_us"])
            self._keep(runs, "bare", bare, number)
        self.result["runs"]["latency"] = runs
        p99 = {name: median([each.took_us["p99"] for each in of]) for name, of in runs.items()}
        self.result["p99_vs_bare_redis"] = p99["stillwell"] / p99["bare"]
        self._median("half of saturation: as it comes, p99 to bare, x", [p99["stillwell, as it comes"] / p99["bare"]])
        self._median("half of saturation: requests a second", [steady.rate])
        for name, of in runs.items():
            for part in ("p50", "p99", "p999"):
                self._median(f"half of saturation: {name}, {part} ms", [each.took_us[part] / 1e3 for each in of])

    # ---- one view, twenty views ----

    def _views(self, stillwell: Stillwell) -> None:
        shapes = {"one view": Shape(1, ONE_VIEW), "twenty views": Shape(1, TWENTY_VIEWS)}
        rates = self._in_turn(stillwell, "views", shapes)
        self.result["views_1_to_20"] = rates["one view"] / rates["twenty views"]

    # ---- pushing ----

    def _pushing(self, stillwell: Stillwell, feast: Feast) -> None:
        runs: dict[str, list[Driven]] = {}
        for number in self._scale.rounds:
            for rows, most in _MOST_PUSHES.items():
                for name, server, mode, time_column in (
                    ("async", stillwell, "async", serve_data.PUSHED_AT),
                    ("sync", stillwell, "sync", serve_data.PUSHED_AT),
                    ("feast", feast, None, "event_timestamp"),
                ):
                    bodies = self._fresh_folder() / "pushes.json"
                    # What is measured is pushing what is newer, so that nothing is sent twice.
                    count = int(most[name] * (self._scale.seconds + self._scale.skip))
                    now = datetime.datetime.now(datetime.UTC)
                    bodies.write_bytes(b"\n".join(serve_data.pushes(rows, count, now, time_column, mode)))
                    how = dataclasses.replace(self._at_full_load(rows), once=True)
                    self._keep(runs, f"push {name} {rows}", server.push(bodies, how), number)
                    bodies.unlink()
        self.result["runs"]["pushing"] = runs
        for rows in _MOST_PUSHES:
            rates = {
                name: median([each.rate for each in runs[f"push {name} {rows}"]]) for name in ("async", "sync", "feast")
            }
            for mode in ("async", "sync"):
                self.result[f"push_{mode}_{rows}"] = rates[mode] / rates["feast"]
            for name in rates:
                of = runs[f"push {name} {rows}"]
                self._median(f"{rows} a push, {name}: rows a second", [each.rate * rows for each in of])
                self._median(f"{rows} a push, {name}: p99 ms", [each.took_us["p99"] / 1e3 for each in of])

    # ---- predictions, on-demand features ----

    def _prediction(self, stillwell: Stillwell) -> None:
        """A prediction that is in the cache, and fresh, against the view that it was made of; and, for information,
        against one feature alone."""
        shapes = {"features": NARROW, "a feature": Shape(1, (), ("Of10:f0",)), "prediction": Shape(1, (), PREDICTION)}
        everybody = range(serve_data.USERS)
        for first in range(0, serve_data.USERS, 100):  # the model is asked once for each user, and never again
            stillwell.columns(shapes["prediction"], everybody[first : first + 100])
        state = stillwell.state_of("Score", everybody[:100])
        if state != {"FRESH"}:
            raise MeasurementError(f"predictions that were just made are {sorted(state)}")
        rates = self._in_turn(stillwell, "prediction", shapes)
        self.result["prediction_vs_feature"] = rates["features"] / rates["prediction"]
        self._median("1 x 1: one prediction, to one feature alone, x", [rates["a feature"] / rates["prediction"]])

    def _on_demand(self, stillwell: Stillwell) -> None:
        """What one on-demand feature costs a request that has it beside ten stored ones."""
        shapes = {}
        for rows in (1, 100):
            shapes[f"{rows} x 10"] = serve_data.of(rows, 10)
            shapes[f"{rows} x 10 and one on demand"] = Shape(rows, ("Of10",), ON_DEMAND)
        rates = self._in_turn(stillwell, "on-demand", shapes)
        for rows in (1, 100):
            cost = rates[f"{rows} x 10"] / rates[f"{rows} x 10 and one on demand"]
            self._median(f"{rows} x 10: one on-demand feature more, x", [cost])

    def _in_turn(self, stillwell: Stillwell, part: str, shapes: Mapping[str, Shape]) -> dict[str, float]:
        """Requests a second at full load of each shape, medians of runs that took turns."""
        bodies = {name: self._written(shape) for name, shape in shapes.items()}
        runs: dict[str, list[Driven]] = {}
        for number in self._scale.rounds:
            for name, file in bodies.items():
                how = self._at_full_load(shapes[name].rows)
                self._keep(runs, name, stillwell.read(file, how), number)
        self.result["runs"][part] = runs
        for name, of in runs.items():
            self._median(f"{part}, {name}: requests a second", [each.rate for each in of])
            self._median(f"{part}, {name}: µs of CPU a request", [each.server_cpu_us for each in of])
        return {name: median([each.rate for each in of]) for name, of in runs.items()}

    # ---- beside a worker ----

    def _ingest(self) -> None:
        """Reads at a fixed rate, alone and beside a worker that takes in events at half of what it can."""
        testbed, scale = self._testbed, self._scale
        filled = testbed.fill(Load(scale.events, _KEYS, first_ts=time.time_ns() // 1_000 - scale.events))
        with Workers(testbed, testbed.deploy(filled.topic)) as workers:
            taken = workers.follow(filled, workers.until_first_event())
        testbed.remove(filled.topic)
        rate = int(taken.rate * scale.share)
        self._say("a worker alone", f"{taken.rate:,.0f} events/s; beside reads it gets {rate:,}")
        bodies = self._written(NARROW)
        how = self._at_a_rate(scale.reads)
        runs: dict[str, list[Driven]] = {}
        redis = int(testbed.redis.info("server")["process_id"])
        with Stillwell(servers.deploy(testbed)) as stillwell:
            for number in scale.rounds:
                with cores.at_once([redis, stillwell.pid]):
                    self._keep(runs, "alone", stillwell.read(bodies, how), number)
                with self._worker_at(rate, how.seconds + how.skip), cores.at_once([redis, stillwell.pid]):
                    self._keep(runs, "beside ingest", stillwell.read(bodies, how), number)
        self.result["runs"]["ingest"] = runs
        p99 = {name: median([each.took_us["p99"] for each in of]) for name, of in runs.items()}
        self.result["p99_beside_ingest"] = p99["beside ingest"] / p99["alone"]
        self._median("beside ingest: events a second", [float(rate)])
        for name, of in runs.items():
            for part in ("p50", "p99"):
                self._median(
                    f"{scale.reads} reads a second {name}: {part} ms", [each.took_us[part] / 1e3 for each in of]
                )

    @contextlib.contextmanager
    def _worker_at(self, rate: int, seconds: float) -> Iterator[None]:
        """A worker that takes in so many events a second, for so long at least.

        Raises MeasurementError where the producer did not keep to its rate.
        """
        testbed = self._testbed
        deployment = testbed.deploy(testbed.create_topic(4), emptied=False, window_age=WINDOW_AGE)
        with Workers(testbed, deployment) as workers:
            workers.until_shared()
            start_at = when_prepared(rate, seconds + 4)
            arguments = [testbed.stack.bootstrap, deployment.topic, str(rate), str(seconds + 4), str(start_at)]
            log = self._fresh_folder() / "producer.log"
            module = "tests.benchmarks.steady_producer"
            producer = Process("producer", [sys.executable, "-m", module, *arguments], log=log)
            try:
                time.sleep(max(0.0, start_at + 2 - time.time()))  # until it flows
                yield
                driving.until(lambda: not producer.running, "the producer's end", _PATIENCE_SECONDS)
            finally:
                producer.kill()
            kept = parsing.last_json(producer.log_text())
            if kept["rate"] < KEPT_RATE * rate:
                raise MeasurementError(f"the producer kept to {kept['rate']:.0f} events a second, not to {rate}")
            workers.stop()
        testbed.remove(deployment.topic)

    # ---- small parts ----

    def _at_full_load(self, rows: int, times: int = 1) -> Drive:
        """Requests for so many rows each, as many as get answered. times: as long as usual."""
        scale = self._scale
        return Drive(connections=CONNECTIONS[rows], seconds=scale.seconds * times, skip=scale.skip)

    def _at_a_rate(self, rate: float) -> Drive:
        """So many requests a second, whatever became of those before."""
        scale = self._scale
        return Drive(connections=_OPEN_CONNECTIONS, seconds=scale.steady_seconds, skip=2 * scale.skip, rate=rate)

    def _bare(self, kind: str, keys: Path, *numbers: float, core: set[int] | None = None) -> parsing.Json:
        arguments = [kind, self._testbed.stack.redis_url, str(keys), *map(str, numbers)]
        log = self._fresh_folder() / "bare.log"
        module = "tests.benchmarks.contenders.bare_redis"
        process = Process("bare redis-py", [sys.executable, "-m", module, *arguments], log=log)
        try:
            if core:
                cores.move(process.pid, core)
            driving.until(lambda: not process.running, "bare redis-py", sum(numbers[-2:]) + _PATIENCE_SECONDS)
        finally:
            process.kill()
        try:
            return parsing.last_json(process.log_text())
        except ValueError as error:
            raise MeasurementError(f"bare redis-py: {error}") from error

    def _keys_of(self, stillwell: Stillwell) -> Path:
        return servers.write_bare_keys(stillwell.served, NARROW, self._fresh_folder() / "keys.json")

    def _written(self, shape: Shape) -> Path:
        return shape.write(self._fresh_folder() / "bodies.json")

    def _fresh_folder(self) -> Path:
        folder = self._testbed.folder / f"serve-{next(self._numbers)}"
        folder.mkdir()
        return folder

    def _keep(self, runs: dict[str, list[Driven]], name: str, driven: Driven, number: int) -> None:
        """The first run of each warms caches up, and does not count."""
        if number == 0:
            self._say(f"warm-up, does not count  {name}", str(driven))
            return
        runs.setdefault(name, []).append(driven)
        self._say(f"run {number}/{self._scale.runs}  {name}", str(driven))

    # ---- telling ----

    def _median(self, name: str, values: Sequence[float]) -> None:
        self.result["medians"][name] = statistics.median(values)

    def _say(self, what: str, figures: str) -> None:
        self._console.print(f"{what:<42} {figures}", highlight=False)

    def _note(self, text: str) -> None:
        self.result["notes"].append(text)
        self._console.print(f"[bold yellow]{text}", highlight=False)
