"""Asking again: whoever runs what asks a store decides how long to wait, whom to tell, and when to give up."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

_T = TypeVar("_T")


class UntilDone(Protocol):
    """Makes a call until it succeeds. It must be harmless to repeat."""

    async def __call__(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What the call returns in the end.

        It is made again when it raises StoreUnavailable or OutcomeUnknown, which is raised where patience ends; what
        else it raises is raised at once.
        """
