"""Every registered version of the views: rows of older ones stay in Redis, and newer workers may be ahead of us.

They are read from the offline store by who wants to know them from the beginning, and again when a row has a layout
that nobody knows. A store that cannot be reached keeps nobody from starting: features of the defined versions can be
read without it, and it is asked again when the first other row is met.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from stillwell.errors import StillwellError
from stillwell.layout.projection import UnknownLayout
from stillwell.spec import ViewSpec
from stillwell.threads import ThreadPool

_PATIENCE = 15.0
"""Seconds in which the offline store must have answered."""

_WAIT = 5.0
"""Seconds that one request waits for it."""

_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
"""Seconds between two looks: a row that nobody knows is met by every request for it. A look that brings nothing new
doubles the pause, one that does makes it short again."""


class Versions:
    """Looks for registered versions, for one event loop."""

    def __init__(
        self,
        load: Callable[[], Sequence[ViewSpec]],
        found: Callable[[Sequence[ViewSpec]], None],
        looked: Callable[[int | Exception], None] = lambda came: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """load: every registered version; it may wait for a store, and runs in a thread. found: called with them.
        looked: told of each look, how many there are, or why they are not known."""
        self._load = load
        self._found = found
        self._looked = looked
        self._clock = clock
        self._threads = ThreadPool("versions", 1)
        self._looking: asyncio.Task[bool] | None = None
        self._next = -math.inf
        self._pause = _SHORTEST_PAUSE
        self._known: set[tuple[str, int]] | None = None

    async def learn(self, error: UnknownLayout) -> None:
        """Look for the version of a row that nobody knows: a worker of another one may have begun since, and have
        registered what it writes. Then read again.

        Raises the error where nobody has looked: there is no more to know of the row now.
        """
        if not await self.look():
            raise error

    async def look(self) -> bool:
        """Look for them, or wait for who does, unless that was a moment ago; whether somebody did, and succeeded."""
        if not self.begin():
            return False
        looking, task = self._looking, asyncio.current_task()
        assert looking is not None
        assert task is not None
        try:
            async with asyncio.timeout(_WAIT):
                return await asyncio.shield(looking)
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if looking.cancelled() and not task.cancelling():
                return False  # it was closed, and who asks was not
            raise

    def begin(self) -> bool:
        """Begin to look, unless that was a moment ago; whether somebody looks now."""
        if self._looking is None and self._clock() >= self._next:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return self._looking is not None

    async def close(self) -> None:
        """Wait for nobody any more."""
        if self._looking:
            self._looking.cancel()
        self._threads.close()

    async def _look(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                versions = await self._threads.call(self._load)
            known = {(version.name, version.version) for version in versions}
            if known != self._known:
                self._found(versions)
                self._known = known
                self._pause = _SHORTEST_PAUSE
        except (StillwellError, TimeoutError) as error:
            self._looked(error if str(error) else TimeoutError(f"no answer within {_PATIENCE:g} s"))
            return False
        else:
            self._looked(len(versions))
            return True
        finally:
            self._looking = None
            self._next = self._clock() + self._pause
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
