"""Whether a file of the project has changed."""

import pathlib
from collections.abc import Iterator, Mapping

State = Mapping[pathlib.Path, tuple[int, int]]
"""Each file, when it was last written (ns) and how long it is (bytes)."""

_KINDS = (".py", ".json")


def state_of(definitions: str, folder: pathlib.Path) -> State:
    """The files that say what the worker does: settings, definitions, golden examples.

    definitions: the package, or module, by its import name; what is installed elsewhere is not looked at. folder: where
    the settings file is.
    """
    found: dict[pathlib.Path, tuple[int, int]] = {}
    for path in _files(definitions, folder):
        try:
            stat = path.stat()
        except OSError:
            continue  # an editor replaces a file by moving another into its place
        found[path] = stat.st_mtime_ns, stat.st_size
    return found


def _files(definitions: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    yield folder / "stillwell.toml"
    home = folder.joinpath(*definitions.split("."))
    yield home.with_suffix(".py")
    yield from (path for path in home.rglob("*") if path.suffix in _KINDS)


def changed(before: State, after: State) -> list[pathlib.Path]:
    """The files that are new, gone or other than they were."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
