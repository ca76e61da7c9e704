"""How long a command waits for a store that does not answer: it asks again for some twenty seconds, then gives up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stillwell.errors import OutcomeUnknown, StoreUnavailable

_T = TypeVar("_T")

PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0)
"""Seconds between two attempts."""


async def until_done(
    call: Callable[[], Awaitable[_T]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> _T:
    """What a call returns once it succeeds; it must be harmless to repeat. Raises the last error of one that does not.

    sleep: how to wait so many seconds.
    """
    for pause in PAUSES:
        try:
            return await call()
        except (StoreUnavailable, OutcomeUnknown):
            await sleep(pause)
    return await call()
