"""For how long processes were kept from the processor: what a busy machine adds to every answer.

Linux counts for each thread how long it was ready to run and waited for a processor. A service whose event loop waited
for three seconds cannot have answered within one; on a machine of its own there is next to nothing of it, and deadlines
are what they are.
"""

import asyncio
import bisect
from collections.abc import Callable, Iterable
from pathlib import Path

_EVERY_S = 0.25
_SOON_S = 2.0


class Machine:
    """Of the main threads of some processes, which have the event loops."""

    def __init__(self, pids: Iterable[int], clock: Callable[[], float]) -> None:
        self._files = [Path(f"/proc/{pid}/schedstat") for pid in pids]
        self._clock = clock
        self._at: list[float] = []
        self._waited: list[float] = []
        self._last = [0.0] * len(self._files)

    async def run(self) -> None:
        """Look on until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Once."""
        for number, file in enumerate(self._files):
            try:
                self._last[number] = int(file.read_text().split()[1]) / 1e9
            except OSError:  # it has ended, or the kernel does not count
                continue
        self._at.append(self._clock())
        self._waited.append(sum(self._last))

    def waited(self, begin: float, end: float) -> float:
        """Seconds that they waited altogether from then to then, and a moment before."""
        if not self._at:
            return 0.0
        last = len(self._at) - 1
        first = max(0, bisect.bisect_left(self._at, begin - _SOON_S) - 1)
        return self._waited[min(last, bisect.bisect_left(self._at, end))] - self._waited[min(last, first)]

    @property
    def altogether(self) -> float:
        """Seconds, of all of them, since the first look."""
        return self._waited[-1] - self._waited[0] if self._at else 0.0
