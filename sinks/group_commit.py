"""Group commit: what is asked for at one moment, or while an earlier call is under way, goes into one call, as
databases commit the transactions of many at once."""

import asyncio
import copy
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from stillwell.errors import OutcomeUnknown, StoreUnavailable

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Asked(Generic[_Item, _Outcome]):
    """An item, and who waits for its outcome."""

    item: _Item
    weight: int
    outcome: "asyncio.Future[_Outcome]"


class GroupCommit(Generic[_Item, _Outcome]):
    """Makes one call at a time, of what has been asked for by then. `close` it, and ask no more."""

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
        self._closed = False

    async def ask(self, item: _Item) -> _Outcome:
        """What became of an item.

        Raises what `commit` raised. Where the store gave no answer, all of a group hear of it. What else goes wrong may
        be the fault of one: each is committed by itself then, and hears what comes of that. Raises OutcomeUnknown where
        it was closed meanwhile.

        Who stops waiting before the call is made has asked for nothing; afterwards the call goes on all the same.
        """
        if self._closed:
            raise RuntimeError("a store was asked to commit after it had been closed")
        outcome: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        asked = _Asked(item, self._weight(item), outcome)
        self._waiting.append(asked)
        if self._carrying is None:
            # It begins behind all who are about to run, and may ask as well.
            self._carrying = asyncio.create_task(self._carry())
        return await outcome

    async def close(self) -> None:
        """End the call that is under way; whoever waits hears that it is not known what became of it."""
        self._closed = True
        if carrying := self._carrying:
            carrying.cancel()
            await asyncio.wait([carrying])
        self._give_up(())  # a task that was cancelled before it began has not

    async def _carry(self) -> None:
        group: list[_Asked[_Item, _Outcome]] = []
        try:
            while not self._closed and (group := self._next()):
                await self._carry_group(group)
        finally:
            self._carrying = None
            self._give_up(group)

    def _give_up(self, group: Iterable[_Asked[_Item, _Outcome]]) -> None:
        """Tell a group, and all who wait, so that nobody waits for ever. Nobody is left where all went well."""
        _refuse((*group, *self._waiting), OutcomeUnknown("what was to be committed was given up amid it"))
        self._waiting.clear()

    def _next(self) -> list[_Asked[_Item, _Outcome]]:
        """The first who still wait, and together are not too many; empty where nobody waits."""
        group: list[_Asked[_Item, _Outcome]] = []
        weight = 0
        while self._waiting:
            asked = self._waiting[0]
            if not asked.outcome.done():
                weight += asked.weight
                if group and weight > self._most:
                    break
                group.append(asked)
            self._waiting.popleft()
        return group

    async def _carry_group(self, group: Sequence[_Asked[_Item, _Outcome]]) -> None:
        error = await self._tried(group)
        if error is None:
            return
        if len(group) == 1 or _is_no_answer(error):
            _refuse(group, error)
            return
        for number, asked in enumerate(group):
            if asked.outcome.done():
                continue
            if error := await self._tried([asked]):
                if _is_no_answer(error):  # a store that has fallen silent is not asked by each in turn
                    _refuse(group[number:], error)
                    return
                _refuse([asked], error)

    async def _tried(self, group: Sequence[_Asked[_Item, _Outcome]]) -> Exception | None:
        """What went wrong; None where everybody has been told an outcome."""
        try:
            outcomes = await self._commit([asked.item for asked in group])
            for asked, outcome in zip(group, outcomes, strict=True):
                if not asked.outcome.done():
                    asked.outcome.set_result(outcome)
        except Exception as error:
            return error
        return None


def _is_no_answer(error: Exception) -> bool:
    return isinstance(error, OutcomeUnknown | StoreUnavailable)


def _refuse(group: Iterable[_Asked[_Item, _Outcome]], error: Exception) -> None:
    """Each gets an error of its own: who keeps one, until the store answers again, would keep by its traceback what all
    the others had asked for."""
    for asked in group:
        if not asked.outcome.done():
            asked.outcome.set_exception(copy.copy(error))
