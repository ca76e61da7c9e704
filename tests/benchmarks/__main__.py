"""`scripts/bench`: what Stillwell costs, against what else there is. See docs/reference/benchmark.md."""

import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from stillwell.local import KAFKA_VERSION
from tests.benchmarks import report
from tests.benchmarks.figures import INGEST_PARTS, SERVE_PARTS, judge, succeeded
from tests.benchmarks.ingest import Run, Scale
from tests.benchmarks.report import Result
from tests.benchmarks.serve import ServeRun, ServeScale
from tests.benchmarks.testbed import Testbed

BUSY = 1.0
"""The load average of a minute above which somebody else is at work."""

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "benchmark.md"


@click.group()
def bench() -> None:
    """Measure Stillwell."""


_FILE = click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
_RUNS = click.option("--runs", type=click.IntRange(min=1), help="Runs of each contender; medians count.  [default: 5]")
_QUICK = click.option(
    "--quick", is_flag=True, help="Small counts, to see that it works; limits are shown but not enforced."
)


@bench.command()
@_FILE
@_RUNS
@click.option("--events", type=click.IntRange(min=1_000), help="Events of each topic.  [default: 1000000]")
@click.option("--only", type=click.Choice(INGEST_PARTS), multiple=True, help="This part alone; may be repeated.")
@_QUICK
def ingest(file: Path | None, runs: int | None, events: int | None, only: tuple[str, ...], quick: bool) -> None:
    """Events from Kafka into Redis and Parquet. Exit code 1 when a limit is not kept."""
    scale = _scale(quick, runs, events)
    parts = [part for part in INGEST_PARTS if part in only or not only]
    _measure(parts, file, quick, lambda testbed, console: Run(testbed, scale, console).measure(parts))


@bench.command()
@_FILE
@_RUNS
@click.option("--only", type=click.Choice(SERVE_PARTS), multiple=True, help="This part alone; may be repeated.")
@_QUICK
def serve(file: Path | None, runs: int | None, only: tuple[str, ...], quick: bool) -> None:
    """The query service, against Feast's server and bare Redis. Exit code 1 when a limit is not kept."""
    scale = ServeScale.quick() if quick else ServeScale()
    if runs:
        scale = dataclasses.replace(scale, runs=runs)
    parts = [part for part in SERVE_PARTS if part in only or not only]
    _measure(parts, file, quick, lambda testbed, console: ServeRun(testbed, scale, console).measure(parts))


@bench.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def table(file: Path) -> None:
    """Put the figures of a run, as written by `--json FILE`, into docs/reference/benchmark.md."""
    PAGE.write_text(report.page_with(PAGE.read_text(), json.loads(file.read_text())))


def _measure(
    parts: Sequence[str], file: Path | None, quick: bool, measure: Callable[[Testbed, Console], Result]
) -> NoReturn:
    """Measure, show, write, and end with the exit code that tells whether every limit is kept."""
    console = Console(soft_wrap=True)
    # As Ctrl-C does, so that everything ends in order.
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="stillwell-bench-") as folder, Testbed.stack_of(Path(folder)) as stack:
        testbed = Testbed(stack)
        facts = report.machine(str(testbed.redis.info("server")["redis_version"]), KAFKA_VERSION)
        if os.getloadavg()[0] > BUSY:
            console.print(f"[bold yellow]This machine is busy (load {os.getloadavg()[0]:.1f}): figures mean little.")
        result = {**facts, **measure(testbed, console)}
    verdicts = judge(result, parts)
    result["verdicts"] = {verdict.limit.key: verdict.word for verdict in verdicts}
    if file:
        report.write_json(result, file)
    report.show(verdicts, console)
    for note in result["notes"]:
        console.print(f"[bold yellow]{note}", highlight=False)
    sys.exit(0 if succeeded(verdicts, result["skipped"], enforced=not quick) else 1)


def _scale(quick: bool, runs: int | None, events: int | None) -> Scale:
    scale = Scale.quick() if quick else Scale()
    if runs:
        scale = dataclasses.replace(scale, runs=runs)
    if events:
        scale = dataclasses.replace(scale, events=events, slow_events=max(1_000, events // 5))
    return scale


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    bench(prog_name="scripts/bench")
