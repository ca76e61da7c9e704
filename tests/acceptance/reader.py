"""Somebody who has nothing but a page and an installed Stillwell, and types what the page says."""

import contextlib
import dataclasses
import os
import re
import shlex
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
    """What a comment marks: a `file` to write, an `edit` of one that is there, a `worker` or a `service` to start, a
    `shell` to type into, a piece of `python` that goes on from those before it, the `output` to see, the `stop` of the
    worker or the `end` of the service. What is for `elsewhere` is not done."""

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
        # Others have what a page names by its usual address, where this reader has one of their own.
        ports = {6066: self.port, 6566: self.service_port}
        self.elsewhere = {f"{host}:{p}": f"{host}:{ports[p]}" for host in ("localhost", "127.0.0.1") for p in ports}
        self._session = self.environment
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
            case "service":
                self.service = self._start(step.text, self.service_port, "service")
            case "shell":
                self.seen = self._type(step.text)
            case "python":
                exec(compile(self._here(step.text), "the page", "exec"), self._names)
            case "output":
                pattern = re.escape(step.text.strip()).replace(re.escape(ANYTHING), ".*")
                assert re.fullmatch(pattern, self.seen.strip()), f"expected:\n{step.text}\nseen:\n{self.seen}"
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
        exports = self.home / "exports"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._here(script)}\nenv -0 > {shlex.quote(str(exports))}"],
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

    def _start(self, script: str, port: int, name: str) -> "subprocess.Popen[bytes]":
        """Start what goes on until it is ended, and wait until it is ready."""
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self._here(script)],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: self._is_ready(process, port), within_s=120, what=f"the {name}'s readiness")
        return process

    def _is_ready(self, process: "subprocess.Popen[bytes]", port: int) -> bool:
        if process.poll() is not None:
            pytest.fail(f"it ended: {self._log}")
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
