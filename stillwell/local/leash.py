"""Run a command that cannot outlive its owner: `python -I -S leash.py FD GRACE COMMAND…`.

The owner holds the writing end of a pipe and nobody else does. When the owner ends, however it ends, the pipe closes,
and a small watcher that sits beside the command sees it: it asks the command to end and, GRACE seconds later, kills it.

Linux can also send a signal on a parent's death (PR_SET_PDEATHSIG), without a watcher. It is not used because that
parent is the *thread* that started the child: a stack started from a pool's thread would fall when the pool closes. The
price of the watcher is a sleeping Python of 6 MB beside each part; and an owner that forks without exec (as
`multiprocessing` may) hands the pipe on, so that the parts live until the last such child has ended.
"""

import os
import select
import signal
import sys
import time


def watch(owner_pipe: int, target: int, grace: float) -> None:
    """Return when the process `target`, our parent, has ended; end it when the owner's pipe closes."""
    while os.getppid() == target:
        # The timeout is for the other end: nothing tells a child in a portable way that its parent has gone.
        if select.select([owner_pipe], [], [], 1.0)[0]:
            break
    deadline = time.monotonic() + grace
    asked = False
    while os.getppid() == target:
        if time.monotonic() > deadline:
            os.kill(target, signal.SIGKILL)
            return
        if not asked:
            os.kill(target, signal.SIGTERM)
            asked = True
        time.sleep(0.05)


def main(owner_pipe: int, grace: float, command: list[str]) -> None:
    """Become the command, leaving the watcher behind as its child."""
    target = os.getpid()
    if os.fork() == 0:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        watch(owner_pipe, target, grace)
        os._exit(0)
    os.close(owner_pipe)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
