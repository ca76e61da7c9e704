"""A start that takes long says what it waits for: people who see nothing for ten seconds take it for hung.

A thread tells, since what takes long may hold up everything else: definitions that are loaded, a client that connects.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

_log = structlog.get_logger(__name__)

_FIRST = 3.0
_THEN = 5.0


class Starting:
    """For a `with` block, in which it tells until it is ended, or nothing is waited for any more. Outside of one it
    tells nothing."""

    def __init__(self, first: float = _FIRST, then: float = _THEN, clock: Callable[[], float] = time.monotonic) -> None:
        """first: seconds after which it tells for the first time; then: between two times."""
        self.waits_for: Callable[[], str | None] = lambda: None
        """What is waited for now; None once nothing is. Called in the thread."""
        self._pauses = first, then
        self._clock = clock
        self._ended = threading.Event()

    def at(self, what: str) -> None:
        """This is waited for from now on."""
        self.waits_for = lambda: what

    def end(self) -> None:
        """It has started."""
        self._ended.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._tell, name="starting", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _tell(self) -> None:
        begun, (pause, then) = self._clock(), self._pauses
        while not self._ended.wait(pause):
            what = self.waits_for()
            if what is None:
                return
            _log.info("still starting", waits_for=what, seconds=round(self._clock() - begun))
            pause = then
