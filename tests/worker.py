"""Workers as processes of their own, for tests that end or freeze them."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from stillwell.local import free_port
from tests.waiting import eventually


class WorkerProcess:
    """`stillwell worker` with settings of its own, logging to a file; or another command that runs until it is told to
    end."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], name: str = "worker", command: str = "worker"
    ) -> None:
        self.port = free_port()
        self.log = folder / f"{name}-{self.port}.log"
        self.folder = folder
        self._command = command
        self.arguments: tuple[str, ...] = ()
        """Of the command."""
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("STILLWELL_")},
            **settings,
            "STILLWELL_WEB_PORT": str(self.port),
            "STILLWELL_SERVE_PORT": str(self.port),
            "STILLWELL_LOG_FORMAT": "console",
            # So that one which does not end when told can be asked where it stands.
            "PYTHONFAULTHANDLER": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "WorkerProcess":
        """Begin; does not wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from stillwell.cli.main import main; main()", self._command, *self.arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self.process is not None
        return self.process

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages; status 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_ready(self, deadline: float = 60) -> "WorkerProcess":
        """Wait until every partition that it was given flows."""
        eventually(lambda: self.page("/readyz")[0] == 200, within_s=deadline, what=f"{self.log}: readiness")
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.running.kill()
        self.running.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.running.send_signal(signal.SIGCONT)

    def stop(self, deadline: float = 40) -> int:
        """SIGTERM; gives the exit code. One that is late writes where its threads stand to its log."""
        self.running.terminate()
        try:
            return self.running.wait(deadline)
        except subprocess.TimeoutExpired:
            self.running.send_signal(signal.SIGABRT)
            self.running.wait()
            raise AssertionError(f"the worker did not end within {deadline:g} s: {self.log}") from None

    def end(self) -> None:
        """Whatever state it is in, end it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
