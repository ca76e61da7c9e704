"""Mistakes in definitions: gathered class by class, worded so that the reader knows where to go and what to type."""

import difflib
from collections.abc import Iterable

from stillwell.definitions.source import location
from stillwell.definitions.spoken import as_written
from stillwell.errors import DefinitionError

_NEAR = 0.6
"""How alike two words are that one may have been meant for: twice the letters that they share, over all of them."""
_MOST_TIMES_AS_LONG = 2 / _NEAR
"""A word so many times as long as another shares at most all of the other's letters, which is not near."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'origin'?` where a known word is near, otherwise the list of what there is."""
    words = sorted(known)
    # Nothing is near a word so much longer; to find that out about a megabyte, which a request may bring, takes difflib
    # half a second.
    is_comparable = len(word) <= _MOST_TIMES_AS_LONG * max(map(len, words), default=0)
    near = difflib.get_close_matches(word, words, n=1, cutoff=_NEAR) if is_comparable else []
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(words)}" if words else ""


class Mistakes:
    """What is wrong with one class, gathered so that its author reads all of it at once."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._found: list[str] = []

    def add(self, problem: str, *, field: str | None = None) -> None:
        """Note a problem. It reads on from the field's (or class's) name: `has the type …; write …`."""
        name = self._cls.__name__ if field is None else f"{self._cls.__name__}.{field}"
        self._found.append(f"{location(self._cls, field)}: {name} {as_written(problem)}")

    @property
    def messages(self) -> tuple[str, ...]:
        """Every mistake so far, each a full sentence with its place."""
        return tuple(self._found)

    def check(self) -> None:
        """Raise DefinitionError with every mistake so far, if there is one."""
        if self._found:
            raise DefinitionError(*self._found)
