"""Requests in, answers out: what each path does.

Every bad request is answered by a 4xx that names the field and what to do, a store that does not answer or may have
forgotten something by a 503 with Retry-After. Each interface words errors as its own clients read them.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from serving import arrow, described, feast, v1
from serving.as_json import encode
from serving.features import MOST_PLANS, Features
from serving.lru import LruCache
from serving.messages import Reply, Request
from serving.mistakes import mistake
from serving.web import Page
from stillwell.errors import RequestError
from stillwell.reading import entities
from stillwell.reading.after import after
from stillwell.reading.catalog import Catalog
from stillwell.reading.plan import Plan

_T = TypeVar("_T")

_MOST_ALIKE = 16 * 1024
"""Bytes of a list of features that is remembered as it was written: 250 names of 64 bytes. More may be spaces."""


class FeastPages:
    """The paths of Feast's feature server."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._named: LruCache[tuple[Catalog, Plan, bytes]] = LruCache(MOST_PLANS)

    def pages(self) -> list[Page]:
        """For a site."""
        return [
            Page(
                "POST",
                "/get-online-features",
                self._get_online_features,
                feast.error_body,
                described=described.get_online_features(self._features.names),
            ),
            Page("GET", "/health", self._health, feast.error_body, vital=True, described=described.health()),
            *(
                Page("POST", path, _refusal(path, why), feast.error_body, words=None)
                for path, why in feast.NOT_ANSWERED.items()
            ),
        ]

    async def _get_online_features(self, request: Request) -> bytes:
        asked = decoded(feast.asked_alike, request.body, feast.OnlineFeaturesRequest)
        features, full, entities = self._features, asked.full_feature_names, asked.entities
        catalog, written = features.catalog, bytes(asked.features)
        alike = (written, full, asked.feature_service, *entities)
        kept = self._named.find(alike)  # the plan, and the names of the answer's columns in JSON
        if kept is not None and kept[0] is not catalog:
            kept = None
        if kept:
            plan = kept[1]
        else:
            whole = decoded(feast.online_features_request, request.body)
            plan = features.plan(catalog.references(whole.features, whole.feature_service))
        token, timeout_ms = request.header(b"stillwell-after"), request.header(b"stillwell-timeout-ms")
        wait = after(token, _milliseconds(timeout_ms)) if token or timeout_ms else None
        found = await features.find_after(plan, entities, wait, request.only_waits)
        if kept:
            return feast.answer(kept[2], entities, found)
        # Only now: names that no entity has, of any length, are refused before they could be kept.
        names = encode(feast.names_of(plan, entities, full))
        if len(written) <= _MOST_ALIKE:
            self._named.keep(alike, (catalog, plan, names))
        return feast.answer(names, entities, found)

    async def _health(self, request: Request) -> Reply:
        """200 where features can be read now: a service that can read none is to get no requests."""
        await self._features.check()
        return Reply(b"", type="")


def _refusal(path: str, why: str) -> Callable[[Request], Awaitable[bytes]]:
    """What answers a path of Feast's that is not answered here, in the words that its clients raise."""

    async def refuse(request: Request) -> bytes:
        raise RequestError("path", f"{path} is not answered: it {why}")

    return refuse


class OwnPages:
    """The paths of our own interface."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def pages(self) -> list[Page]:
        """For a site."""
        return [
            Page("POST", "/v1/features", self._features_of_many, v1.error_body, described=described.features_of_many()),
            Page(
                "GET",
                "/v1/features",
                self._features_of_one,
                v1.error_body,
                words=None,
                described=described.features_of_one(self._features.names),
            ),
        ]

    async def _features_of_many(self, request: Request) -> bytes | Reply:
        asked = decoded(v1.features_request, request.body)
        plan = self._features.plan(self._features.catalog.references(asked.features, asked.feature_service))
        wait = after(asked.after, asked.timeout_ms)
        if arrow.STREAM not in request.header(b"accept"):
            found = await self._features.find_after(plan, asked.entities, wait, request.only_waits)
            return v1.answer(asked.entities, found, self._features.topics if asked.provenance else None)
        if asked.provenance:
            raise RequestError("provenance", "is not in tables of Arrow; ask for JSON, or leave it away")
        found = await self._features.find_after(plan, asked.entities, wait, request.only_waits)
        given = entities.typed(plan, asked.entities, self._features.catalog.keys)
        return Reply(arrow.answer(plan.columns, given, found), type=arrow.STREAM)

    async def _features_of_one(self, request: Request) -> bytes:
        given = v1.single(request.query)
        catalog, service = self._features.catalog, given.pop("feature_service", None)
        features = given.pop("features", "")
        plan = self._features.plan(catalog.references(features.split(",") if features else [], service))
        wait = after(given.pop("after", ""), _milliseconds(given.pop("timeout_ms", "")))
        provenance = _truth("provenance", given.pop("provenance", "false"))
        entity = v1.entity_of(plan, catalog.keys, given)
        found = await self._features.find_after(plan, entity, wait, request.only_waits)
        return v1.answer_for_one(entity, found, self._features.topics if provenance else None)


def _milliseconds(text: str) -> int | None:
    """A number of them from a URL or a header. Raises RequestError."""
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RequestError("timeout_ms", f"must be a whole number of milliseconds, not {text[:40]!r}")
    return int(text) if text else None


def _truth(name: str, text: str) -> bool:
    """What a word of a URL says, which is true or false. Raises RequestError."""
    if text not in ("true", "false"):
        raise RequestError(name, f"must be true or false, not {text[:40]!r}")
    return text == "true"


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes, takes: type | None = None) -> _T:
    """A request's body. takes: what errors say that it should be, if that is not what it is decoded to. Raises
    RequestError."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise mistake(takes or decoder.type, body, error) from None
