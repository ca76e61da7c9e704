"""Group commit: what several ask for while a call is under way goes into the next call together, as databases commit.

A round trip costs the event loop as much for one as for all, and the server is asked over one connection: of each it
reads up to 16 KiB before it looks whether somebody else has asked, so that a reader beside four busy ones waits for
four times as many rows.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from stillwell.errors import OutcomeUnknown, StoreUnavailable

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


class _Asked(Generic[_Item, _Outcome]):
    """An item, and who waits for its outcome."""

    __slots__ = ("item", "outcome")

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.outcome: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()


class GroupCommit(Generic[_Item, _Outcome]):
    """Makes one call at a time, of whatever has been asked for by then. An item may come into a second call."""

    def __init__(
        self,
        commit: Callable[[Sequence[_Item]], Awaitable[Sequence[_Outcome]]],
        weight: Callable[[_Item], int],
        most: int,
    ) -> None:
        """commit: gives an outcome for each item, and is harmless to repeat. most: weight of a group, unless it is of
        one item, so that nobody waits long for others."""
        self._commit = commit
        self._weight = weight
        self._most = most
        self._waiting: deque[_Asked[_Item, _Outcome]] = deque()
        self._carrying: asyncio.Task[None] | None = None

    async def ask(self, item: _Item) -> _Outcome:
        """What became of an item. Raises what `commit` raised: for all of a group where the store gave no answer; a
        refusal only for the item that is refused by itself too.

        Who stops waiting before the call is made has asked for nothing; afterwards the call is made all the same.
        """
        asked = _Asked[_Item, _Outcome](item)
        self._waiting.append(asked)
        if self._carrying is None:
            # It begins behind all who are about to run, and may ask as well.
            self._carrying = asyncio.create_task(self._carry())
        return await asked.outcome

    async def close(self) -> None:
        """Stop the call that is under way, and whoever waits."""
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.wait([self._carrying])

    async def _carry(self) -> None:
        group: list[_Asked[_Item, _Outcome]] = []
        try:
            while group := self._next():
                await self._carry_group(group)
        finally:
            self._carrying = None
            for asked in (*group, *self._waiting):
                asked.outcome.cancel()
            self._waiting.clear()

    def _next(self) -> list[_Asked[_Item, _Outcome]]:
        """The first who still wait, and together are not too many; empty where nobody waits."""
        group: list[_Asked[_Item, _Outcome]] = []
        weight = 0
        while self._waiting:
            asked = self._waiting[0]
            if not asked.outcome.done():
                weight += self._weight(asked.item)
                if group and weight > self._most:
                    break
                group.append(asked)
            self._waiting.popleft()
        return group

    async def _carry_group(self, group: Sequence[_Asked[_Item, _Outcome]]) -> None:
        try:
            outcomes = await self._commit([asked.item for asked in group])
        except (OutcomeUnknown, StoreUnavailable) as error:
            _refuse(group, error)
        except Exception as error:
            if len(group) == 1:
                _refuse(group, error)
            for asked in group if len(group) > 1 else ():
                await self._carry_group([asked])
        else:
            for asked, outcome in zip(group, outcomes, strict=True):
                if not asked.outcome.done():
                    asked.outcome.set_result(outcome)


def _refuse(group: Iterable[_Asked[_Item, _Outcome]], error: Exception) -> None:
    for asked in group:
        if not asked.outcome.done():
            asked.outcome.set_exception(error)
