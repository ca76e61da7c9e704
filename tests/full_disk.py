"""A disk that has no room for a file."""

from pathlib import Path
from typing import IO, Any

import pytest


def fill(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on files of this name can be made, and nothing be written to them.

    Root, as which tests may run, can write nearly everywhere: only /dev/full refuses it as a full disk does.
    """
    opened = Path.open

    def open_it(path: Path, mode: str = "r", *arguments: Any, **words: Any) -> IO[Any]:
        file: IO[Any] = opened(path, mode, *arguments, **words)
        if path.name != name or "r" in mode:
            return file
        file.close()
        return opened(Path("/dev/full"), "w")

    monkeypatch.setattr(Path, "open", open_it)
