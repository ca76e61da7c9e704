"""What a model reads: from the keys of entities to the rows that it stands on, their fingerprint, and its inputs.

Worked out once for a model, by the plan of all readers. Values that are missing, or past their view's TTL, are null to
the model; what is computed on demand is computed for the instant at which the rows were read.
"""

import datetime
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stillwell.errors import RequestError
from stillwell.instants import duration_us, instant_us
from stillwell.layout.entity_key import keys_of_columns
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.layout.value import STAMP_AT
from stillwell.predictions.fingerprint import fingerprint, request_digest, what_is_read
from stillwell.predictions.tensors import Unusable
from stillwell.reading.catalog import Catalog
from stillwell.reading.features import columns_of_rows
from stillwell.reading.plan import Kind, Lookup, Place
from stillwell.reading.status import Status
from stillwell.spec import AliasSpec, DefinitionsSpec, ModelSpec, RequestColumnSpec, ViewSpec

_STAMPED = struct.Struct(">Q")
_SIGN = 1 << 63

Columns = Mapping[str, Sequence[Any]]
"""A value for each entity, by the names of its keys and of request columns, in Python's types."""

Rows = Sequence[Sequence[bytes | None]]
"""For each of the model's lookups, the row of each entity."""


def refreshed_by_command(definitions: DefinitionsSpec) -> list[str]:
    """The models that writes refresh, and of which `stillwell predictions refresh --all` can find the entities."""
    found = []
    for model in definitions.models:
        inputs = ModelInputs(model, definitions)
        if model.refresh_on_write and not inputs.request and inputs.own_views(definitions):
            found.append(model.name)
    return found


