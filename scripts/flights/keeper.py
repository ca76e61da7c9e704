"""For `--keep`: the work is done by a process of its own, which stays when the command has ended.

Everything that was started hangs on that process by a leash, from the beginning: when it ends, however it ends, all of
it does. Until all is well it ends with the command, however that ends.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable

from scripts.flights.ending import INTERRUPTED, interrupt_on_sigterm

_ENDINGS = (signal.SIGINT, signal.SIGTERM)

HandOver = Callable[[], None]
"""Tells the command that it may end, all being well; what follows is not seen by anybody."""


def in_keeper(work: Callable[[HandOver], int]) -> int:
    """Do the work in a process that may outlive this one; gives the exit code, as soon as it is known.

    Call it before there are threads. Ctrl-C is passed on, for as long as the work is not handed over.
    """
    its_word, word = os.pipe()
    our_life, life = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)  # one that comes now waits until it can be passed on
    keeper = os.fork()
    if keeper == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
        os.close(its_word)
        os.close(life)
        os.setsid()  # so that Ctrl-C in the terminal reaches the command alone, now and later
        os._exit(_keep(work, word, our_life))
    os.close(word)
    os.close(our_life)
    interrupt_on_sigterm()
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
            if os.read(its_word, 1):
                return 0
            _, status = os.waitpid(keeper, 0)
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else INTERRUPTED
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGINT)


def _keep(work: Callable[[HandOver], int], word: int, commands_life: int) -> int:
    """The keeper's own part."""
    is_handed_over = threading.Event()

    def watch() -> None:
        os.read(commands_life, 1)  # returns when the command has ended
        if not is_handed_over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def hand_over() -> None:
        is_handed_over.set()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.write(word, b"0")
        os.close(word)

    threading.Thread(target=watch, daemon=True).start()
    return work(hand_over)
