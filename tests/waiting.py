"""Waiting for something to become true, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01


def eventually(condition: Callable[[], T], *, within_s: float = 10.0, what: str = "the condition") -> T:
    """Ask until condition() is true, and give what it gave. An AssertionError that it raises counts as not yet.

    Raises AssertionError, naming `what` and the last answer, when within_s have passed.
    """
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            answer = condition()
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not met within {within_s:g} s; last: {last!r}")
        time.sleep(_PAUSE_S)


def throughout(condition: Callable[[], object], *, for_s: float, what: str = "the condition") -> None:
    """Ask again and again for so long. Raises AssertionError, naming `what`, as soon as condition() is not true."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert condition(), f"{what} did not hold for {for_s:g} s"
        time.sleep(_PAUSE_S)


async def eventually_here(
    condition: Callable[[], T], *, within_s: float = 10.0, what: str = "the condition", pause_s: float = _PAUSE_S
) -> T:
    """`eventually` within an event loop, which goes on meanwhile. pause_s: with 0 each turn of it is looked at."""

    async def asked() -> T:
        return condition()

    return await eventually_async(asked, within_s=within_s, what=what, pause_s=pause_s)


async def eventually_async(
    condition: Callable[[], Awaitable[T]],
    *,
    within_s: float = 10.0,
    what: str = "the condition",
    pause_s: float = _PAUSE_S,
) -> T:
    """`eventually` for a condition that has to be awaited."""
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            answer = await condition()
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not met within {within_s:g} s; last: {last!r}")
        await asyncio.sleep(pause_s)
