"""How long a command waits for a store that does not answer: it asks again for some twenty seconds, then gives up."""

import asyncio

ATTEMPTS = 8
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


async def pause(attempt: int, error: Exception) -> None:
    """Wait before attempt number n (from 1) is made again; raises the error when there were enough of them."""
    if attempt > ATTEMPTS:
        raise error
    await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
