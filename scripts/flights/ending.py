"""How the demo ends: its exit codes, and what counts as Ctrl-C."""

import signal
from types import FrameType

AGREED = 0
FAILED = 1
INTERRUPTED = 130


class DemoFailed(Exception):
    """Something that ought to be so is not. The message says what, and where to look."""


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, outside of an event loop."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
