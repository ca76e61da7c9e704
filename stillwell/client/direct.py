"""The store itself as a source: read by the plan of the query service, in this process, straight from Redis.

One hop less than through the service, and nobody between; but Redis must be reachable, and the definitions there, in
the version that writes.
"""

import datetime
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from stillwell import errors
from stillwell.client.errors import Behind, NotReady, Unavailable, Unsupported
from stillwell.client.predictions import Predictions
from stillwell.client.pushing import Pushed, Pushing, plain
from stillwell.client.results import Column, Features
from stillwell.client.retrying import Retries
from stillwell.client.source import Asked, Columns, json_columns, to_wait
from stillwell.errors import RequestError, StoreError, StoreNotReady
from stillwell.known_views import known_views
from stillwell.layout.projection import UnknownLayout
from stillwell.layout.redis_keys import RedisKeys
from stillwell.reading import entities
from stillwell.reading.after import After, Marks
from stillwell.reading.features import FeatureColumn, FeatureReader, Found
from stillwell.reading.online import OnlineReader, Stored
from stillwell.reading.query import Catalog
from stillwell.reading.versions import Versions
from stillwell.spec import DefinitionsSpec, ViewSpec
from stillwell.storage import open_store
from stillwell.wire import EPOCH

if TYPE_CHECKING:
    from stillwell.settings import Settings


class Reading(Protocol):
    """What is open while a store is read."""

    reader: FeatureReader
    marks: Marks

    async def close(self) -> None:
        """Close every connection."""


class _Opened(NamedTuple):
    """What there is from the first call on, until it is closed."""

    reading: Reading
    versions: Versions


class Direct:
    """One store. open: connects, in the loop of the first call. older: the views as they once were, for rows that
    other versions have written: it asks the registry, and blocks. rows, values: the most of one request, as the query
    service has them."""

    def __init__(
        self,
        definitions: DefinitionsSpec,
        open: Callable[[], Reading],
        older: Callable[[], Sequence[ViewSpec]],
        *,
        rows: int,
        values: int,
        retries: Retries,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._definitions = definitions
        self._catalog = Catalog(definitions)
        self._open = open
        self._older = older
        self._rows = rows
        self._values = values
        self._retries = retries
        self._draw = draw
        self._opened: _Opened | None = None

    async def features(self, asked: Asked, timeout: float) -> Features:
        """See `stillwell.client.source.Source`."""
        after = After(asked.after, to_wait(timeout)) if asked.after else None
        return await self._retries.until_answered("Redis", timeout, lambda: self._found(asked, after), self._draw)

    async def push(self, pushing: Pushing, timeout: float) -> Pushed:
        """See `stillwell.client.source.Source`."""
        raise Unsupported("a client that reads straight from the store cannot push: use Client(url)")

    async def predictions(self, model: str, entities: Columns, timeout: float) -> Predictions:
        """See `stillwell.client.source.Source`."""
        raise Unsupported("a client that reads straight from the store reads no predictions: use Client(url)")

    async def close(self) -> None:
        """See `stillwell.client.source.Source`."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.versions.close()
            await opened.reading.close()

    def _know(self, versions: Sequence[ViewSpec]) -> None:
        self._catalog = Catalog(self._definitions, versions)

    async def _found(self, asked: Asked, after: After | None) -> Features:
        try:
            columns: dict[str, Sequence[object]] = msgspec.to_builtins(json_columns(asked.entities), enc_hook=plain)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError("entities", f"holds a value that JSON has no form for: {error}") from None
        if self._opened is None:
            self._opened = _Opened(self._open(), Versions(self._older, self._know))
        opened = self._opened
        found = await _told(
            (lambda: opened.reading.marks.read_after(after, lambda: self._of_any_version(opened, asked, columns)))
            if after
            else (lambda: self._of_any_version(opened, asked, columns))
        )
        made = {each.output.reference: _column(each, found.at_us) for each in found.columns}
        return Features(asked.entities, made, asked.count)

    async def _of_any_version(self, opened: _Opened, asked: Asked, columns: Mapping[str, Sequence[object]]) -> Found:
        try:
            return await self._read(opened.reading, asked, columns)
        except UnknownLayout as error:
            await opened.versions.learn(error)
            return await self._read(opened.reading, asked, columns)

    async def _read(self, reading: Reading, asked: Asked, columns: Mapping[str, Sequence[object]]) -> Found:
        plan = self._catalog.plan(self._catalog.references(asked.references, asked.service))
        count, wanted = entities.row_count(columns, self._rows), len(plan.outputs)
        if count * wanted > self._values:
            raise RequestError(
                "entities",
                f"{count} entities with {wanted} features are {count * wanted} values; at most {self._values} are "
                "allowed in one request: ask in parts",
            )
        return await reading.reader.read(plan, entities.typed(plan, columns, self._catalog.keys))


async def _told(read: Callable[[], Awaitable[Found]]) -> Found:
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
    times = [None if us is None else EPOCH + datetime.timedelta(microseconds=us) for us in column.event_times]
    ages = [None if us is None else datetime.timedelta(microseconds=at_us - us) for us in column.event_times]
    return Column(
        reference=column.output.reference,
        type=kind,
        values=tuple(_values(kind, column.values)),
        statuses=tuple(column.statuses),
        event_times=tuple(times),
        ages=tuple(ages),
        freshness=tuple(column.freshness or [None] * len(column.values)),
    )


def _values(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    if kind != "Timestamp":
        return values
    return [None if us is None else EPOCH + datetime.timedelta(microseconds=us) for us in values]


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
    from sinks.redis_reader import RedisReader

    class Open:
        def __init__(self) -> None:
            timeout = settings.serve_timeout.total_seconds()
            link = RedisLink(settings.redis_url.get_secret_value(), timeout, connections=1)
            keys = RedisKeys(settings.project, settings.namespace)
            self._rows = RedisReader(link, keys.ready, timeout)
            online = self._rows if seen is None else _Seen(self._rows, seen)
            self.reader = FeatureReader(online, keys, lambda: time.time_ns() // 1_000)
            self.marks = Marks(self._rows, keys, settings.project, definitions.views)

        async def close(self) -> None:
            await self.marks.close()
            await self._rows.close()

    def older() -> Sequence[ViewSpec]:
        defined = {(view.name, view.version) for view in definitions.views}
        known = known_views(open_store(settings.offline_root), definitions)
        return [view for view in known.values() if (view.name, view.version) not in defined]

    return Direct(definitions, Open, older, rows=settings.serve_rows, values=settings.serve_values, retries=retries)
