"""From features that are wanted, one after the other, to one plan: each view is looked up once for all that it has.

An on-demand feature needs what its expression reads: features of views and aliases, which are looked up though nobody
asked to see them, and columns of the request.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from stillwell.errors import RequestError
from stillwell.instants import duration_us
from stillwell.layout.projection import Projection
from stillwell.on_demand import OnDemand
from stillwell.reading.plan import Computation, Lookup, Output, Place, Plan, RequestInput, StoredInput
from stillwell.reading.whole import WholeLookup, WholePlan
from stillwell.spec import (
    AliasSpec,
    FeatureSpec,
    KeySpec,
    ModelSpec,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
    ViewSpec,
    input_qualifier,
)
from stillwell.types import TIMESTAMP, FieldType

Named = ViewSpec | AliasSpec | OnDemandSpec
"""What has features."""


def features_of(named: Named) -> tuple[FeatureSpec, ...]:
    """What may be asked for of it."""
    return named.view.features if isinstance(named, AliasSpec) else named.features


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """A lookup to be: the view, and the features that are wanted of it, each with its place."""

    view: ViewSpec
    columns: tuple[str, ...]
    places: dict[str, int]
    features: list[FeatureSpec]


class Draft:
    """A plan in the making: say what is wanted, and then have the `plan`."""

    def __init__(self, catalog: object, older: Mapping[str, Sequence[ViewSpec]]) -> None:
        """catalog: whose plan it will be. older: other versions of each view, whose rows may be there."""
        self._catalog = catalog
        self._older = older
        self._rows: list[_Rows] = []
        self._rows_at: dict[Place, int] = {}
        self._computed: list[tuple[OnDemandSpec, list[str]]] = []
        self._computed_at: dict[str, int] = {}
        self._models: list[ModelSpec] = []
        self._asked_by_models: list[RequestColumnSpec] = []

    def stored(self, named: ViewSpec | AliasSpec, feature: FeatureSpec) -> tuple[int, int]:
        """Want a stored feature; gives its lookup and its column there."""
        view = named.view if isinstance(named, AliasSpec) else named
        columns = _key_columns(named)
        at = self._rows_at.setdefault((view.name, columns), len(self._rows))
        if at == len(self._rows):
            self._rows.append(_Rows(view, columns, {}, []))
        rows = self._rows[at]
        place = rows.places.setdefault(feature.name, len(rows.features))
        if place == len(rows.features):
            rows.features.append(feature)
        return at, place

    def computed(self, view: OnDemandSpec, name: str) -> tuple[int, int]:
        """Want an on-demand feature; gives its computation and its column there."""
        at = self._computed_at.setdefault(view.name, len(self._computed))
        if at == len(self._computed):
            self._computed.append((view, []))
        names = self._computed[at][1]
        if name not in names:
            names.append(name)
        return at, names.index(name)

    def predicted(self, model: ModelSpec, asked: Sequence[RequestColumnSpec]) -> int:
        """Want predictions of a model, which needs these columns of requests; gives its place."""
        if model not in self._models:
            self._models.append(model)
            self._asked_by_models += asked
        return self._models.index(model)

    def plan(self, outputs: tuple[Output, ...]) -> Plan:
        """What is wanted, as a plan. Raises RequestError where columns of a request would have to be of two types."""
        asked: dict[str, RequestColumnSpec] = {}
        joined: dict[str, KeySpec] = {}
        computations = tuple(self._computation(view, names, asked, joined) for view, names in self._computed)
        for column in self._asked_by_models:
            _ask(asked, column)
        for model in self._models:
            for key in model.entity.keys:
                _join_key(joined, key.name, key.type, model.name)
        for rows in self._rows:
            _join(joined, rows.view, rows.columns)
        for name in asked.keys() & joined.keys():
            if asked[name].type is not joined[name].type:
                raise _two_types(name, asked[name].type, joined[name].type)
        lookups = self._lookups()
        required = dict.fromkeys([*joined, *(name for name, column in asked.items() if not column.nullable)])
        return Plan(
            joined,
            asked,
            tuple(required),
            lookups,
            computations,
            outputs,
            tuple(self._models),
            views=tuple(rows.view.name for rows in self._rows),
            places=self._rows_at,
            sources=tuple(output.source for output in outputs),
            plain=all(output.feature.type.scalar is not TIMESTAMP for output in outputs),
            objectives=tuple(at for at, lookup in enumerate(lookups) if lookup.freshness_us is not None),
            of_one_key=bool(lookups) and not any(lookup.alike for lookup in lookups),
            whole=None if computations or self._models else self._whole(lookups, outputs),
            catalog=self._catalog,
        )

    def _lookups(self) -> tuple[Lookup, ...]:
        alike: dict[tuple[object, ...], int] = {}
        return tuple(
            Lookup(
                rows.view,
                rows.columns,
                Projection(rows.view, rows.features, self._older.get(rows.view.name, ())),
                alike.setdefault((rows.columns, *(key.type.name for key in rows.view.entity.keys)), at),
                duration_us(rows.view.ttl) or None,
                None if rows.view.freshness is None else duration_us(rows.view.freshness),
            )
            for at, rows in enumerate(self._rows)
        )

    def _whole(self, lookups: Sequence[Lookup], outputs: Sequence[Output]) -> WholePlan:
        begins = [0, *itertools.accumulate(len(rows.features) for rows in self._rows)]
        return WholePlan(
            [WholeLookup(lookup.projection.whole, lookup.ttl_us) for lookup in lookups],
            [begins[output.source] + output.column for output in outputs],
        )

    def _computation(
        self,
        view: OnDemandSpec,
        names: Sequence[str],
        asked: dict[str, RequestColumnSpec],
        joined: dict[str, KeySpec],
    ) -> Computation:
        on_demand = OnDemand(view, names)
        inputs = {input_qualifier(given): given for given in view.inputs}
        stored: list[StoredInput] = []
        requested: list[RequestInput] = []
        for qualified, kind in on_demand.columns.items():
            qualifier, _, name = qualified.rpartition(".")
            given = inputs[qualifier]
            if isinstance(given, RequestSpec):
                (column,) = (each for each in given.columns if each.name == name)
                requested.append(RequestInput(qualified, name, kind))
                _ask(asked, column)
            else:
                (feature,) = (each for each in features_of(given) if each.name == name)
                stored.append(StoredInput(qualified, kind, *self.stored(given, feature)))
        if not on_demand.columns:
            _need_first(view, asked, joined)
        return Computation(view.name, on_demand, tuple(stored), tuple(requested))


def _need_first(view: OnDemandSpec, asked: dict[str, RequestColumnSpec], joined: dict[str, KeySpec]) -> None:
    """What is computed from AS_OF alone must still know for how many entities: those of the view's first input."""
    first = view.inputs[0]
    if isinstance(first, RequestSpec):
        _ask(asked, first.columns[0])
    else:
        _join(joined, first.view if isinstance(first, AliasSpec) else first, _key_columns(first))


