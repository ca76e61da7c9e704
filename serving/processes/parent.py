"""Several processes on one port: started, started anew when they die, and told to end.

The parent answers no request. It holds the sockets, so that the port is nobody else's between a process and its
successor, and the writing end of a pipe, so that no process outlives it, however it ends.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from serving.processes.seat import Seat
from serving.processes.sockets import bind
from stillwell.settings import Settings

_log = structlog.get_logger(__name__)

_LONG_LIFE = 60.0
"""Seconds after which a death is no part of a series."""

_LONGEST_PAUSE = 30.0
"""Seconds between two starts of a process that dies again and again."""

_UNSTARTED_PAUSE = 1.0
"""Seconds before another attempt where the system starts no process."""

_PATIENCE = 25.0
"""Seconds that processes have to end when told to: less than the 30 that Kubernetes waits before it kills all."""

_CALLED_WRONGLY = 2


def serve_by_many(settings: Settings, processes: int) -> int:
    """Answer requests with so many processes until SIGTERM or SIGINT; gives the exit code.

    Raises SettingsError where it cannot listen.
    """
    sockets = bind(settings.serve_host, settings.serve_port, processes)
    with tempfile.TemporaryDirectory(prefix="stillwell-serve-") as folder:
        return asyncio.run(_Parent(sockets, Path(folder)).run())


class _Parent:
    """All processes of a service."""

    def __init__(self, sockets: Sequence[tuple[socket.socket, ...]], folder: Path) -> None:
        self._sockets = sockets
        self._folder = folder
        self._ended = asyncio.Event()
        self._code = 0
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._leash, self._held = os.pipe()

    async def run(self) -> int:
        """Until told to end, or a process cannot start at all."""
        for told in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(told, self._ended.set)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(len(self._sockets))]
        await self._ended.wait()
        _log.info("query service ends", processes=len(self._running))
        # First of all nobody may be let in any more, or connections would wait at sockets that nobody looks at.
        for sockets in self._sockets:
            for each in sockets:
                each.close()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(number, process) for number, process in self._running.items()))
        os.close(self._held)
        os.close(self._leash)
        return self._code

    async def _keep(self, number: int) -> None:
        """Have a process of this number, one after the other."""
        series = restarts = 0
        was_up = False
        while True:
            begun = time.monotonic()
            try:
                process = await self._start(number, restarts)
            except OSError as error:
                # No memory, or no process, to be had just now: the others go on, and this one is tried again.
                _log.error("a process of the query service cannot be started", number=number, error=str(error))
                if not was_up:
                    self._code = 1
                    self._ended.set()
                    return
                await asyncio.sleep(_UNSTARTED_PAUSE)
                continue
            code = await process.wait()
            del self._running[number]
            self._send_elsewhere(number)
            was_up = was_up or self._is_up(number)
            if code == _CALLED_WRONGLY or not was_up:
                # It says itself what is wrong, and would say it again.
                self._code = code if code > 0 else 1
                self._ended.set()
                return
            lived = time.monotonic() - begun
            series = 0 if lived > _LONG_LIFE else series + 1
            restarts += 1
            pause = min(_LONGEST_PAUSE, 2.0 ** (series - 2)) if series > 1 else 0.0
            _log.error(
                "a process of the query service has died, and is started anew",
                number=number,
                code=code,
                lived_s=round(lived, 1),
                restarts=restarts,
                pause_s=pause,
            )
            await asyncio.sleep(pause)

    def _send_elsewhere(self, number: int) -> None:
        """Have new connections come to the other processes, until the successor listens at these sockets again.

        Those that waited here in the instant of the death are reset, which tells their clients to try again. Otherwise
        the dead one's share of all that come would wait for seconds, while its successor loads its definitions.
        """
        for each in self._sockets[number]:
            with contextlib.suppress(OSError):  # the dead one had not come as far as to listen
                each.shutdown(socket.SHUT_RDWR)  # of Linux: it stays bound, and can listen anew

    def _is_up(self, number: int) -> bool:
        """Whether the last process of this number came as far as to answer requests."""
        return (self._folder / str(number)).exists()

    async def _start(self, number: int, restarts: int) -> asyncio.subprocess.Process:
        (self._folder / str(number)).unlink(missing_ok=True)
        sockets = tuple(each.fileno() for each in self._sockets[number])
        seat = Seat(number, len(self._sockets), sockets, self._leash, restarts, self._folder)
        # -P: the folder we run in must not be looked through before what is installed; definitions are found behind it.
        command = [sys.executable, "-P", "-c", "from stillwell.cli.main import main; main()", "serve"]
        process = await asyncio.create_subprocess_exec(
            *command, "--seat", seat.written(), pass_fds=(*sockets, self._leash)
        )
        self._running[number] = process
        return process

    async def _end(self, number: int, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            _log.error("a process of the query service did not end and is killed", number=number, after_s=_PATIENCE)
            process.kill()
            await process.wait()
            self._code = 1
