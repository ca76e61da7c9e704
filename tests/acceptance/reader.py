"""Somebody who has nothing but a page and an installed Stillwell, and types what the page says."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stillwell.local import free_port
from stillwell.local.jars import cache_folder
from tests.waiting import eventually

ANYTHING = "…"


@dataclasses.dataclass(frozen=True)
class Step:
    """What a comment marks: a `file` to write, an `edit` of one that is there; a `worker`, `stillwell dev` or a
    `service` to start; a `shell` to type into, or one that is typed `until` the output is there; a piece of `python`
    that goes on from those before it; the `output` to see; the `stop` of the worker, the `end` of the service; a new
    `terminal`. What is for `elsewhere` is not done."""

    kind: str
    text: str


def steps(markdown: str) -> list[Step]:
    """All that is marked in a page, in order."""
    marks = r"<!-- test: (\w+) -->\n(?:```\w*\n(.*?)```\n)?"
    return [Step(kind, text) for kind, text in re.findall(marks, markdown, re.DOTALL)]


def matches(expected: str, seen: str) -> bool:
    """Whether something is what a page shows of it: … stands for the rest of a line, alone on one for any lines."""
    lines = (
        r"(?:.*\n)*" if line == ANYTHING else re.escape(line).replace(re.escape(ANYTHING), ".*") + "\n"
        for line in expected.strip().splitlines()
    )
    return re.fullmatch("".join(lines), f"{seen.strip()}\n") is not None


class Reader:
    """Somebody in an empty folder of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.service_port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("STILLWELL_", "PYTHONPATH"))},
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STILLWELL_CACHE": str(cache_folder()),
            # Others may be at work on this machine, under the ports and in the folder that are ours by default.
            "STILLWELL_LOCAL": str(home / "local"),
            "STILLWELL_WEB_PORT": str(self.port),
            "STILLWELL_SERVE_PORT": str(self.service_port),
        }
        self.worker: subprocess.Popen[bytes] | None = None
        self.service: subprocess.Popen[bytes] | None = None
        self.seen = ""
        self._again = ""
        # Others have what a page names by its usual address, where this reader has one of their own.
        ports = {6066: self.port, 6566: self.service_port}
        self.elsewhere = {
            f"{host}:{usual}": f"{host}:{ours}" for host in ("localhost", "127.0.0.1") for usual, ours in ports.items()
        }
        self._session = self.environment
        self._folder = home
        self._names: dict[str, Any] = {}

    def take(self, step: Step) -> None:
        """Do what the page says. Raises AssertionError where something else comes of it."""
        match step.kind:
            case "file":
                name = step.text.splitlines()[0].removeprefix("# ")
                (self.home / name).write_text(step.text)
            case "edit":
                self._edit(step.text)
            case "worker":
                self.worker = self._start(step.text, self.port, "worker")
            case "dev":
                self.worker = self._start_dev(step.text)
            case "terminal":
                self._session, self._folder = self.environment, self.home
            case "service":
                self.service = self._start(step.text, self.service_port, "service")
            case "shell":
                self.seen = self._type(step.text)
            case "until":
                self._again = step.text
            case "python":
                exec(compile(self._here(step.text), "the page", "exec"), self._names)
            case "output" if self._again:
                script, self._again = self._again, ""
                eventually(lambda: self._shows(script, step.text), within_s=30, what=f"{script} shows {step.text}")
            case "output":
                assert matches(step.text, self.seen), f"expected:\n{step.text}\nseen:\n{self.seen}\n{self._log}"
            case "stop":
                assert self._interrupt(self.worker) == 0, self._log
            case "end":
                assert self._interrupt(self.service) == 0, self._log
            case "elsewhere":
                pass
            case unknown:
                raise AssertionError(f"a block is marked as {unknown!r}")

    def leave(self) -> None:
        """End all that was started."""
        if client := self._names.get("client"):
            client.close()
        for process in (self.worker, self.service):
            if process and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._type("stillwell local down --wipe")

    def _type(self, script: str) -> str:
        """What a piece of a session prints; what it exports holds for the pieces behind it."""
        exports, folder = self.home / "exports", self.home / "folder"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._here(script)}\npwd > {folder}\nenv -0 > {exports}"],
            cwd=self._folder,
            env=self._session,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self._log}"
        self._session = dict(line.split("=", 1) for line in exports.read_text().split("\0") if line)
        self._folder = Path(folder.read_text().strip())
        return done.stdout

    def _shows(self, script: str, expected: str) -> bool:
        """Whether a piece of a session succeeds, and prints this."""
        with contextlib.suppress(AssertionError):
            return matches(expected, self._type(script))
        return False

    def _start_dev(self, script: str) -> "subprocess.Popen[bytes]":
        """Start `stillwell dev`, and wait until it says that its worker runs."""
        process = self._run(script, "worker")
        log = self.home / "worker.log"
        eventually(
            lambda: "A worker runs" in log.read_text() or self._has_ended(process), within_s=120, what=f"{log} says so"
        )
        return process

    def _start(self, script: str, port: int, name: str) -> "subprocess.Popen[bytes]":
        """Start what goes on until it is ended, and wait until it is ready."""
        process = self._run(script, name)
        eventually(lambda: self._is_ready(process, port), within_s=120, what=f"the {name}'s readiness")
        return process

    def _run(self, script: str, name: str) -> "subprocess.Popen[bytes]":
        """Begin to run something in the folder of the session, as in a terminal of its own."""
        with (self.home / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self._here(script)],
                cwd=self._folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _has_ended(self, process: "subprocess.Popen[bytes]") -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended: {self._log}")
        return False

    def _is_ready(self, process: "subprocess.Popen[bytes]", port: int) -> bool:
        self._has_ended(process)
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200)
        return False

    def _here(self, script: str) -> str:
        """The same with the addresses of this reader."""
        for there, here in self.elsewhere.items():
            script = script.replace(there, here)
        return script

    def _edit(self, change: str) -> None:
        """Change a file as a piece of a diff says, whose first line names it."""
        named, *lines = change.splitlines()
        file = self.home / named.removeprefix("# ")
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != sign) for sign in "+-")
        text = file.read_text()
        assert text.count(before) == 1, f"{file.name} does not have, once:\n{before}"
        file.write_text(text.replace(before, after))

    @staticmethod
    def _interrupt(process: "subprocess.Popen[bytes] | None") -> int:
        """Press Ctrl-C where it runs; the exit code."""
        assert process
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(60)

    @property
    def _log(self) -> str:
        logs = (self.home / "worker.log", self.home / "service.log")
        return "\n".join(log.read_text() for log in logs if log.exists())
