"""What a list of features needs from the online store, worked out once for all requests that ask for the same.

A feature is named `<view, alias or on-demand view>:<feature>`. A view is looked up by the columns of the request that
are called as the keys of its entity are, an alias by those of the entity that leads to it. An on-demand feature needs
what its expression reads: features of views and aliases, which are looked up though nobody asked to see them, and
columns of the request. Pure: nothing here reads a store or a clock.
"""

import dataclasses
import datetime
import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import NotDefined, RequestError
from stillwell.layout.projection import Projection
from stillwell.on_demand import OnDemand
from stillwell.reading.whole import WholeLookup, WholePlan
from stillwell.spec import (
    AliasSpec,
    DefinitionsSpec,
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
from stillwell.wording import shorten

_MICROSECOND = datetime.timedelta(microseconds=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Lookup:
    """The rows of one view. columns: for each key of its entity, in their order, the request's column that has it.

    alike: the first lookup of the plan that makes the same entity keys of the same columns. ttl_us, freshness_us: the
    view's, None where it has none.
    """

    view: ViewSpec
    columns: tuple[str, ...]
    projection: Projection
    alike: int
    ttl_us: int | None
    freshness_us: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class StoredInput:
    """A stored feature that a computation reads: as its expressions name it, which lookup has it, and as which of its
    columns."""

    qualified: str
    type: FieldType
    lookup: int
    column: int


@dataclasses.dataclass(frozen=True, slots=True)
class RequestInput:
    """A request's column that a computation reads: as its expressions name it, and as the request does."""

    qualified: str
    name: str
    type: FieldType


@dataclasses.dataclass(frozen=True, slots=True)
class Computation:
    """The features of one on-demand view, and where what they read comes from."""

    view: str
    on_demand: OnDemand
    stored: tuple[StoredInput, ...]
    requested: tuple[RequestInput, ...]


class Kind(enum.Enum):
    """Where an output comes from: the rows of a lookup, a computation, or a model."""

    STORED = "stored"
    COMPUTED = "computed"
    PREDICTED = "predicted"


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """One feature of the answer: `view:name`, and where it comes from: which of the plan's lookups, computations or
    models (by kind), and which of its columns. view: the view, alias, on-demand view or model that requests name it
    by."""

    view: str
    feature: FeatureSpec
    kind: Kind
    source: int
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
    """join_keys: the columns of a request that rows are looked up by, and the type of each. request_columns: those that
    are computed with. required: what a request must have; a column that is computed with and may be null can be left
    out. whole: reads what is looked up, where nothing is to be computed besides, and no model asked.

    Known of each once, because every request needs it: views, of the lookups by name; sources, of the outputs; plain:
    whether no output is a time; of_one_key: whether all lookups make the same entity keys.
    """

    join_keys: Mapping[str, KeySpec]
    request_columns: Mapping[str, RequestColumnSpec]
    required: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    computations: tuple[Computation, ...]
    outputs: tuple[Output, ...]
    models: tuple[ModelSpec, ...] = ()
    """Whose predictions are asked for."""
    views: tuple[str, ...] = ()
    sources: tuple[int, ...] = ()
    plain: bool = False
    of_one_key: bool = False
    whole: WholePlan | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def columns(self) -> Mapping[str, FieldType]:
        """Every column that it takes, and its type, keys first."""
        keys = {name: key.type for name, key in self.join_keys.items()}
        return keys | {name: column.type for name, column in self.request_columns.items()}


_Named = ViewSpec | AliasSpec | OnDemandSpec


class Catalog:
    """All that can be asked for, by the names that requests use."""

    def __init__(self, definitions: DefinitionsSpec, versions: Iterable[ViewSpec] = ()) -> None:
        """versions: other versions of the views, whose rows may still be in the store."""
        named: list[_Named] = [*definitions.views, *definitions.aliases, *definitions.on_demand]
        self._named = {each.name: each for each in named}
        self._models = {model.name: model for model in definitions.models}
        self._requests = {request.name: request for request in definitions.requests}
        self._services = {service.name: service for service in definitions.services}
        self._older: dict[str, list[ViewSpec]] = {}
        for version in versions:
            self._older.setdefault(version.name, []).append(version)
        of_requests = {column.name: column.type for request in definitions.requests for column in request.columns}
        of_entities = {key.name: key.type for entity in definitions.entities for key in entity.keys}
        self.keys: Mapping[str, FieldType] = of_requests | of_entities
        """Every column that a request may have, though it need not."""

    def references(self, features: Sequence[str], service: str | None) -> Sequence[str]:
        """What a request asks for, which names either features or a feature service. Raises RequestError."""
        if service is None:
            return features
        if features:
            raise RequestError("feature_service", "is given beside features; ask for one of them")
        return self.service(service)

    def service(self, name: str) -> tuple[str, ...]:
        """The features of a feature service, as `plan` takes them. Raises NotDefined."""
        if name not in self._services:
            if those := self._features_of(name):
                raise NotDefined("feature_service", f"{name} is no feature service; name features, as {those}")
            near = did_you_mean(name, self._services)
            raise NotDefined("feature_service", f"there is no feature service {shorten(name)!r}{near}")
        return self._services[name].features

    def plan(self, references: Sequence[str]) -> Plan:
        """What these features need. Raises RequestError for one that is unknown or named twice, and where two of them
        want different things of one column."""
        if not references:
            raise RequestError("features", "name at least one, as <view>:<feature>")
        draft = _Draft(self._older)
        outputs = tuple(self._output(reference, number, draft) for number, reference in enumerate(references))
        if len(set(references)) < len(references):
            twice = next(each for number, each in enumerate(references) if each in references[:number])
            raise RequestError("features", f"{shorten(twice)!r} is named twice; name each once")
        return draft.plan(outputs)

    def _output(self, reference: str, number: int, draft: "_Draft") -> Output:
        """Add what a reference names to what is wanted; gives where it will come from."""
        field = f"features[{number}]"
        owner, colon, name = reference.partition(":")
        if colon and owner in self._models:
            return self._predicted(self._models[owner], name, field, draft)
        if not colon:
            those = self._features_of(reference)
            meant = f", as {those}" if those else self._owner_of(reference)
            raise RequestError(field, f"{shorten(reference)!r} must be <view>:<feature>{meant}")
        if owner not in self._named:
            near = did_you_mean(owner, {*self._named, *self._models})
            raise NotDefined(field, f"there is no view {shorten(owner)!r}{near}")
        named = self._named[owner]
        features = {feature.name: feature for feature in _features(named)}
        if name not in features:
            raise NotDefined(field, f"{owner} has no feature {shorten(name)!r}{did_you_mean(name, features)}")
        if isinstance(named, OnDemandSpec):
            return Output(owner, features[name], Kind.COMPUTED, *draft.computed(named, name))
        return Output(owner, features[name], Kind.STORED, *draft.stored(named, features[name]))

    def model(self, name: str) -> ModelSpec:
        """A model. Raises NotDefined."""
        if not self._models:
            raise NotDefined(
                "model",
                "the definitions have no model, so that there are no predictions: write a Model, and start workers and "
                "query service anew. Features are read without one",
            )
        if name in self._named:
            raise NotDefined("model", f"{name} is no model; read its features, as {self._features_of(name)}")
        if name not in self._models:
            raise NotDefined("model", f"there is no model {shorten(name)!r}{did_you_mean(name, self._models)}")
        return self._models[name]

    def _predicted(self, model: ModelSpec, name: str, field: str, draft: "_Draft") -> Output:
        """Add a model's output to what is wanted; gives where it will come from."""
        outputs = {output.name: at for at, output in enumerate(model.outputs)}
        if name not in outputs:
            raise NotDefined(field, f"{model.name} has no output {shorten(name)!r}{did_you_mean(name, outputs)}")
        output = model.outputs[outputs[name]]
        feature = FeatureSpec(
            name=name,
            type=output.type,
            nullable=output.nullable,
            expression=None,
            description=output.description,
        )
        number = draft.predicted(model, self._asked_by(model))
        return Output(model.name, feature, Kind.PREDICTED, number, outputs[name])

    def _asked_by(self, model: ModelSpec) -> list[RequestColumnSpec]:
        """The columns of requests that a model's inputs need."""
        columns: list[RequestColumnSpec] = []
        features: dict[str, None] = {}
        for given in model.inputs:
            owner, _, name = given.reference.partition(":")
            if owner in self._requests:
                columns += [column for column in self._requests[owner].columns if column.name == name]
            else:
                features[given.reference] = None
        if features:
            columns += self.plan(list(features)).request_columns.values()
        return columns

    def _features_of(self, owner: str) -> str:
        """How the first features of a view, or of what stands in its place, are asked for; empty if there is none."""
        if owner in self._models:
            names = [output.name for output in self._models[owner].outputs]
        elif owner in self._named:
            names = [feature.name for feature in _features(self._named[owner])]
        else:
            return ""
        shown = ", ".join(f"{owner}:{name}" for name in names[:_SHOWN])
        return f"{shown}, …" if len(names) > _SHOWN else shown

    def _owner_of(self, name: str) -> str:
        owners = [owner for owner, each in self._named.items() if any(its.name == name for its in _features(each))]
        return f"; did you mean {owners[0]}:{name}?" if owners else ""


_SHOWN = 3
"""Features that a message names of a view: what they look like, not all that there are."""


def _features(named: _Named) -> tuple[FeatureSpec, ...]:
    return named.view.features if isinstance(named, AliasSpec) else named.features


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """A lookup to be: the view, and the features that are wanted of it, each with its place."""

    view: ViewSpec
    columns: tuple[str, ...]
    places: dict[str, int]
    features: list[FeatureSpec]


class _Draft:
    """A plan in the making."""

    def __init__(self, older: Mapping[str, Sequence[ViewSpec]]) -> None:
        self._older = older
        self._rows: list[_Rows] = []
        self._rows_at: dict[tuple[str, tuple[str, ...]], int] = {}
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
        alike: dict[tuple[object, ...], int] = {}
        lookups = tuple(
            Lookup(
                rows.view,
                rows.columns,
                Projection(rows.view, rows.features, self._older.get(rows.view.name, ())),
                alike.setdefault((rows.columns, *(key.type.name for key in rows.view.entity.keys)), at),
                rows.view.ttl // _MICROSECOND or None,
                None if rows.view.freshness is None else rows.view.freshness // _MICROSECOND,
            )
            for at, rows in enumerate(self._rows)
        )
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
            sources=tuple(output.source for output in outputs),
            plain=all(output.feature.type is not TIMESTAMP for output in outputs),
            of_one_key=bool(lookups) and not any(lookup.alike for lookup in lookups),
            whole=None if computations or self._models else self._whole(lookups, outputs),
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
                (feature,) = (each for each in _features(given) if each.name == name)
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


def any_output(model: ModelSpec) -> str:
    """A reference to a model: one of its outputs, whose plan has what a prediction needs."""
    return f"{model.name}:{model.outputs[0].name}"
