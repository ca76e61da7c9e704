"""What a model reads: from the keys of entities to the rows that it stands on, their fingerprint, and its inputs.

Worked out once for a model. Values that are missing, or past their view's TTL, are null to the model.
"""

import dataclasses
import datetime
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stillwell.errors import DefinitionError
from stillwell.layout.entity_key import keys_of_columns
from stillwell.layout.projection import ABSENT, Projection
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.value import STAMP_AT
from stillwell.predictions.fingerprint import fingerprint, request_digest
from stillwell.spec import (
    AliasSpec,
    DefinitionsSpec,
    FeatureSpec,
    ModelSpec,
    RequestColumnSpec,
    ViewSpec,
)

_STAMPED = struct.Struct(">Q")
_SIGN = 1 << 63
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)

Columns = Mapping[str, Sequence[Any]]
"""A value for each entity, by the names of its keys and of request columns, in Python's types."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Lookup:
    """The rows of one view, by keys of the model's entity. columns: for each key of the view's, the entity's."""

    name: str
    view: ViewSpec
    columns: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    projection: Projection
    ttl_us: int


class ModelInputs:
    """The inputs of one model."""

    def __init__(self, model: ModelSpec, definitions: DefinitionsSpec, older: Iterable[ViewSpec] = ()) -> None:
        """older: other versions of views, whose rows may still be in the store. Raises DefinitionError."""
        self._model = model
        self._keys = model.entity.keys
        wanted: dict[str, dict[str, FeatureSpec]] = {}
        sources: dict[str, ViewSpec | AliasSpec] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self.request: dict[str, RequestColumnSpec] = {}
        """The columns that requests must bring, by name."""
        owners: dict[str, ViewSpec | AliasSpec] = {each.name: each for each in definitions.views}
        owners |= {each.name: each for each in definitions.aliases}
        requests = {each.name: each for each in definitions.requests}
        for each in model.inputs:
            owner, _, name = each.reference.partition(":")
            self._places[each.name] = (owner, name)
            if owner in requests:
                self.request[name] = next(column for column in requests[owner].columns if column.name == name)
            elif owner in owners:
                sources[owner] = owners[owner]
                view = _view_of(owners[owner])
                wanted.setdefault(owner, {})[name] = next(each for each in view.features if each.name == name)
            else:
                raise DefinitionError(
                    f"model {model.name}: input {each.name} is {each.reference}, which is no feature of a view or an "
                    "alias, and no column of a request"
                )
        others: dict[str, list[ViewSpec]] = {}
        for version in older:
            others.setdefault(version.name, []).append(version)
        self._lookups = [
            _lookup(name, source, tuple(wanted[name].values()), others) for name, source in sources.items()
        ]

    @property
    def sources(self) -> tuple[str, ...]:
        """The views and aliases that are read, by name."""
        return tuple(each.name for each in self._lookups)

    def entity_keys(self, columns: Columns) -> list[bytes]:
        """The key of each entity. Raises WrongKey."""
        return keys_of_columns(self._keys, [columns[key.name] for key in self._keys])

    def digests(self, columns: Columns) -> list[bytes]:
        """What stands for each entity's request values in keys; empty where the model has none."""
        if not self.request:
            return []
        return [request_digest(values) for values in zip(*(columns[name] for name in self.request), strict=True)]

    def row_keys(self, keys: RedisKeys, columns: Columns) -> list[list[bytes]]:
        """Where the rows are: for each view or alias a list, of a key for each entity."""
        return [
            keys.rows(
                each.view.name, keys_of_columns(each.view.entity.keys, [columns[column] for column in each.columns])
            )
            for each in self._lookups
        ]

    def fingerprints(self, rows: Sequence[Sequence[bytes | None]], now_us: int) -> list[bytes]:
        """Of each entity's rows. rows: as `row_keys` asks for them."""
        limits = [now_us - each.ttl_us if each.ttl_us else None for each in self._lookups]
        return [
            fingerprint(
                of_entity,
                [
                    row is not None and limit is not None and _event_time(row) < limit
                    for row, limit in zip(of_entity, limits, strict=True)
                ],
            )
            for of_entity in zip(*rows, strict=True)
        ]

    def event_times(self, rows: Sequence[bytes | None]) -> dict[str, int | None]:
        """The event times of one entity's rows, in µs since the epoch, by the names of views and aliases."""
        return {
            each.name: None if row is None else _event_time(row) for each, row in zip(self._lookups, rows, strict=True)
        }

    def values(self, rows: Sequence[Sequence[bytes | None]], columns: Columns, now_us: int) -> dict[str, Sequence[Any]]:
        """The model's inputs by name, a value for each entity; a Timestamp is µs since the epoch.

        Raises FormatError.
        """
        stored: dict[tuple[str, str], Sequence[Any]] = {}
        for lookup, of_lookup in zip(self._lookups, rows, strict=True):
            read = lookup.projection.read(of_lookup)
            limit = now_us - lookup.ttl_us if lookup.ttl_us else None
            past = [at is not None and limit is not None and at < limit for at in read.event_times]
            for feature, column in zip(lookup.features, read.columns, strict=True):
                stored[lookup.name, feature.name] = [
                    None if value is ABSENT or gone else value for value, gone in zip(column, past, strict=True)
                ]
        return {
            name: stored[place] if place in stored else _plain(columns[place[1]])
            for name, place in self._places.items()
        }


def _event_time(row: bytes) -> int:
    at: int = _STAMPED.unpack_from(row, STAMP_AT)[0]
    return at - _SIGN


def _view_of(source: ViewSpec | AliasSpec) -> ViewSpec:
    return source.view if isinstance(source, AliasSpec) else source


def _lookup(
    name: str,
    source: ViewSpec | AliasSpec,
    features: tuple[FeatureSpec, ...],
    older: Mapping[str, Sequence[ViewSpec]],
) -> _Lookup:
    view = _view_of(source)
    keys = [key.name for key in view.entity.keys]
    return _Lookup(
        name=name,
        view=view,
        columns=tuple(source.keys[key] for key in keys) if isinstance(source, AliasSpec) else tuple(keys),
        features=features,
        projection=Projection(view, features, older.get(view.name, ())),
        ttl_us=view.ttl // _MICROSECOND,
    )


def _plain(values: Sequence[Any]) -> list[Any]:
    """Request values, times as numbers."""
    return [(value - _EPOCH) // _MICROSECOND if isinstance(value, datetime.datetime) else value for value in values]
