"""Waiting a little for more of the same: pure, with the time as a parameter."""

import dataclasses
from typing import Self


@dataclasses.dataclass(frozen=True, slots=True)
class Debounced:
    """Something that is asked for again and again, and done once: `quiet` after it was last asked for, but no later
    than `most` after it was first. Times are numbers of any one unit."""

    first: float
    last: float
    quiet: float
    most: float

    @classmethod
    def begin(cls, now: float, quiet: float, most: float) -> Self:
        """It is asked for the first time."""
        return cls(now, now, quiet, most)

    def again(self, now: float) -> "Debounced":
        """It is asked for once more."""
        return dataclasses.replace(self, last=max(self.last, now))

    @property
    def due(self) -> float:
        """When it is to be done."""
        return min(self.last + self.quiet, self.first + self.most)
