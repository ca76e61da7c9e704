"""One process of the embedded stack: started on a leash or detached, frozen, killed, ended, with its log beside it."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stillwell.errors import LocalStackError

_LEASH = Path(__file__).with_name("leash.py")
_PORTS = range(12_000, 28_000)
"""Ports that are handed out lie below the range from which the kernel takes the near end of outgoing connections: a
part that is killed and started again finds its port free. Their numbers plus 10,000 are ports too (Redis Cluster)."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now. Another process may still take it first: be ready to retry.

    Raises LocalStackError when no port is free.
    """
    for port in random.sample(_PORTS, 500):
        if port_is_free(port):
            return port
    raise LocalStackError(
        f"The embedded stack needs a free TCP port of 127.0.0.1, but 500 tries between {_PORTS[0]} and {_PORTS[-1]} "
        "found none. End what listens there (`ss -ltn` lists it) and start again."
    )


def port_is_free(port: int) -> bool:
    """Whether nobody listens on a TCP port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Process:
    """A running command whose output goes to a log file.

    leashed: it ends when this process ends, however that happens; otherwise it is on its own, in a session of its own.
    Either way a Ctrl-C in the terminal reaches the owner alone, which then ends its parts in order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        stdout: int | None = None,
        environment: Mapping[str, str] | None = None,
        leashed: bool = True,
        grace_s: float = 10.0,
    ) -> None:
        """stdout: a file descriptor for standard output, where that does not go to the log."""
        self.name = name
        self.log = log
        self._grace_s = grace_s
        self._pipe: int | None = None
        arguments = [str(word) for word in command]
        reading = -1
        if leashed:
            reading, self._pipe = os.pipe()
            arguments = [sys.executable, "-I", "-S", str(_LEASH), str(reading), str(grace_s), *arguments]
        try:
            with open(log, "ab") as output:
                self._popen = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output if stdout is None else stdout,
                    stderr=output,
                    pass_fds=[reading] if leashed else [],
                    env=None if environment is None else {**os.environ, **environment},
                    start_new_session=True,
                )
        except OSError as error:
            self._let_go()
            raise LocalStackError(
                f"{name} could not be started: {arguments[0]} gave '{error.strerror}'. Check that the file is there, "
                "may be executed, and is made for this platform."
            ) from error
        finally:
            if leashed:
                os.close(reading)

    @property
    def pid(self) -> int:
        """The process's id: the command's own, not that of a helper."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended. A frozen one is running."""
        return self._popen.poll() is None

    def wait_until(self, answers: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once answers() is true.

        Raises LocalStackError, with the end of the log, when the process ends first or timeout_s passes.
        """
        deadline = time.monotonic() + timeout_s
        while not answers():
            if not self.running:
                raise LocalStackError(
                    f"{self.name} ended with code {self._popen.returncode} before it answered. {self._log_end()}"
                )
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"{self.name} runs but did not answer within {timeout_s:g} s. Look whether the machine is starved "
                    f"of CPU or memory. {self._log_end()}"
                )
            time.sleep(0.02)

    def freeze(self) -> None:
        """Stop the process where it stands (SIGSTOP): connections stay open and nothing answers."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would. Nothing happens when it has ended already."""
        self._popen.kill()
        self._popen.wait()
        self._let_go()

    def stop(self) -> None:
        """Ask the process to end and wait; kill it when it has not ended within its grace."""
        self._popen.terminate()
        try:
            self._popen.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._let_go()

    def detach(self) -> None:
        """Forget the process, which goes on alone. Only for one that was not leashed."""
        # Otherwise subprocess warns of a process that still runs when its object goes.
        self._popen.returncode = 0

    def log_text(self) -> str:
        """All that the process has printed."""
        return self.log.read_text(errors="replace")

    def _log_end(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_text().strip().splitlines()
            if lines:
                return f"The end of {self.log}:\n" + "\n".join(lines[-15:])
        return f"Its log {self.log} is empty."

    def _let_go(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
