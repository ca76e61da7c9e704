"""`stillwell push`."""

import collections
import dataclasses
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, BinaryIO, Literal

import click

from stillwell.cli.output import json_option, print_json
from stillwell.cli.service import service_option
from stillwell.cli.values import printable
from stillwell.errors import StillwellError

if TYPE_CHECKING:
    from stillwell.client import PushedRow, Pusher, Receipt

_LONGEST_LINE = 1024 * 1024
"""Bytes: a request may have no more, and a row is a part of one."""

_PIECE = 64 * 1024

_AHEAD = 5_000
"""Rows that are on their way while the first of them has no answer."""

_TIMEOUT = 30.0
"""Seconds for a batch, with its repetitions."""


@click.command()
@click.argument("view")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--mode",
    type=click.Choice(["sync", "async"]),
    default="sync",
    show_default=True,
    help="Answer once rows are in Redis, or once Kafka holds them.",
)
@click.option(
    "--to",
    type=click.Choice(["online", "offline", "online_and_offline"]),
    default="online_and_offline",
    show_default=True,
    help="Who is to see the rows.",
)
@click.option(
    "--transform-on-write/--final",
    default=True,
    show_default=True,
    help="Whether they are events of the view's topic, or finished rows.",
)
@service_option
@json_option
def push(
    view: str,
    file: BinaryIO,
    mode: Literal["sync", "async"],
    to: Literal["online", "offline", "online_and_offline"],
    transform_on_write: bool,
    url: str,
    as_json: bool,
) -> int:
    """Push the rows of a FILE, one JSON object a line, to a view; a FILE called - is standard input.

    Says what became of each row that cannot be used, and counts the others; with --json a line for every row, and one
    in the end. The exit code is 0 if all were taken. The token that it prints makes `stillwell get --after` wait for
    the rows.
    """
    import asyncio

    from stillwell.client import Client

    told = _Told(view, as_json)

    async def run() -> None:
        async with (
            Client(url, timeout=_TIMEOUT) as client,
            client.pusher(view, mode=mode, to=to, transform_on_write=transform_on_write) as pusher,
        ):
            try:
                await _push(file, pusher, told)
            finally:
                told.token = str(pusher.token) if pusher.token else None

    try:
        asyncio.run(run())
    finally:
        told.sum_up()
    return 1 if told.counts["rejected"] else 0


@dataclasses.dataclass(slots=True)
class _Told:
    """What was said so far."""

    view: str
    as_json: bool
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    token: str | None = None

    def row(self, line: int, row: "PushedRow") -> None:
        """What became of a row."""
        self.counts[row.status.value] += 1
        if self.as_json:
            told = {"line": line, "status": row.status.value}
            print_json(told if row.message is None else {**told, "reason": row.reason, "message": row.message})
        elif row.message is not None:
            reason = f" ({row.reason})" if row.reason else ""
            click.echo(f"line {line}: {row.status.value}{reason}: {printable(row.message)}")

    def sum_up(self) -> None:
        """All rows in a line."""
        if self.as_json:
            print_json({"view": self.view, "counts": dict(self.counts), "token": self.token})
            return
        counted = ", ".join(f"{count:,} {status}" for status, count in self.counts.most_common()) or "no rows"
        click.echo(f"{self.view}: {counted}" + (f"; token {self.token}" if self.token else ""))


async def _push(file: BinaryIO, pusher: "Pusher", told: _Told) -> None:
    """Push all lines. Raises the first failure that is not of one row alone, when all that is on its way has ended."""
    waiting: collections.deque[tuple[int, Receipt | PushedRow]] = collections.deque()
    failed: StillwellError | None = None
    async for line, row in _rows(file):
        waiting.append((line, row if not isinstance(row, dict) else await pusher.push(row)))
        if len(waiting) > _AHEAD:
            failed = await _tell(*waiting.popleft(), told)
        if failed is not None:
            break
    for each in waiting:
        failed = await _tell(*each, told) or failed
    if failed is not None:
        raise failed


async def _tell(line: int, row: "Receipt | PushedRow", told: _Told) -> StillwellError | None:
    """Say what became of a row; what failed, if it was not for the row's own sake."""
    from stillwell.client import PushedRow, PushStatus, RowRejected

    try:
        told.row(line, row if isinstance(row, PushedRow) else await row)
    except RowRejected as error:
        told.row(line, PushedRow(PushStatus.REJECTED, error.reason, str(error)))
    except StillwellError as error:
        told.counts["failed"] += 1
        return error
    return None


async def _rows(file: BinaryIO) -> "AsyncIterator[tuple[int, dict[str, object] | PushedRow]]":
    """Each line's number, and its row or why it is none, as soon as it is there. Empty lines are passed over."""
    import msgspec

    from stillwell.client import PushedRow, PushStatus

    decoder = msgspec.json.Decoder(dict[str, object])
    number = 0
    async for line in _lines(file):
        number += 1
        if not line.strip():
            continue
        try:
            yield number, decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield number, PushedRow(PushStatus.REJECTED, "malformed", f"the line is no JSON object: {error}")


async def _lines(file: BinaryIO) -> AsyncIterator[bytes]:
    """Lines as they come: who writes to a pipe may take a while over the next one, and rows must not wait for it."""
    from stillwell.threads import ThreadPool

    left = b""
    read = getattr(file, "read1", file.read)
    # A pool of its own, whose end nobody waits for: Ctrl-C must not wait for a line.
    thread = ThreadPool("input", 1)
    try:
        while piece := await thread.call(read, _PIECE):
            *lines, left = (left + piece).split(b"\n")
            if max(map(len, (left, *lines))) > _LONGEST_LINE:
                raise click.UsageError(f"a line has more than {_LONGEST_LINE} bytes: is it one JSON object a line?")
            for line in lines:
                yield line
        if left:
            yield left
    finally:
        thread.close()
