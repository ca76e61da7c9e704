"""The embedded stack that goes on after the command that started it: `stillwell local up`, `down` and `status`."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from stillwell.errors import LocalStackError
from stillwell.local.jars import Progress
from stillwell.local.part import Part
from stillwell.local.process import port_is_free
from stillwell.local.stack import LocalStack


@dataclasses.dataclass(frozen=True, slots=True)
class PartStatus:
    """What is known of one part. pid is None where the part does not run; port is None before its first start."""

    name: str
    running: bool
    answers: bool
    pid: int | None
    port: int | None
    log: Path


@dataclasses.dataclass(frozen=True, slots=True)
class _Started:
    """What the state file keeps of a part: its process, told from a later one of that id by its birth, and ports."""

    pid: int
    born: float
    ports: tuple[int, ...]

    @property
    def process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.born and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


class DetachedStack:
    """One stack per folder, whose parts live until `down`. Each call takes the folder's lock; all are idempotent."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: where state, data and logs are; by default the user's own, or the one that $STILLWELL_LOCAL names."""
        self.folder = folder or default_folder()

    def up(self, *, progress: Progress | None = None) -> dict[str, str]:
        """Start what does not run, on the ports and with the data of last time; gives the settings that lead there.

        Raises LocalStackError; then, and where it is interrupted, what it has started is ended again.
        """
        with self._locked(), contextlib.ExitStack() as undo:
            stack, started = self._stack(progress), self._read()
            with _writing(self.folder):
                stack.offline.mkdir(parents=True, exist_ok=True)
            for part in _parts(stack):
                earlier = started.get(part.name)
                if earlier is not None and earlier.process is not None:
                    part.adopt(earlier.pid, earlier.ports)
                    if part.answers():
                        continue
                    _end(earlier.process, part.stop_grace_s)
                # The ports of last time, so that what was exported then still leads here; others if somebody has them.
                part.ports = earlier.ports if earlier and all(map(port_is_free, earlier.ports)) else ()
                undo.callback(part.stop)
                part.start()
                born = psutil.Process(part.process.pid).create_time()
                started[part.name] = _Started(part.process.pid, born, part.ports)
                self._write(started)
            for part in _parts(stack):
                part.detach()
            undo.pop_all()
            return stack.environment

    def down(self, *, wipe: bool = False) -> None:
        """End what runs, in order; with wipe, remove the data too."""
        with self._locked():
            started = self._read()
            for part in reversed(_parts(self._stack())):
                if part.name in started and (process := started[part.name].process) is not None:
                    _end(process, part.stop_grace_s)
            if wipe:
                for entry in self.folder.iterdir():
                    if entry != self._lock_file:
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def status(self) -> list[PartStatus]:
        """What each part does now."""
        with self._locked():
            started = self._read()
            return [_status(part, started.get(part.name)) for part in _parts(self._stack())]

    def environment(self) -> dict[str, str]:
        """The settings that lead to the stack, as last started; empty when it never was."""
        with self._locked():
            stack, started = self._stack(), self._read()
            for part in _parts(stack):
                if part.name not in started:
                    return {}
                part.adopt(started[part.name].pid, started[part.name].ports)
            return stack.environment

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _lock_file(self) -> Path:
        return self.folder / "lock"

    def _stack(self, progress: Progress | None = None) -> LocalStack:
        return LocalStack(self.folder, persistent=True, progress=progress)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._open_lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open_lock(self) -> TextIO:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            return open(self._lock_file, "w")

    def _read(self) -> dict[str, _Started]:
        if not self._state_file.exists():
            return {}
        kept = json.loads(self._state_file.read_text())
        return {name: _Started(part["pid"], part["born"], tuple(part["ports"])) for name, part in kept.items()}

    def _write(self, started: dict[str, _Started]) -> None:
        text = json.dumps({name: dataclasses.asdict(part) for name, part in started.items()}, indent=2)
        write_whole(self._state_file, text)


def write_whole(file: Path, text: str) -> None:
    """Write a file of state: all of it, or the one from before stays. Raises LocalStackError, with nothing left."""
    fresh = file.with_suffix(".new")
    with _writing(file.parent), contextlib.ExitStack() as undo:
        file.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(fresh.unlink, missing_ok=True)
        fresh.write_text(text)
        fresh.replace(file)
        undo.pop_all()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """For what is kept in a folder of state. Raises LocalStackError."""
    try:
        yield
    except OSError as error:
        raise LocalStackError(
            f"{folder} cannot be written: {error.strerror}. Name a folder that can be in STILLWELL_LOCAL, as "
            "/tmp/stillwell/local"
        ) from error


def default_folder() -> Path:
    """$STILLWELL_LOCAL, or `stillwell/local` in the user's folder for state."""
    if named := os.environ.get("STILLWELL_LOCAL"):
        return Path(named).expanduser()
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home).expanduser() / "stillwell" / "local"


def _parts(stack: LocalStack) -> list[Part]:
    return [stack.redis, stack.kafka]


def _status(part: Part, started: _Started | None) -> PartStatus:
    process = started.process if started else None
    if started:
        part.adopt(started.pid, started.ports)
    return PartStatus(
        name=part.name,
        running=process is not None,
        answers=process is not None and part.answers(),
        pid=process.pid if process else None,
        port=part.port if started else None,
        log=part.log,
    )


def _end(process: psutil.Process, grace_s: float) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
