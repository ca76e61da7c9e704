"""Somebody in the folder of a project of their own, at two terminals."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.waiting import eventually

COMMAND = (sys.executable, "-c", "from stillwell.cli.main import main; main()")


class Developer:
    """Somebody in the folder of a project, with `stillwell dev` in one terminal and a second one beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLWELL_")}
        self._environment |= {
            "STILLWELL_LOCAL": str(folder / "state/local"),
            "TMPDIR": str(folder / "tmp"),
            "STILLWELL_CACHE": os.environ.get("STILLWELL_CACHE", str(Path.home() / ".cache/stillwell")),
        }
        (folder / "tmp").mkdir()
        self._log = folder / "dev.log"
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def left(self) -> list[str]:
        """What the embedded stack and `stillwell dev` have left in the folders for temporary data and state."""
        temporary = [path for path in (self.folder / "tmp").rglob("*") if path.suffix == ".owner" or path.is_dir()]
        kept = [path for path in (self.folder / "state/dev").rglob("*") if path.is_file()]
        return [path.name for path in (*temporary, *kept) if path.name != f"stillwell-{os.getuid()}"]

    def start(
        self, *arguments: str, command: str = "dev", environment: Mapping[str, str] | None = None, **settings: str
    ) -> "subprocess.Popen[bytes]":
        """Begin to run a command, `stillwell dev` if no other is named; settings by their names without prefix."""
        changed = {f"STILLWELL_{name.upper()}": value for name, value in settings.items()}
        given = {**self._environment, **(environment or {}), **changed}
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(
                [*COMMAND, *command.split(), *arguments], cwd=self.folder, env=given, stdout=log, stderr=log
            )
        return self._running

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self._environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def exports(self) -> dict[str, str]:
        """What the second terminal is told to export."""
        done = self.run("dev", "--exports")
        assert done.returncode == 0, done.stderr
        pairs = (line.removeprefix("export ").partition("=") for line in done.stdout.splitlines())
        return {name: value.strip("'") for name, _, value in pairs}

    @property
    def shown(self) -> str:
        return self._log.read_text()

    def until(self, words: str, *, times: int = 1) -> None:
        """Wait until these words are shown so often."""
        eventually(lambda: self.shown.count(words) >= times, within_s=60, what=f"{words!r} in:\n{self.shown}")

    def edit(self, file: str, before: str, after: str) -> None:
        path = self.folder / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def end(self, how: signal.Signals = signal.SIGINT) -> int:
        assert self._running
        self._running.send_signal(how)
        return self._running.wait(60)

    def leave(self) -> None:
        if self._running and self._running.poll() is None:
            self._running.kill()
            self._running.wait()
