"""A folder for one stack and one owner, removed at its end, or by the next owner when this one was killed."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from stillwell.errors import LocalStackError


class TemporaryFolder:
    """A new folder `path`, ours for as long as this process lives or until `remove`.

    A lock file beside each folder says that its owner lives: the kernel lets go of it however a process ends. What
    nobody holds is removed here, because a killed owner could not, and Kafka's files are large.
    """

    def __init__(self, home: Path | None = None) -> None:
        """home: the folder that such folders are made in; by default one of the user's own in the temporary folder.

        Raises LocalStackError when it cannot be used.
        """
        home = home or Path(tempfile.gettempdir()) / f"stillwell-{os.getuid()}"
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalStackError(
                f"{home} is where the embedded stack keeps temporary data, and cannot be made: {error.strerror}. Set "
                "TMPDIR to a folder that can be written"
            ) from error
        if home.stat().st_uid != os.getuid():
            raise LocalStackError(
                f"{home} is where the embedded stack keeps temporary data, but it belongs to another user. Remove it, "
                "set TMPDIR, or give the stack a folder."
            )
        with open(home / "lock", "w") as everybody:
            fcntl.flock(everybody, fcntl.LOCK_EX)
            for owner in home.glob("*.owner"):
                _remove_if_left(owner)
            self.path = Path(tempfile.mkdtemp(prefix="stack-", dir=home))
            self._owner = open(_owner_file(self.path), "w")  # noqa: SIM115  held open as long as the folder is ours
            fcntl.flock(self._owner, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        _owner_file(self.path).unlink(missing_ok=True)
        self._owner.close()


def _owner_file(folder: Path) -> Path:
    return folder.with_suffix(".owner")


def _remove_if_left(owner: Path) -> None:
    with open(owner, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(owner.with_suffix(""), ignore_errors=True)
        owner.unlink()
