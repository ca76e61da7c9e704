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
        made = self._made.get(wanted)
        if made is None:
            made = self._made[wanted] = make()
            if len(self._made) > self._most:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(wanted)
        return made
