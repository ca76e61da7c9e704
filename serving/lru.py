"""What is made once for all requests that ask alike, as long as they come."""

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class LruCache(Generic[_T]):
    """The last ones used of what was made, by what they were made for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: collections.OrderedDict[Hashable, _T] = collections.OrderedDict()

    def get(self, wanted: Hashable, make: Callable[[], _T]) -> _T:
        """What is kept for it; made now, if nothing is."""
        made = self.find(wanted)
        if made is None:
            made = make()
            self.keep(wanted, made)
        return made

    def find(self, wanted: Hashable) -> _T | None:
        """What is kept for it, if anything is."""
        made = self._made.get(wanted)
        if made is not None:
            self._made.move_to_end(wanted)
        return made

    def keep(self, wanted: Hashable, made: _T) -> None:
        """Keep this for it, in the place of what was kept."""
        self._made[wanted] = made
        if len(self._made) > self._most:
            self._made.popitem(last=False)
