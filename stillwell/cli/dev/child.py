"""The worker of `stillwell dev`, a process of its own so that it loads definitions anew; and what it tells."""

import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from stillwell.local import Process

_COMMAND = (sys.executable, "-c", "from stillwell.cli.main import main; main()")
_AHEAD = 10_000
"""Rounds of batches that are told and not shown yet; beyond, the worker tells those of a topic as one."""
_GRACE_S = 20.0
"""For a worker to put to rest what it holds."""


def run_command(arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command of Stillwell's in a process of its own, which sees the definitions as they are now."""
    return subprocess.run(
        [*_COMMAND, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


class Child:
    """A worker that runs; `stop` it. told: what it has told and nobody has taken yet."""

    def __init__(self, environment: Mapping[str, str], log: pathlib.Path) -> None:
        """log: the file for what it logs. Raises LocalStackError if it cannot be started."""
        self.told: queue.Queue[dict[str, Any]] = queue.Queue(_AHEAD)
        self._log = log
        self._log_read = log.stat().st_size if log.exists() else 0
        reading, writing = os.pipe()
        try:
            self._process = Process(
                "The worker",
                [*_COMMAND, "worker", "--tell"],
                log=log,
                stdout=writing,
                environment=environment,
                grace_s=_GRACE_S,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        # A pipe holds little, and of rounds that are told as one fewer rows are shown: it is always read.
        self._reader = threading.Thread(target=self._read, args=(reading,), name="told", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.running

    def new_log(self) -> list[str]:
        """The lines that it has logged since this was last asked."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._log_read)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._log_read += len(whole + newline)
        return whole.decode(errors="replace").splitlines()

    def stop(self) -> None:
        """End it, when it has put to rest what it holds."""
        while self.told.full():  # the rest could not be read, and would not be waited for
            self.told.get()
        self._process.stop()
        self._reader.join(_GRACE_S)

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # a worker that was killed may leave half of one
                    self.told.put(json.loads(line))
