"""What is said of rows that are pushed."""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import print_json
from stillwell.cli.values import printable

if TYPE_CHECKING:
    from stillwell.client import PushedRow
    from stillwell.errors import StillwellError

_MOST_TOLD = 100
"""Rows that cannot be used, each told to people in a line of its own. The rest is counted."""

_SO_FAR = 10.0
"""Seconds after which it is told how many rows are through."""


@dataclasses.dataclass(slots=True)
class Told:
    """What was said so far."""

    view: str
    as_json: bool
    numbered: str
    """What a row's number is of: a line, or a row."""
    file: str = "-"
    clock: Callable[[], float] = time.monotonic
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    token: str | None = None
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self._told_at = self.clock()

    def row(self, number: int, row: "PushedRow") -> None:
        """What became of a row."""
        self.counts[row.status.value] += 1
        self._tell_how_many()
        if self.as_json:
            told = {self.numbered: number, "status": row.status.value}
            print_json(told if row.message is None else {**told, "reason": row.reason, "message": row.message})
        elif row.message is not None and self.counts[row.status.value] <= _MOST_TOLD:
            place = number if self.numbered == "line" else f"row {number}"
            reason = f" ({row.reason})" if row.reason else ""
            click.echo(f"{printable(self.file)}:{place}: {row.status.value}{reason}: {printable(row.message)}")

    def failed(self, number: int, error: "StillwellError") -> None:
        """A row has failed, and not for its own sake: people are told why once, in the end."""
        from stillwell.client import NotWritten

        # What Kafka holds will be written, and must not be pushed again as what has failed.
        status = "accepted" if isinstance(error, NotWritten) else "failed"
        self.counts[status] += 1
        if self.as_json:
            print_json({self.numbered: number, "status": status, "message": str(error)})

    def _tell_how_many(self) -> None:
        """Of long work, how far it is."""
        from stillwell.counting import counted

        if self.clock() - self._told_at > _SO_FAR:
            self._told_at = self.clock()
            click.echo(f"{counted(self.counts.total(), 'row')} so far", err=True)

    def sum_up(self) -> None:
        """All rows in a line."""
        if self.as_json:
            print_json({"view": self.view, "counts": dict(self.counts), "token": self.token})
            return
        if (more := self.counts["rejected"] - _MOST_TOLD) > 0:
            click.echo(f"… and {more:,} more were rejected; --json tells of each")
        counted = ", ".join(f"{count:,} {status}" for status, count in self.counts.most_common()) or "no rows"
        click.echo(f"{self.view}: {counted}" + (f"; token {self.token}" if self.token else ""))
