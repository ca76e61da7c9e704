"""The README's own topic, typed by somebody who has nothing but the README and an installed Stillwell."""

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwell.local import free_port
from stillwell.local.jars import cache_folder
from tests.waiting import eventually

README = Path(__file__).parent.parent.parent / "README.md"
ANYTHING = "…"


@dataclasses.dataclass(frozen=True)
class Step:
    """What a comment marks: a `file` to write, a `worker` to start, a `shell` to type into, the `output` to see, or
    the worker's `stop`."""

    kind: str
    text: str


def steps(markdown: str) -> list[Step]:
    """All that is marked in a page, in order."""
    marks = r"<!-- test: (\w+) -->\n(?:```\w*\n(.*?)```\n)?"
    return [Step(kind, text) for kind, text in re.findall(marks, markdown, re.DOTALL)]


class Reader:
    """Somebody in an empty folder of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("STILLWELL_", "PYTHONPATH"))},
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STILLWELL_CACHE": str(cache_folder()),
            # Others may be at work on this machine, under the ports and in the folder that are ours by default.
            "STILLWELL_LOCAL": str(home / "local"),
            "STILLWELL_WEB_PORT": str(self.port),
        }
        self.worker: subprocess.Popen[bytes] | None = None
        self.seen = ""
        self._session = self.environment

    def take(self, step: Step) -> None:
        """Do what the page says. Raises AssertionError where something else comes of it."""
        match step.kind:
            case "file":
                name = step.text.splitlines()[0].removeprefix("# ")
                (self.home / name).write_text(step.text)
            case "worker":
                self._start_worker(step.text)
            case "shell":
                self.seen = self._type(step.text)
            case "output":
                pattern = re.escape(step.text.strip()).replace(re.escape(ANYTHING), ".*")
                assert re.fullmatch(pattern, self.seen.strip()), f"expected:\n{step.text}\nseen:\n{self.seen}"
            case "stop":
                assert self._stop_worker() == 0, self._log
            case unknown:
                raise AssertionError(f"README marks a block as {unknown!r}")

    def leave(self) -> None:
        """End all that was started."""
        if self.worker and self.worker.poll() is None:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()
        self._type("stillwell local down --wipe")

    def _type(self, script: str) -> str:
        """What a piece of a session prints; what it exports holds for the pieces behind it."""
        exports = self.home / "exports"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {shlex.quote(str(exports))}"],
            cwd=self.home,
            env=self._session,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self._log}"
        self._session = dict(line.split("=", 1) for line in exports.read_text().split("\0") if line)
        return done.stdout

    def _start_worker(self, script: str) -> None:
        with (self.home / "terminal.log").open("wb") as log:
            self.worker = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._is_ready, within_s=120, what="the worker's readiness")

    def _is_ready(self) -> bool:
        assert self.worker
        if self.worker.poll() is not None:
            pytest.fail(f"the worker ended: {self._log}")
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status == 200)
        return False

    def _stop_worker(self) -> int:
        assert self.worker
        os.killpg(self.worker.pid, signal.SIGINT)
        return self.worker.wait(60)

    @property
    def _log(self) -> str:
        log = self.home / "terminal.log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an empty home, who leaves nothing running."""
    reader = Reader(tmp_path)
    yield reader
    reader.leave()


def test_the_readmes_own_topic_works_by_copy_and_paste(reader: Reader) -> None:
    marked = steps(README.read_text())
    kinds = [step.kind for step in marked]
    assert [kinds.count(kind) for kind in ("file", "worker", "shell", "output", "stop")] == [3, 1, 3, 3, 1]
    for step in marked:
        reader.take(step)


def test_a_marked_output_that_differs_is_found(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.seen = "4 records, 17 bytes\n"
    reader.take(Step("output", "4 records, … bytes\n"))
    for wrong in ("5 records, … bytes\n", "4 records, … bytes\nmore\n", "records, … bytes\n"):
        with pytest.raises(AssertionError, match="expected"):
            reader.take(Step("output", wrong))
