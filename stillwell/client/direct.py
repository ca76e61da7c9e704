"""The store itself as a source: read by the plan of the query service, in this process, straight from Redis.

One hop less than through the service, and nobody between; but Redis must be reachable, and the definitions there, in
the version that writes. Predictions are read as they are there: no model is asked, and no refresh asked for.
"""

import dataclasses
import datetime
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from stillwell import errors
from stillwell.client.errors import Behind, Closed, NotReady, Unavailable, Unsupported
from stillwell.client.predictions import Input, Prediction, Predictions, PredictionState, Refresh
from stillwell.client.pushed import Pushed, Pushing
from stillwell.client.results import Column, Features, Provenance
from stillwell.client.retrying import Retries
from stillwell.client.rows import plain
from stillwell.client.source import Asked, EntityColumns, json_columns, to_wait
from stillwell.errors import RequestError, StoreError, StoreNotReady
from stillwell.instants import instant, now_us
from stillwell.known_views import known_views
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.cached import cached_readers
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.prediction import Prediction as Told
from stillwell.pushing.topics import push_topics
from stillwell.reading import entities
from stillwell.reading.after import After, Marks
from stillwell.reading.catalog import any_output
from stillwell.reading.features import FeatureColumn, FeatureReader, Found
from stillwell.reading.known import Known
from stillwell.reading.online import OnlineReader, Stored
from stillwell.reading.provenance import by_digest, stamps, topic_of
from stillwell.spec import DefinitionsSpec, ModelSpec, ViewSpec
from stillwell.storage import open_store

if TYPE_CHECKING:
    from stillwell.settings import Settings

_T = TypeVar("_T")


class Reading(Protocol):
    """What is open while a store is read. models: reads predictions as they are there."""

    reader: FeatureReader
    models: ModelReaders
    marks: Marks

    def now_us(self) -> int:
        """The time that ages are counted by, in µs since the epoch."""

    async def close(self) -> None:
        """Close every connection."""


