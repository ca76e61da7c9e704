"""What the chaos and the soak have in common as commands: choices by a seed, lines that tell the time, a folder for
logs, a summary, an exit code."""

import contextlib
import dataclasses
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(command: _Command) -> _Command:
    """--seed, --json (as `summary`) and --logs."""
    for option in (
        click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep logs in this folder."),
        click.option(
            "--json",
            "summary",
            type=click.Path(dir_okay=False, writable=True, path_type=Path),
            help="Write a summary there.",
        ),
        click.option("--seed", type=int, help="Choose as an earlier run did, which printed its seed."),
    ):
        command = option(command)
    return command


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run. folder: for logs."""

    seed: int
    folder: Path
    started: float

    def say(self, text: str) -> None:
        """A line, and when it came."""
        click.echo(f"{self.seconds:7.1f} s  {text}")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started


@contextlib.contextmanager
def begun(name: str, seed: int | None, logs: Path | None) -> Iterator[Run]:
    """A run under way. logs: where they are kept; without, they go with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as temporary:
        folder = (logs or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(random.SystemRandom().randrange(2**32) if seed is None else seed, folder, time.monotonic())
        run.say(f"seed {run.seed} (repeat with --seed {run.seed})")
        yield run


def end(result: Mapping[str, Any], summary: Path | None) -> None:
    """Write the summary, and exit: with 0 if all is good."""
    if summary:
        summary.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["good"] else 1)
