"""What a stored row says of each feature of a view, at an instant: see `stillwell.reading.status`.

A row is read by the layout that it was written in. What the view has gained since, or has in another type now, is not
in it.
"""

import dataclasses
import datetime
from collections.abc import Iterable

from stillwell.layout.stamp import Stamp
from stillwell.layout.value import LayoutSet, RowLayout, decode
from stillwell.reading.status import Status
from stillwell.spec import ViewSpec


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureAnswer:
    """One feature: its value (None where there is none) and what that is worth."""

    name: str
    value: object
    status: Status


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Every feature of a view for one entity. event_time and stamp are the row's, None where there is no row."""

    features: tuple[FeatureAnswer, ...]
    event_time: datetime.datetime | None
    stamp: Stamp | None


class Answers:
    """Answers for one view, from rows in any of the layouts that are known."""

    def __init__(self, view: ViewSpec, older: Iterable[ViewSpec] = ()) -> None:
        """older: other versions of the view, whose rows may still be there. Raises DefinitionError for two that share
        the id of their layouts by chance."""
        self._view = view
        self._layouts = LayoutSet(map(RowLayout.of, (view, *older)))

    def can_read(self, stored: bytes | None) -> bool:
        """Whether a row's layout is known; None, for no row, can always be read."""
        return stored is None or self._layouts.knows(stored)

    def of(self, stored: bytes | None, now: datetime.datetime) -> Answer:
        """The answer at an instant, from the stored value, or None where there is none.

        Raises FormatError for a row of an unknown layout, or one that is damaged.
        """
        if stored is None:
            nothing = (FeatureAnswer(feature.name, None, Status.NOT_FOUND) for feature in self._view.features)
            return Answer(tuple(nothing), None, None)
        layout = self._layouts.of(stored)
        row = decode(layout, stored)
        outside = bool(self._view.ttl) and row.event_time < now - self._view.ttl
        types = {feature.name: feature.type for feature in layout.features}
        features = [
            _answer(feature.name, row.values[feature.name], outside)
            if types.get(feature.name) == feature.type
            else FeatureAnswer(feature.name, None, Status.NOT_FOUND)
            for feature in self._view.features
        ]
        return Answer(tuple(features), row.event_time, row.stamp)


def _answer(name: str, value: object, outside: bool) -> FeatureAnswer:
    if outside:
        return FeatureAnswer(name, value, Status.OUTSIDE_MAX_AGE)
    return FeatureAnswer(name, value, Status.NULL_VALUE if value is None else Status.PRESENT)
