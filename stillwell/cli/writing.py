"""Files that a command writes for a user: all of them, or none and no folder that was made for them."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping

import click


def write_new(made: Mapping[pathlib.Path, str]) -> None:
    """Write files that are not there yet, by their paths, with the folders that they are in.

    Raises UsageError where one cannot be written; then nothing is left behind.
    """
    with _undone_on_failure() as undo:
        for path, content in made.items():
            try:
                for parent in reversed(path.parents):
                    if not parent.exists():
                        parent.mkdir()
                        undo.callback(parent.rmdir)
                # What could not be made is not taken away either: a disk that is read-only would refuse that too.
                with path.open("x") as file:
                    undo.callback(path.unlink)
                    file.write(content)
            except OSError as error:
                raise click.UsageError(f"{path} cannot be written: {error.strerror}; nothing was left behind") from None


@contextlib.contextmanager
def _undone_on_failure() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as undo:
        yield undo
        undo.pop_all()
