"""Rows on their way, and what becomes of them: told as it is known, while the next are read."""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from stillwell.cli.told import Told
from stillwell.client import PushedRow, Pusher, PushStatus, Receipt, RowRejected
from stillwell.errors import StillwellError

if TYPE_CHECKING:
    from stillwell.cli.rows import Row

_AHEAD = 5_000
"""Rows that are on their way while the first of them has no answer."""


async def push_rows(rows: "AsyncIterator[tuple[int, Row]]", pusher: Pusher, told: Told) -> None:
    """Push rows, and say what became of each as soon as that is known, in their order. Raises the first failure
    that is not of one row alone, or what is wrong with the file, when all that is on its way has ended."""
    answers = _Answers(told)
    wrong: StillwellError | click.UsageError | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(answers.tell())
            try:
                async for number, row in rows:
                    if answers.failed is not None:
                        break
                    await answers.room.acquire()
                    answers.put(number, row if isinstance(row, PushedRow) else await pusher.push(row))
            except (StillwellError, click.UsageError) as error:
                wrong = error
            await answers.end()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if failed := answers.failed or wrong:
        raise failed


class _Answers:
    """What becomes of rows, told in the order in which they were pushed. room: of those that may be untold."""

    def __init__(self, told: Told) -> None:
        self.room = asyncio.Semaphore(_AHEAD)
        self.failed: StillwellError | None = None
        self._told = told
        self._waiting: collections.deque[tuple[int, Receipt | PushedRow]] = collections.deque()
        self._more = asyncio.Event()
        self._ended = False

    def put(self, number: int, row: Receipt | PushedRow) -> None:
        """A row is on its way, or is none."""
        self._waiting.append((number, row))
        self._more.set()

    async def end(self) -> None:
        """There are no more."""
        self._ended = True
        self._more.set()
        last = next((row for _, row in reversed(self._waiting) if isinstance(row, Receipt)), None)
        if last is not None:
            with contextlib.suppress(StillwellError):  # which is told in its turn
                await last  # so that the last rows are sent, however few they are

    async def tell(self) -> None:
        """Tell of each, until there are no more."""
        while not self._ended or self._waiting:
            while self._waiting:
                number, row = self._waiting[0]
                if isinstance(row, Receipt):
                    await row.settled()
                failed = await _tell(number, row, self._told)
                self.failed = self.failed or failed
                self._waiting.popleft()
                self.room.release()
            self._more.clear()
            if not self._ended:
                await self._more.wait()


async def _tell(number: int, row: Receipt | PushedRow, told: Told) -> StillwellError | None:
    """Say what became of a row; what failed, if it was not for the row's own sake."""
    try:
        told.row(number, row if isinstance(row, PushedRow) else await row)
    except RowRejected as error:
        told.row(number, PushedRow(PushStatus.REJECTED, error.reason, str(error)))
    except StillwellError as error:
        told.failed(number, error)
        return error
    return None
