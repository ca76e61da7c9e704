"""What a process that answers sends on its way behind the answer: nobody who reads waits for it."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Outbox(Generic[_T]):
    """Sends what is put into it, in its order, for one event loop; `close` it.

    What cannot be sent is dropped, and holds up nothing that comes behind it.
    """

    def __init__(
        self,
        send: Callable[[list[_T]], Awaitable[None]],
        failed: Callable[[list[_T], Exception], Awaitable[None]],
        *,
        most: int,
        together: int,
    ) -> None:
        """send: sends some. failed: called with those for which it raised something; others are sent behind it.

        most: that may wait, by their sizes, beside those that are being sent. together: that are sent at once.
        """
        self._send = send
        self._failed = failed
        self._most = most
        self._together = together
        self._waiting: collections.deque[tuple[_T, int]] = collections.deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be put."""
        return self._size >= self._most

    def put(self, item: _T, size: int = 1) -> bool:
        """Send it, soon; False where it would be too many that wait."""
        if self._size + size > self._most:
            return False
        self._waiting.append((item, size))
        self._size += size
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send_on())
        return True

    async def close(self) -> None:
        """Send no more."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send_on(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._together, len(self._waiting)))]
                self._size -= sum(size for _, size in taken)
                some = [item for item, _ in taken]
                try:
                    await self._send(some)
                except Exception as error:
                    await self._failed(some, error)
