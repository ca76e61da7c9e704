"""The client: features of entities read, from the query service or straight from the store, and rows pushed."""

import math
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from stillwell.client.errors import Closed
from stillwell.client.named import model_of, view_of
from stillwell.client.parts import pushed_in_parts
from stillwell.client.predictions import Predictions
from stillwell.client.pushed import Mode, Pushed, Pushing, To
from stillwell.client.pusher import Pusher
from stillwell.client.results import Features
from stillwell.client.retrying import Retries
from stillwell.client.service import at as service_at
from stillwell.client.source import After, Asked, Entities, Source, columns_of
from stillwell.errors import RequestError

if TYPE_CHECKING:
    from stillwell.client.named import Asking, NamedModel, NamedView
    from stillwell.settings import Settings

_Number = TypeVar("_Number", int, float)

_MOST_KEY_CHARACTERS = 200
"""Of a pusher's idempotency key."""

TIMEOUT = 3.0
"""Seconds that a call has, from its start to its end, unless it says otherwise: attempts and pauses included."""


class Client:
    """Reads features and pushes rows. For one event loop; `async with`, or `close` it.

    async with Client("http://127.0.0.1:6566") as client:
        found = await client.features(["AirportDepartures:late"], {"airport": "JFK"})
        found.one()["AirportDepartures:late"].value
    """

    def __init__(
        self, url: str, *, timeout: float = TIMEOUT, connections: int = 32, retries: Retries | None = None
    ) -> None:
        """url: the root of a query service. timeout: seconds for each call. connections: at most so many at once.

        Nothing is connected before the first call. Raises RequestError for what is no URL.
        """
        self._source: Source = service_at(url, _positive("connections", connections), retries or Retries())
        self._timeout = _positive("timeout", timeout)
        self._closed = False

    @classmethod
    def direct(
        cls, settings: "Settings | None" = None, *, timeout: float = TIMEOUT, retries: Retries | None = None
    ) -> Self:
        """A client that reads straight from Redis, without a service: features, and predictions as they are there.

        It never has a prediction computed, whatever its model's policy is, and cannot push. settings: where the store
        is and which definitions it was filled by; those of the environment, if none are given. Raises SettingsError and
        DefinitionError.
        """
        from stillwell.client.direct import direct
        from stillwell.definitions.loading import load_definitions
        from stillwell.settings import Settings

        settings = settings or Settings.load()
        definitions = load_definitions(settings.definitions)
        return cls.of(direct(settings, definitions, retries or Retries()), timeout=timeout)

    @classmethod
    def of(cls, source: Source, *, timeout: float = TIMEOUT) -> Self:
        """A client of another source."""
        made = cls.__new__(cls)
        made._source = source
        made._timeout = _positive("timeout", timeout)
        made._closed = False
        return made

    async def features(
        self,
        features: "Asking",
        entities: Entities,
        *,
        after: After = None,
        provenance: bool = False,
        timeout: float | None = None,
    ) -> Features:
        """Features of entities, each with what it is worth.

        features: references, `"<view>:<feature>"` or `View.feature`, or a feature service or its name. A view, alias,
        on-demand view, model or feature service among references stands for all that it has. after: the tokens of
        pushes whose rows must be in what is read. provenance: also say which record each value was made of. timeout:
        seconds, in place of the client's own.

        Raises RequestError, NotDefined, Unavailable, NotReady, Behind, TimedOut, WrongAnswer and Closed.
        """
        asked = Asked.of(features, entities, after, provenance)
        return await self._open().features(asked, self._within(timeout))

    async def predictions(
        self, model: "NamedModel", entities: Entities, *, timeout: float | None = None
    ) -> Predictions:
        """A model's predictions for entities, each with what it is worth.

        model: the class, or its name. entities: as for features; request values of the model's inputs stand beside the
        keys. Whether this waits for the model is the model's policy; it waits no longer than the call has time.

        Raises RequestError, NotDefined, Unavailable, NotReady, TimedOut, WrongAnswer and Closed.
        """
        return await self._open().predictions(model_of(model), columns_of(entities), self._within(timeout))

    async def push(
        self,
        view: "NamedView",
        rows: Any,
        *,
        mode: Mode = "sync",
        to: To = "online_and_offline",
        transform_on_write: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Pushed:
        """Push rows to a view, and say what became of each.

        view: the class, or its name. rows: one mapping, several, or a table of Polars, pandas or Arrow: events of the
        view's topic by its columns, or with `transform_on_write=False` finished rows, with keys, `event_timestamp` and
        features. mode: `sync` answers once they are in Redis, `async` once Kafka holds them. idempotency_key: with one,
        a push whose answer was lost is sent again; without, only one of which nothing was sent.

        More than 500 rows, or 512 KiB of them, are sent in parts, one after the other, each within `timeout` and with
        the idempotency key and its number. What is given back is of all; where a part fails after others were taken,
        PartlyPushed says which.

        Raises RequestError, NotDefined, Unavailable, NotReady, NotWritten, Unconfirmed, PartlyPushed, WrongAnswer,
        Unsupported and Closed.
        """
        whole = Pushing(view_of(view), (), mode, to, transform_on_write, idempotency_key)
        within = self._within(timeout)
        return await pushed_in_parts(lambda part: self._open().push(part, within), whole, rows)

    def pusher(
        self,
        view: "NamedView",
        *,
        max_rows: int = 500,
        max_delay: float = 0.01,
        max_bytes: int = 512 * 1024,
        max_waiting: int = 10_000,
        concurrent: int = 4,
        mode: Mode = "sync",
        to: To = "online_and_offline",
        transform_on_write: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Pusher:
        """Push rows one by one, sent together: see Pusher for the limits, and `push` for the rest.

        idempotency_key: a text of your own, under which the same rows in the same order, pushed again by another
        pusher, are not taken twice. Without, each batch has one of its own, for its own repetitions.

        async with client.pusher("LastOrder") as pusher:
            receipt = await pusher.push({"customer": "ada", …})
            …
            (await receipt).status
        """
        within, name = self._within(timeout), view_of(view)
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= _MOST_KEY_CHARACTERS:
            said = f"must have 1 to {_MOST_KEY_CHARACTERS} characters: the numbers of batches come behind it"
            raise RequestError("idempotency_key", said)

        def send(rows: tuple[msgspec.Raw, ...], key: str) -> Awaitable[Pushed]:
            return self._open().push(Pushing(name, rows, mode, to, transform_on_write, key), within)

        return Pusher(
            send,
            max_rows=_positive("max_rows", max_rows),
            max_delay=_positive("max_delay", max_delay),
            max_bytes=_positive("max_bytes", max_bytes),
            max_waiting=_positive("max_waiting", max_waiting),
            concurrent=_positive("concurrent", concurrent),
            idempotency_key=idempotency_key,
        )

    async def close(self) -> None:
        """Close every connection. Calls under way fail, and later ones raise Closed."""
        self._closed = True
        await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> Source:
        if self._closed:
            raise Closed("the client is closed: make another one")
        return self._source

    def _within(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else _positive("timeout", timeout)


def _positive(name: str, value: _Number) -> _Number:
    if not (value > 0 and math.isfinite(value)):
        raise RequestError(name, f"must be more than nothing, not {value!r}")
    return value