class ModelInputs:
    """The inputs of one model."""

    def __init__(self, model: ModelSpec, definitions: DefinitionsSpec, older: Iterable[ViewSpec] = ()) -> None:
        """older: other versions of views, whose rows may still be in the store. Raises RequestError for an input that
        the definitions do not have."""
        self._entity = model.entity
        self._keys = model.entity.keys
        self._inputs = model.inputs
        requests = {each.name: each for each in definitions.requests}
        self._read = what_is_read(model.inputs, {each.name: each.version for each in definitions.on_demand})
        self._requested: dict[str, str] = {}
        self.request: dict[str, RequestColumnSpec] = {}
        """The columns that requests must bring, by name."""
        references = []
        for each in model.inputs:
            owner, _, name = each.reference.partition(":")
            if owner in requests:
                self._requested[each.name] = name
                self.request[name] = next(column for column in requests[owner].columns if column.name == name)
            else:
                references.append(each.reference)
        self._plan = Catalog(definitions, older).plan(list(dict.fromkeys(references))) if references else None
        if self._plan:
            self.request |= self._plan.request_columns
        self._lookups = self._plan.lookups if self._plan else ()
        self.places: tuple[Place, ...] = tuple((each.view.name, each.columns) for each in self._lookups)
        """Where the rows are, in the order of rows."""
        self._ttls = [duration_us(each.view.ttl) for each in self._lookups]
        self.sources = tuple(_name_of(each, model, definitions) for each in self._lookups)
        """The views and aliases that are read, by name, in the order of rows."""
        own = tuple(key.name for key in model.entity.keys)
        self._own_views = (
            tuple(each.view.name for each in self._lookups)
            if all(each.columns == own for each in self._lookups)
            else None
        )
        """The views, where all rows are read by the model's own entities, and none through an alias."""
        through = {_led_to(alias) for alias in definitions.aliases if alias.name in model.refresh_on_write}
        self._listed = [each for each in self._lookups if (each.view.name, each.columns) in through]

    def own_views(self, definitions: DefinitionsSpec) -> list[str]:
        """Views of the model's own entity that it reads: they say which entities there are."""
        return [view.name for view in definitions.views if view.entity == self._entity and view.name in self.sources]

    def entity_keys(self, columns: Columns) -> list[bytes]:
        """The key of each entity. Raises WrongKey."""
        return keys_of_columns(self._keys, [columns[key.name] for key in self._keys])

    def digests(self, columns: Columns) -> list[bytes]:
        """What stands for each entity's request values in keys; empty where the model has none."""
        if not self.request:
            return []
        return [request_digest(values) for values in zip(*(columns[name] for name in self.request), strict=True)]

    def row_keys(
        self, keys: RedisKeys, columns: Columns, entity_keys: Sequence[bytes] | None = None
    ) -> list[list[bytes]]:
        """Where the rows are: for each view or alias a list, of a key for each entity. entity_keys: of the entities,
        where they are known."""
        own = tuple(key.name for key in self._keys)
        return [
            keys.rows(
                each.view.name,
                entity_keys
                if entity_keys is not None and each.columns == own
                else keys_of_columns(each.view.entity.keys, [columns[column] for column in each.columns]),
            )
            for each in self._lookups
        ]

    def look_keys(
        self,
        keys: RedisKeys,
        of: PredictionsOf,
        columns: Columns,
        entity_keys: Sequence[bytes],
        digests: Sequence[bytes],
    ) -> list[bytes]:
        """Where the predictions of entities are, and behind them, for each view or alias, their rows."""
        if self._own_views is not None:  # as for most models
            return keys.predictions_and_rows(of, self._own_views, entity_keys, digests)
        wanted = keys.predictions(of, entity_keys, digests)
        for each in self.row_keys(keys, columns, entity_keys):
            wanted += each
        return wanted

    def reader_places(self, keys: RedisKeys, of: PredictionsOf, columns: Columns, count: int) -> list[list[bytes]]:
        """Where it is to be listed that each entity's prediction reads rows through aliases whose writes refresh it: a
        list for each entity, empty where there are none."""
        places = [
            keys.readers(
                of,
                each.view.name,
                keys_of_columns(each.view.entity.keys, [columns[column] for column in each.columns]),
            )
            for each in self._listed
        ]
        return [list(of_entity) for of_entity in zip(*places, strict=True)] if places else [[] for _ in range(count)]

    def fingerprints(self, rows: Rows, count: int, now_us: int) -> list[bytes]:
        """Of each entity's rows. count: of the entities."""
        if not rows:
            return [fingerprint(self._read, (), ())] * count
        read, earliest = self._read, self._earliest(now_us)
        return [fingerprint(read, of_entity, earliest) for of_entity in zip(*rows, strict=True)]

    def fingerprint(self, rows: Sequence[bytes | None], now_us: int) -> bytes:
        """Of one entity's rows."""
        return fingerprint(self._read, rows, self._earliest(now_us))

    def _earliest(self, now_us: int) -> list[bytes | None]:
        """The beginning of the least stamp that is within its view's TTL, for each lookup."""
        return [_STAMPED.pack(now_us - ttl + _SIGN) if ttl else None for ttl in self._ttls]

    def event_times(self, rows: Sequence[bytes | None]) -> dict[str, int | None]:
        """The event times of one entity's rows, in µs since the epoch, by the names of views and aliases."""
        return {name: None if row is None else _event_time(row) for name, row in zip(self.sources, rows, strict=True)}

    def values(self, rows: Rows, columns: Columns, now_us: int) -> dict[str, list[Any]]:
        """The model's inputs by name, a value for each entity; a Timestamp is µs since the epoch.

        Raises FormatError, and RequestError for an entity of which an on-demand feature makes nothing.
        """
        stored: dict[str, list[Any]] = {}
        if self._plan:
            for column in columns_of_rows(self._plan, rows, columns, now_us):
                of_rows = column.output.kind is Kind.STORED
                stored[column.output.reference] = [
                    value if status is Status.PRESENT or not of_rows else None
                    for value, status in zip(column.values, column.statuses, strict=True)
                ]
        return {
            each.name: _plain(columns[self._requested[each.name]])
            if each.name in self._requested
            else stored[each.reference]
            for each in self._inputs
        }

    def each_values(
        self, rows: Rows, columns: Columns, count: int, now_us: int
    ) -> tuple[dict[str, list[Any]], dict[int, Unusable]]:
        """The same, entity by entity: those that can be computed, and why the others cannot, by their numbers."""
        values: dict[str, list[Any]] = {each.name: [] for each in self._inputs}
        unusable: dict[int, Unusable] = {}
        for number in range(count):
            alone = {name: [column[number]] for name, column in columns.items()}
            try:
                found = self.values([[of_lookup[number]] for of_lookup in rows], alone, now_us)
            except RequestError as error:
                unusable[number] = Unusable(str(error))
                continue
            for name, (value,) in found.items():
                values[name].append(value)
        return values, unusable


def _event_time(row: bytes) -> int:
    at: int = _STAMPED.unpack_from(row, STAMP_AT)[0]
    return at - _SIGN


def _name_of(lookup: Lookup, model: ModelSpec, definitions: DefinitionsSpec) -> str:
    """The view's name, or that of the alias that leads to its rows from the model's entity."""
    for alias in definitions.aliases:
        if alias.entity.name == model.entity.name and _led_to(alias) == (lookup.view.name, lookup.columns):
            return alias.name
    return lookup.view.name


def _led_to(alias: AliasSpec) -> tuple[str, tuple[str, ...]]:
    """The view that an alias leads to, and the columns that hold its keys."""
    return alias.view.name, tuple(alias.keys[key.name] for key in alias.view.entity.keys)


def _plain(values: Sequence[Any]) -> list[Any]:
    """Request values, times as numbers, in lists too."""
    return [
        instant_us(value)
        if isinstance(value, datetime.datetime)
        else _plain(value)
        if isinstance(value, list)
        else value
        for value in values
    ]
