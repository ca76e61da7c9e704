"""Which writes ask for which refreshes: from entities of a view to the hints of the models that read it. Pure.

A row of the model's own entity is read by one prediction of it. One that is read through an alias may be read by any
number: which ones is listed in the store, up to a bound (see `stillwell.predictions.store`).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from stillwell.layout.entity_key import values_of
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.predictions.hint import Cause, Hint
from stillwell.spec import DefinitionsSpec, ModelSpec

MOST_READERS = 10_000
"""Predictions of one model that the writes of one batch to aliased views have refreshed; the rest are left to reads."""


class FanOut(NamedTuple):
    """Where it stands which predictions of a model read rows that were written: a place for each row."""

    model: ModelSpec
    places: list[bytes]


class Triggers:
    """Of the models in some definitions."""

    def __init__(self, definitions: DefinitionsSpec, keys: RedisKeys) -> None:
        self._keys = keys
        self._models: dict[str, list[ModelSpec]] = {}
        self._readers: dict[str, list[ModelSpec]] = {}
        """By the names of views that are read through aliases."""
        views = {view.name for view in definitions.views}
        aliased = {alias.name: alias.view.name for alias in definitions.aliases}
        for model in definitions.models:
            for source in model.refresh_on_write:
                if source in views:
                    self._models.setdefault(source, []).append(model)
            # Two aliases may lead to one view: origin and destination to airports.
            for view in dict.fromkeys(aliased[source] for source in model.refresh_on_write if source in aliased):
                self._readers.setdefault(view, []).append(model)

    def concern(self, view: str) -> bool:
        """Whether writes to a view ask for any refresh."""
        return view in self._models or view in self._readers

    def fan_outs(self, written: Iterable[tuple[str, Sequence[bytes]]]) -> list[FanOut]:
        """Whose readers are to be looked for, of these entities of views."""
        return [
            FanOut(model, self._keys.readers(PredictionsOf(model.name, model.version), view, list(dict.fromkeys(keys))))
            for view, keys in written
            for model in self._readers.get(view, ())
        ]

    def hints(
        self,
        written: Iterable[tuple[str, Sequence[bytes]]],
        readers: Iterable[tuple[ModelSpec, Iterable[bytes]]] = (),
    ) -> list[Hint]:
        """What asks for the refreshes of these entities of views, and of those that are known to read one through an
        alias; each prediction is asked for once."""
        found: dict[tuple[str, bytes], Hint] = {}
        own = ((model, keys) for view, keys in written for model in self._models.get(view, ()))
        for model, keys in itertools.chain(own, readers):
            for key in keys:
                if (model.name, key) not in found:
                    values: Mapping[str, object] = values_of(model.entity.keys, key)
                    found[model.name, key] = Hint(model.name, key, b"", values, Cause.WRITE)
        return list(found.values())
