"""The client: features of entities, from the query service or straight from the store."""

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from stillwell.client.results import Features
from stillwell.client.retrying import Retries
from stillwell.client.service import at as service_at
from stillwell.client.source import Asked, Source
from stillwell.errors import RequestError
from stillwell.pushing.token import Token

if TYPE_CHECKING:
    from stillwell.settings import Settings

_Number = TypeVar("_Number", int, float)

Entities = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""One entity, as its keys; several, as lists of keys; or a list of entities."""

TIMEOUT = 3.0
"""Seconds that a call has, from its start to its end, unless it says otherwise: attempts and pauses included."""


class Client:
    """Reads features. For one event loop; `async with`, or `close` it.

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

    @classmethod
    def direct(
        cls, settings: "Settings | None" = None, *, timeout: float = TIMEOUT, retries: Retries | None = None
    ) -> Self:
        """A client that reads straight from Redis, without a service: features alone.

        settings: where the store is and which definitions it was filled by; those of the environment, if none are
        given. Raises SettingsError and DefinitionError.
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
        return made

    async def features(
        self,
        features: str | Sequence[str],
        entities: Entities,
        *,
        after: Token | str | None = None,
        timeout: float | None = None,
    ) -> Features:
        """Features of entities, each with what it is worth.

        features: references, `<view>:<feature>`, or the name of a feature service. after: the token of a push, whose
        rows must be in what is read. timeout: seconds, in place of the client's own.

        Raises RequestError, NotDefined, Unavailable, NotReady, Behind, TimedOut and WrongAnswer.
        """
        return await self._source.features(Asked.of(features, entities, after), self._within(timeout))

    async def close(self) -> None:
        """Close every connection. Calls under way fail."""
        await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _within(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else _positive("timeout", timeout)


def _positive(name: str, value: _Number) -> _Number:
    if not (value > 0 and math.isfinite(value)):
        raise RequestError(name, f"must be more than nothing, not {value!r}")
    return value
