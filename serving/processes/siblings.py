"""The processes of one service, asking each other for their metrics.

One port serves them all, so that whoever collects metrics meets any of them: that one asks the others, each at a socket
in a folder that only they know of, and shows everybody's.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 1.0
"""Seconds in which a sibling must have said all. One that hangs is shown as such, and holds the page up no longer."""

_MOST_BYTES = 16 * 1024 * 1024
"""Of what one says: far more than its numbers take."""


class Siblings:
    """One process among `of`. In a service of one there is nobody to ask."""

    def __init__(self, number: int, of: int, folder: Path | None, snapshot: Callable[[], bytes]) -> None:
        """number: of this process, from 0. folder: where their sockets are."""
        self._number = number
        self._of = of
        self._folder = folder
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer the others from now on."""
        if self._folder:
            path = self._folder / str(self._number)
            path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, path)

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._server:
            self._server.close()

    async def snapshots(self) -> list[bytes | None]:
        """Everybody's metrics, by their numbers; None of one that does not answer."""
        return await asyncio.gather(*(self._of_one(number) for number in range(self._of)))

    async def _of_one(self, number: int) -> bytes | None:
        if number == self._number or self._folder is None:
            return self._snapshot()
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._folder / str(number))
                with contextlib.closing(writer):
                    said = await _all(reader)
        except (OSError, TimeoutError):
            return None
        return said or None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            writer.write(self._snapshot())
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()


async def _all(reader: asyncio.StreamReader) -> bytes:
    said = bytearray()
    while part := await reader.read(64 * 1024):
        said += part
        if len(said) > _MOST_BYTES:
            return b""
    return bytes(said)
