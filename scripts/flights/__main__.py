"""The command line of the demo; `scripts/demo` runs it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--events",
    type=click.IntRange(min=1_000),
    metavar="N",
    help="Replay the last N events of the year, not all 691,412.",
)
@click.option("--seed", type=int, default=2013, show_default=True, help="Of the dice for what goes wrong on purpose.")
@click.option("--keep", is_flag=True, help="Leave everything running if all agrees, and say how to end it.")
@click.option("--no-model", is_flag=True, help="Without a model server, which takes half a gigabyte: no predictions.")
@click.option(
    "--json",
    "summary",
    type=click.Path(dir_okay=False, writable=True, resolve_path=True, path_type=Path),
    help="Write a summary there.",
)
def demo(events: int | None, seed: int, keep: bool, no_model: bool, summary: Path | None) -> None:
    """Stream a year of real flights through real Kafka into real Redis and Parquet, and prove that all arrived.

    Everything runs on this machine and needs nothing but Python. A model of delays is trained, and its predictions are
    kept fresh meanwhile. One of two workers is killed on the way. In the end `stillwell verify` counts everything
    again, DuckDB computes three views again from the files and compares them with Redis, value by value, and the
    predictions that are served are compared with the model's own.

    Exit codes: 0 all agrees, 1 something does not, 2 called wrongly, 130 interrupted.
    """

    os.chdir(ROOT)  # where the definitions are found

    def work(hand_over: Callable[[], None] | None = None) -> int:
        from scripts.flights.story import Options, tell

        return tell(Options(events, seed, summary, with_model=not no_model), hand_over)

    if keep:
        from scripts.flights.keeper import in_keeper

        sys.exit(in_keeper(work))
    sys.exit(work())


if __name__ == "__main__":
    demo(prog_name="scripts/demo")
