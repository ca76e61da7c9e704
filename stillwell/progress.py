"""Telling how far long work is: who does it calls `Advance`, and who asked for it shows that or does not look."""

from collections.abc import Callable

Advance = Callable[[int, int], None]
"""Told after each piece: how many are done, and how many are known by now."""


def unseen(done: int, known: int) -> None:
    """Nobody looks."""