def _key_columns(named: ViewSpec | AliasSpec) -> tuple[str, ...]:
    """The request's columns that lead to it, in the order of its view's keys."""
    if isinstance(named, AliasSpec):
        return tuple(named.keys[key.name] for key in named.view.entity.keys)
    return tuple(key.name for key in named.entity.keys)


def _join(joined: dict[str, KeySpec], view: ViewSpec, columns: Sequence[str]) -> None:
    for name, key in zip(columns, view.entity.keys, strict=True):
        _join_key(joined, name, key.type, view.name)


def _join_key(joined: dict[str, KeySpec], name: str, kind: FieldType, whose: str) -> None:
    known = joined.setdefault(name, KeySpec(name=name, type=kind))
    if known.type.key_tag != kind.key_tag:
        raise RequestError(
            "features",
            f"{whose} wants {name} as {kind.name}, another view as {known.type.name}: ask for them in two requests",
        )


def _ask(asked: dict[str, RequestColumnSpec], column: RequestColumnSpec) -> None:
    known = asked.setdefault(column.name, column)
    if known.type is not column.type:
        raise _two_types(column.name, column.type, known.type)
    if known.nullable and not column.nullable:
        asked[column.name] = column


def _two_types(name: str, one: FieldType, other: FieldType) -> RequestError:
    return RequestError(
        "features", f"one of them wants {name} as {one.name}, another as {other.name}: ask for them in two requests"
    )
