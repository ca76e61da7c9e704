"""When a call is made again, and after which pause: a policy, and the calls that follow it within one deadline."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stillwell.client.errors import ClientError, NotReady, TimedOut, Unavailable

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Retries:
    """attempts: calls in all. Pauses, in seconds, are drawn between nothing and a limit that doubles from `first` up to
    `longest`: clients that failed together do not come back together."""

    attempts: int = 4
    first: float = 0.02
    longest: float = 0.5

    async def until_answered(
        self,
        who: str,
        timeout: float,
        attempt: Callable[[], Awaitable[_T]],
        draw: Callable[[], float] = random.random,
        *,
        again: tuple[type[ClientError], ...] = (Unavailable,),
        late: type[ClientError] = TimedOut,
    ) -> _T:
        """What the first attempt returns that does not fail by one of `again`, after which it may be repeated.

        who: does not answer, in the words of `late`, which is raised after so many seconds. The last failure is raised
        where no further attempt is worth it, and NotReady, which only a person mends, at once.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        failed = 0
        last: ClientError | None = None
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await attempt()
            except TimeoutError:
                said = f"; before that: {last}" if last else ""
                raise late(f"{who} gave no answer within {timeout:g} s{said}") from None
            except NotReady:
                raise
            except again as error:
                last = error
                failed += 1
                pause = self.pause(failed, getattr(error, "retry_after", None), deadline - loop.time(), draw)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def pause(
        self, failed: int, retry_after: float | None, remaining: float, draw: Callable[[], float] = random.random
    ) -> float | None:
        """How long to wait after so many failed attempts; None where it is not worth it.

        retry_after: what the service asked for; a call that comes sooner would be refused again. remaining: seconds
        that the caller still has. draw: a number from 0 to 1.
        """
        if failed >= self.attempts:
            return None
        spread = min(self.longest, self.first * 2 ** (failed - 1))
        pause = (retry_after or 0.0) + spread * draw()
        return pause if pause < remaining else None
