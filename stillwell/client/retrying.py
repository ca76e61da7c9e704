"""When a call is made again, and after which pause: a policy, and what it says of one failure."""

import dataclasses
import random
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True)
class Retries:
    """attempts: calls in all. Pauses, in seconds, are drawn between nothing and a limit that doubles from `first` up to
    `longest`: clients that failed together do not come back together."""

    attempts: int = 4
    first: float = 0.02
    longest: float = 0.5

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
