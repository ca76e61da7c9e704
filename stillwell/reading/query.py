"""What a list of features needs from the online store, worked out once for all requests that ask for the same.

A feature is named `<view>:<feature>`. Its view is looked up by the columns of the request that are called as the keys
of the view's entity are. Pure: nothing here reads a store or a clock.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import NotDefined, RequestError
from stillwell.layout.projection import Projection
from stillwell.spec import DefinitionsSpec, FeatureSpec, KeySpec, ViewSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Lookup:
    """The rows of one view. columns: for each key of its entity, in their order, the request's column that has it."""

    view: ViewSpec
    columns: tuple[str, ...]
    projection: Projection


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One feature of the answer: `view:name`, and where it comes from: which lookup, and which of its columns."""

    view: str
    feature: FeatureSpec
    lookup: int
    column: int

    @property
    def name(self) -> str:
        """Without its view."""
        return self.feature.name

    @property
    def reference(self) -> str:
        """As requests name it."""
        return f"{self.view}:{self.feature.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """join_keys: the columns that a request must have, and the type of each."""

    join_keys: Mapping[str, KeySpec]
    lookups: tuple[Lookup, ...]
    outputs: tuple[Output, ...]


class Catalog:
    """All that can be asked for, by the names that requests use."""

    def __init__(self, definitions: DefinitionsSpec, versions: Iterable[ViewSpec] = ()) -> None:
        """versions: other versions of the views, whose rows may still be in the store."""
        self._views = {view.name: view for view in definitions.views}
        self._older: dict[str, list[ViewSpec]] = {}
        for version in versions:
            self._older.setdefault(version.name, []).append(version)
        self.keys = {key.name: key.type for entity in definitions.entities for key in entity.keys}
        """Every column that a request may have, though it need not."""

    def plan(self, references: Sequence[str]) -> Plan:
        """What these features need. Raises RequestError for one that is unknown or named twice, and where two of them
        want different things of one column."""
        if not references:
            raise RequestError("features", "name at least one, as <view>:<feature>")
        wanted: dict[str, list[FeatureSpec]] = {}
        places = [self._place(reference, number, wanted) for number, reference in enumerate(references)]
        if len(set(references)) < len(references):
            twice = next(each for number, each in enumerate(references) if each in references[:number])
            raise RequestError("features", f"{twice!r} is named twice; name each once")
        order = {view: number for number, view in enumerate(wanted)}
        return Plan(
            join_keys=self._join_keys(wanted),
            lookups=tuple(self._lookup(view, features) for view, features in wanted.items()),
            outputs=tuple(Output(view, wanted[view][at], order[view], at) for view, at in places),
        )

    def _place(self, reference: str, number: int, wanted: dict[str, list[FeatureSpec]]) -> tuple[str, int]:
        """Add what a reference names to what is wanted of its view; gives the view and the feature's place there."""
        field = f"features[{number}]"
        view, colon, name = reference.partition(":")
        if not colon:
            raise RequestError(field, f"{reference!r} must be <view>:<feature>{self._owner_of(reference)}")
        if view not in self._views:
            raise NotDefined(field, f"there is no view {view!r}{did_you_mean(view, self._views)}")
        features = {feature.name: feature for feature in self._views[view].features}
        if name not in features:
            raise NotDefined(field, f"{view} has no feature {name!r}{did_you_mean(name, features)}")
        of_view = wanted.setdefault(view, [])
        of_view.append(features[name])
        return view, len(of_view) - 1

    def _owner_of(self, name: str) -> str:
        owners = [view.name for view in self._views.values() if any(each.name == name for each in view.features)]
        return f"; did you mean {owners[0]}:{name}?" if owners else ""

    def _join_keys(self, wanted: Iterable[str]) -> dict[str, KeySpec]:
        keys: dict[str, KeySpec] = {}
        for view in wanted:
            for key in self._views[view].entity.keys:
                known = keys.setdefault(key.name, key)
                if known.type.key_tag != key.type.key_tag:
                    raise RequestError(
                        "features",
                        f"{view} wants {key.name} as {key.type.name}, another view as {known.type.name}: ask for them "
                        "in two requests",
                    )
        return keys

    def _lookup(self, name: str, features: Sequence[FeatureSpec]) -> Lookup:
        view = self._views[name]
        return Lookup(
            view=view,
            columns=tuple(key.name for key in view.entity.keys),
            projection=Projection(view, features, self._older.get(name, ())),
        )
