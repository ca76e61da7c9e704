"""Files that a command makes for its user: all of them, or none."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import click


def write_new_files(contents: Mapping[Path, str]) -> None:
    """Write files that are not there yet, with the folders that they need.

    Raises UsageError where one cannot be written or is there, with nothing left of what was begun: an empty file would
    be refused as there already by the next try.
    """
    with contextlib.ExitStack() as undo:
        for path, content in contents.items():
            try:
                for parent in reversed(path.parents):
                    if not parent.exists():
                        parent.mkdir()
                        undo.callback(parent.rmdir)
                with path.open("x") as file:
                    undo.callback(path.unlink)
                    file.write(content)
            except OSError as error:
                raise click.UsageError(f"{path} cannot be written: {error.strerror}; nothing was left behind") from None
        undo.pop_all()
