"""Mistakes in definitions: gathered class by class, worded so that the reader knows where to go and what to type."""

import ast
import difflib
import inspect
import os
import textwrap
from collections.abc import Iterable

from stillwell.errors import DefinitionError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'origin'?` where a known word is near, otherwise the list of what there is."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(words)}" if words else ""


def location(cls: type, field: str | None = None) -> str:
    """`schemas/departures.py:12`, the line of the field or of the class; the module's name where there is no file."""
    try:
        path = inspect.getsourcefile(cls)
        lines, first = inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return cls.__module__
    line = first + _line_within(lines, field)
    return f"{shown_path(path or cls.__module__)}:{line}"


def shown_path(path: str) -> str:
    """A file as people name it: from the working directory where it lies below that, whole elsewhere."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _line_within(lines: list[str], field: str | None) -> int:
    """How many lines below the class statement a field is declared; 0 where it is not found."""
    if field is None:
        return 0
    try:
        (statement,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (SyntaxError, ValueError):
        return 0
    for node in statement.body if isinstance(statement, ast.ClassDef) else ():
        named = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else node
        )
        if field in (getattr(named, "id", None), getattr(named, "name", None)):
            return node.lineno - 1
    return 0


class Mistakes:
    """What is wrong with one class, gathered so that its author reads all of it at once."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._found: list[str] = []

    def add(self, problem: str, *, field: str | None = None) -> None:
        """Note a problem. It reads on from the field's (or class's) name: `has the type …; write …`."""
        name = self._cls.__name__ if field is None else f"{self._cls.__name__}.{field}"
        self._found.append(f"{location(self._cls, field)}: {name} {problem}")

    @property
    def messages(self) -> tuple[str, ...]:
        """Every mistake so far, each a full sentence with its place."""
        return tuple(self._found)

    def check(self) -> None:
        """Raise DefinitionError with every mistake so far, if there is one."""
        if self._found:
            raise DefinitionError(*self._found)
