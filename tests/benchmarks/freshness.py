"""How long after an event was produced its row can be read, at a steady rate: seen by a reader, not by the worker.

Three processes: a producer that keeps to the rate, the worker, and a sampler that polls Redis for probes among the
events. Windows are short, so that files are uploaded all the time.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator

from stillwell.local import Process, free_port
from tests import services
from tests.benchmarks import parsing
from tests.benchmarks.figures import quantile
from tests.benchmarks.steady_producer import when_prepared
from tests.benchmarks.testbed import Deployment, MeasurementError, Testbed
from tests.benchmarks.workers import Workers
from tests.services import FakeGcs, Toxiproxy

STORE_LATENCY_MS = 200
WINDOW_AGE = "5s"
KEPT_RATE = 0.98
"""A run counts only if the producer kept to so much of its rate: on a machine that cannot, the figure means nothing."""

_PATIENCE_SECONDS = 90.0


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """Events a second, for how long, and how many seconds at the beginning do not count: caches fill, code warms up."""

    rate: int
    seconds: float
    skip: float


@dataclasses.dataclass(frozen=True, slots=True)
class Freshness:
    """Milliseconds from produced to servable; missing: probes whose row never came. infinite where too many miss."""

    probes: int
    missing: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    kept_rate: float
    worker_cpu_us_per_event: float

    def __str__(self) -> str:
        return (
            f"p50 {self.p50_ms:.1f}  p99 {self.p99_ms:.1f}  p99.9 {self.p999_ms:.1f}  max {self.max_ms:.1f} ms; "
            f"{self.missing} of {self.probes:,} probes missing; {self.kept_rate:,.0f} events/s, "
            f"{self.worker_cpu_us_per_event:.1f} µs CPU an event"
        )


def tools_are_there() -> bool:
    """Whether a slow store can be made here."""
    return all((services.TOOLS / name).exists() for name in ("fake-gcs-server", "toxiproxy-server"))


def measure(testbed: Testbed, pace: Pace) -> Freshness:
    """With a folder as object store."""
    deployment = testbed.deploy(testbed.create_topic(4), window_age=WINDOW_AGE)
    return _measure(testbed, deployment, pace)


def measure_slow_store(testbed: Testbed, pace: Pace) -> Freshness:
    """With a bucket that answers every call 200 ms later."""
    with _slow_bucket(testbed) as settings:
        deployment = testbed.deploy(testbed.create_topic(4), window_age=WINDOW_AGE)
        return _measure(testbed, deployment.with_settings(settings), pace)


@contextlib.contextmanager
def _slow_bucket(testbed: Testbed) -> Iterator[dict[str, str]]:
    """What tells a worker of a bucket behind a proxy that delays."""
    port = free_port()
    bucket = FakeGcs(testbed.folder / "gcs", proxied_port=port)
    proxy = Toxiproxy(testbed.folder / "toxiproxy")
    with contextlib.ExitStack() as started:
        for part in (bucket, proxy):
            part.start()
            started.callback(part.stop)
        bucket.create_bucket("slow")
        proxy.create(bucket.address, port=port).add_toxic("latency", latency=STORE_LATENCY_MS)
        yield {
            "STILLWELL_OFFLINE_URL": "gs://slow",
            "STORAGE_EMULATOR_HOST": bucket.endpoint,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "FSSPEC_GCS_TOKEN": "anon",
        }


def _measure(testbed: Testbed, deployment: Deployment, pace: Pace) -> Freshness:
    with Workers(testbed, deployment) as workers:
        workers.until_shared()
        before = workers.reading()
        start_at = when_prepared(pace.rate, pace.seconds)
        rate, seconds = str(pace.rate), str(pace.seconds)
        producer = ["steady_producer", testbed.stack.bootstrap, deployment.topic, rate, seconds, str(start_at)]
        sampler = [
            "sampler", testbed.stack.redis_url, deployment.namespace, rate, seconds, str(pace.skip), str(start_at)
        ]  # fmt: skip
        with _running(testbed, producer) as producing, _running(testbed, sampler) as sampling:
            deadline = start_at + pace.seconds + _PATIENCE_SECONDS
            while producing.running or sampling.running:
                if time.time() > deadline:
                    raise MeasurementError(f"the sampler does not end: {sampling.log_text()[-1000:]}")
                time.sleep(0.1)
            after = workers.reading()
            kept, sampled = (_printed(process) for process in (producing, sampling))
        workers.stop()
    testbed.remove(deployment.topic)
    latencies, missing = [float(each) for each in sampled["latencies_ms"]], int(sampled["missing"])
    if float(kept["rate"]) < KEPT_RATE * pace.rate:
        raise MeasurementError(f"the producer kept to {kept['rate']:.0f} events a second, not to {pace.rate}")
    return Freshness(
        probes=len(latencies) + missing,
        missing=missing,
        p50_ms=quantile(latencies, 0.5, missing),
        p99_ms=quantile(latencies, 0.99, missing),
        p999_ms=quantile(latencies, 0.999, missing),
        max_ms=quantile(latencies, 1, missing),
        kept_rate=float(kept["rate"]),
        worker_cpu_us_per_event=(after.worker_cpu - before.worker_cpu) / float(kept["events"]) * 1e6,
    )


@contextlib.contextmanager
def _running(testbed: Testbed, arguments: list[str]) -> Iterator[Process]:
    module, *rest = arguments
    log = testbed.folder / f"{module}-{time.monotonic_ns()}.log"
    process = Process(module, [sys.executable, "-m", f"tests.benchmarks.{module}", *rest], log=log)
    try:
        yield process
    finally:
        process.kill()


def _printed(process: Process) -> parsing.Json:
    try:
        return parsing.last_json(process.log_text())
    except ValueError as error:
        raise MeasurementError(f"{process.name}: {error}") from error