class Direct:
    """One store. open: connects, in the loop of the first call. older: the views as they once were, for rows that
    other versions have written: it asks the registry, and blocks. topics: that rows are made of, by name. rows, values:
    the most of one request, as the query service has them."""

    def __init__(
        self,
        definitions: DefinitionsSpec,
        open: Callable[[], Reading],
        older: Callable[[], Sequence[ViewSpec]],
        *,
        rows: int,
        values: int,
        retries: Retries,
        topics: Iterable[str] = (),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._open = open
        self._known = Known(definitions, older, self._know)
        self._rows = rows
        self._values = values
        self._retries = retries
        self._draw = draw
        self._topics = by_digest(topics)
        self._opened: Reading | None = None
        self._closed = False

    async def features(self, asked: Asked, timeout: float) -> Features:
        """See `stillwell.client.source.Source`."""
        after = After(asked.after, to_wait(timeout)) if asked.after else None
        return await self._retries.until_answered("Redis", timeout, lambda: self._found(asked, after), self._draw)

    async def push(self, pushing: Pushing, timeout: float) -> Pushed:
        """See `stillwell.client.source.Source`."""
        raise Unsupported(
            "a client that reads from Redis cannot push; the query service does, by way of Kafka: use Client(url)"
        )

    async def predictions(self, model: str, entities: EntityColumns, timeout: float) -> Predictions:
        """See `stillwell.client.source.Source`."""
        return await self._retries.until_answered(
            "Redis", timeout, lambda: self._predictions(model, entities), self._draw
        )

    async def close(self) -> None:
        """See `stillwell.client.source.Source`."""
        opened, self._opened = self._opened, None
        self._closed = True
        await self._known.close()
        if opened is not None:
            await opened.close()

    def _know(self, versions: Sequence[ViewSpec]) -> None:
        if self._opened is not None:
            self._opened.marks.know(versions)

    async def _found(self, asked: Asked, after: After | None) -> Features:
        columns, reading = _plain(asked.entities), self._open_once()

        async def of_any_version() -> Found:
            return await self._known.reading(lambda: self._read(reading, asked, columns))

        found = await _told((lambda: reading.marks.read_after(after, of_any_version)) if after else of_any_version)
        made = {each.output.reference: _column(each, found.at_us) for each in found.columns}
        if asked.provenance:
            for each in found.columns:
                reference = each.output.reference
                made[reference] = dataclasses.replace(made[reference], provenance=self._provenance(each, found))
        return Features(asked.entities, made, asked.count)

    async def _predictions(self, name: str, given: EntityColumns) -> Predictions:
        columns, reading = _plain(given), self._open_once()
        model = self._known.catalog.model(name)
        entities.row_count(columns, self._rows)
        plan = self._known.catalog.plan([any_output(model)])
        typed = entities.typed(plan, columns, self._known.catalog.keys)
        # No row is taken apart, of whichever version: a prediction is judged by the stamps of its inputs alone.
        found = await _told(lambda: reading.models.read(model.name, typed))
        now = reading.now_us()
        rows = [
            _prediction({key: values[row] for key, values in given.items()}, model, each, now)
            for row, each in enumerate(found)
        ]
        types = {output.name: output.type.name for output in model.outputs}
        return Predictions(model.name, model.version, types, tuple(rows))

    def _open_once(self) -> Reading:
        if self._closed:
            # A call that was under way, and would be made again.
            raise Closed("the client was closed before the answer came")
        if self._opened is None:
            self._opened = self._open()
            self._opened.marks.late = self._known.begin
        return self._opened

    def _provenance(self, column: FeatureColumn, found: Found) -> tuple[Provenance | None, ...]:
        return tuple(
            None
            if each is None
            else Provenance(topic_of(each, self._topics), each.incarnation, each.partition, each.offset, each.version)
            for each in stamps(column, found)
        )

    async def _read(self, reading: Reading, asked: Asked, columns: Mapping[str, Sequence[object]]) -> Found:
        plan = self._known.catalog.plan(self._known.catalog.references(asked.references, asked.service))
        count, wanted = entities.row_count(columns, self._rows), len(plan.outputs)
        if count * wanted > self._values:
            raise entities.too_many_values(count, wanted, self._values)
        return await reading.reader.read(plan, entities.typed(plan, columns, self._known.catalog.keys))


def _plain(given: EntityColumns) -> dict[str, Sequence[object]]:
    """As the service reads them from JSON. Raises RequestError."""
    try:
        columns: dict[str, Sequence[object]] = msgspec.to_builtins(json_columns(given), enc_hook=plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError("entities", f"holds a value that JSON has no form for: {error}") from None
    return columns


async def _told(read: Callable[[], Awaitable[_T]]) -> _T:
    """What is read; the store's errors as the client's."""
    try:
        return await read()
    except errors.Behind as error:
        raise Behind(str(error), error.lag) from error
    except StoreNotReady as error:
        raise NotReady(str(error)) from error
    except StoreError as error:
        raise Unavailable(str(error)) from error


def _column(column: FeatureColumn, at_us: int) -> Column:
    kind = column.output.feature.type.name
    return Column(
        reference=column.output.reference,
        type=kind,
        values=tuple(_values(kind, column.values)),
        statuses=tuple(column.statuses),
        event_times=tuple(map(_time, column.event_times)),
        ages=tuple(_age(us, at_us) for us in column.event_times),
        freshness=tuple(column.freshness or [None] * len(column.values)),
    )


def _values(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    if kind == "Timestamp":
        return list(map(_time, values))
    if "[Timestamp" in kind:
        return [None if value is None else list(map(_time, value)) for value in values]
    return values


def _prediction(entity: Mapping[str, Any], model: ModelSpec, told: Told, now_us: int) -> Prediction:
    given = told.values or [None] * len(model.outputs)
    return Prediction(
        entity=entity,
        values={
            output.name: _values(output.type.name, [value])[0]
            for output, value in zip(model.outputs, given, strict=True)
        },
        state=PredictionState(told.state.value),
        computed_at=_time(told.computed_at),
        read_at=_time(told.read_at),
        age=_age(told.read_at, now_us),
        inputs={name: Input(_time(at), _age(at, now_us)) for name, at in told.event_times.items()},
        refresh=Refresh(told.refresh.value),
        reason=told.reason or None,
    )


def _time(us: int | None) -> datetime.datetime | None:
    return None if us is None else instant(us)


def _age(us: int | None, now_us: int) -> datetime.timedelta | None:
    return None if us is None else datetime.timedelta(microseconds=now_us - us)


class _Seen:
    """A store whose every answer somebody else is told of too."""

    def __init__(self, online: OnlineReader, seen: Callable[[Stored], None]) -> None:
        self._online = online
        self._seen = seen

    async def read(self, keys: Sequence[bytes]) -> Stored:
        """See `stillwell.reading.online.OnlineReader`."""
        stored = await self._online.read(keys)
        self._seen(stored)
        return stored


def direct(
    settings: "Settings",
    definitions: DefinitionsSpec,
    retries: Retries,
    seen: Callable[[Stored], None] | None = None,
) -> Direct:
    """The store that the settings name, as a source. seen: told of the rows behind each answer."""
    from sinks.redis_link import RedisLink
    from sinks.redis_predictions import RedisPredictions
    from sinks.redis_reader import RedisReader

    class Open:
        def __init__(self) -> None:
            timeout = settings.serve_timeout.total_seconds()
            link = RedisLink(settings.redis_url.get_secret_value(), timeout, connections=1)
            keys = RedisKeys(settings.project, settings.namespace)
            self._rows = RedisReader(link, keys.ready, timeout)
            online = self._rows if seen is None else _Seen(self._rows, seen)
            # The store of predictions is there for who computes them; nothing here does.
            self.models = cached_readers(definitions, online, RedisPredictions(link, keys), keys, self.now_us)
            self.reader = FeatureReader(online, keys, self.now_us, self.models)
            self.marks = Marks(self._rows, keys, settings.project, definitions.views)

        def now_us(self) -> int:
            return now_us()

        async def close(self) -> None:
            await self.marks.close()
            await self.models.close()
            await self._rows.close()

    def older() -> Sequence[ViewSpec]:
        defined = {(view.name, view.version) for view in definitions.views}
        known = known_views(open_store(settings.offline_root), definitions)
        return [view for view in known.values() if (view.name, view.version) not in defined]

    return Direct(
        definitions,
        Open,
        older,
        rows=settings.serve_rows,
        values=settings.serve_values,
        retries=retries,
        topics=(*(each.topic for each in definitions.topics), *push_topics(settings.project, definitions)),
    )
