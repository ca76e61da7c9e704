"""What commands print: a line of JSON for programs, or text for people."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from stillwell.local import Progress
    from stillwell.progress import Advance

Command = TypeVar("Command", bound=Callable[..., object])


def json_option(command: Command) -> Command:
    """Give a command the option --json, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


@contextlib.contextmanager
def download_progress(what: str) -> Iterator["Progress"]:
    """A bar on standard error for a download, which appears if there is one."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    with _bar(TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        tasks = [bar.add_task(what, visible=False)]

        def show(done: int, total: int) -> None:
            bar.update(tasks[0], completed=done, total=total, visible=True)

        yield show


@contextlib.contextmanager
def counting_progress(what: str) -> Iterator["Advance"]:
    """A bar on standard error for long work; gives a function of how many are done and how many are known."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    with _bar(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, known: bar.update(task, completed=done, total=known)


def _bar(*columns: "ProgressColumn") -> "Bar":
    """A bar that is gone when it is done. In a log it would be an empty line."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
