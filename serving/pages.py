"""Requests in, answers out: what each path does, and which status each error has.

Every bad request is answered by a 4xx that names the field and what to do, a store that does not answer or may have
forgotten something by a 503 with Retry-After. Each interface words errors as its own clients read them.
"""

import collections
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import structlog
from aiohttp import web

from serving import feast, v1
from serving.limits import Limits
from stillwell.errors import NotDefined, RequestError, StillwellError, StoreError
from stillwell.reading import entities
from stillwell.reading.entities import Columns
from stillwell.reading.features import FeatureReader, Found
from stillwell.reading.query import Catalog, Plan

_log = structlog.get_logger(__name__)

_MOST_PLANS = 1_000
"""Plans that are remembered. A plan of a hundred features is made in one to two milliseconds."""

_RETRY_AFTER = {"Retry-After": "1"}

_T = TypeVar("_T")
_Answer = Callable[[web.Request], Awaitable[bytes]]
_Page = Callable[[web.Request], Awaitable[web.Response]]


class Features:
    """Features for requests of any interface."""

    def __init__(self, catalog: Catalog, reader: FeatureReader, limits: Limits) -> None:
        self.catalog = catalog
        self._reader = reader
        self._limits = limits
        self._plans: collections.OrderedDict[tuple[str, ...], Plan] = collections.OrderedDict()

    def plan(self, references: Sequence[str]) -> Plan:
        """The plan for a list of features: each is made once, and of many the last ones used are kept.

        Raises RequestError.
        """
        if len(references) > self._limits.features:
            raise RequestError(
                "features", f"{len(references)} in one request; at most {self._limits.features} are allowed"
            )
        wanted = tuple(references)
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = self.catalog.plan(references)
            if len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(wanted)
        return plan

    async def find(self, plan: Plan, asked: Columns) -> Found:
        """What a plan finds for the entities of a request. Raises RequestError, and what the reader raises."""
        rows, outputs = entities.row_count(asked, self._limits.rows), len(plan.outputs)
        if rows * outputs > self._limits.values:
            raise RequestError(
                "entities",
                f"{rows} entities with {outputs} features are {rows * outputs} values; at most {self._limits.values} "
                "are allowed in one request: ask in parts",
            )
        return await self._reader.read(plan, entities.typed(plan, asked, self.catalog.keys))

    async def check(self) -> None:
        """Raise what keeps features from being read."""
        await self._reader.check()


class FeastPages:
    """The paths of Feast's feature server."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def routes(self) -> list[web.RouteDef]:
        """For an aiohttp application."""
        return [
            web.post("/get-online-features", _page(self._get_online_features, feast.error_body)),
            web.get("/health", _page(self._health, feast.error_body)),
        ]

    async def _get_online_features(self, request: web.Request) -> bytes:
        asked = _decoded(feast.online_features_request, await request.read())
        if asked.feature_service is not None:
            raise NotDefined("feature_service", f"there is no feature service {asked.feature_service!r}")
        plan = self._features.plan(asked.features)
        names = feast.names_of(plan, asked.entities, asked.full_feature_names)
        found = await self._features.find(plan, asked.entities)
        return feast.answer(names, asked.entities, found.columns)

    async def _health(self, request: web.Request) -> bytes:
        """200 where features can be read now: a service that can read none is to get no requests."""
        await self._features.check()
        return b""


class OwnPages:
    """The paths of our own interface."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def routes(self) -> list[web.RouteDef]:
        """For an aiohttp application."""
        return [
            web.post("/v1/features", _page(self._features_of_many, v1.error_body)),
            web.get("/v1/features", _page(self._features_of_one, v1.error_body)),
        ]

    async def _features_of_many(self, request: web.Request) -> bytes:
        asked = _decoded(v1.features_request, await request.read())
        plan = self._features.plan(asked.features)
        return v1.answer(asked.entities, await self._features.find(plan, asked.entities))

    async def _features_of_one(self, request: web.Request) -> bytes:
        given = v1.single(request.query)
        plan = self._features.plan(given.pop("features", "").split(","))
        entity = v1.entity_of(self._features.catalog, given)
        return v1.answer_for_one(entity, await self._features.find(plan, entity))


def _page(answer: _Answer, worded: Callable[[Exception], bytes]) -> _Page:
    """A page that answers in JSON, or words what is wrong."""

    async def page(request: web.Request) -> web.Response:
        try:
            return _json(await answer(request))
        except StillwellError as error:
            return _json(worded(error), status_of(error))
        except web.HTTPRequestEntityTooLarge:
            problem = f"has more than {request.client_max_size} bytes; ask in parts"
            return _json(worded(RequestError("body", problem)), 413)

    return page


async def nowhere(request: web.Request) -> web.Response:
    """What every path answers that nothing else does."""
    resources = ((route.method, route.resource) for route in request.app.router.routes())
    known = sorted({f"{method} {at.canonical}" for method, at in resources if at and method not in ("*", "HEAD")})
    error = NotDefined("path", f"{request.method} {request.path} is none of {', '.join(known)}")
    return _json(v1.error_body(error), status_of(error))


def _json(body: bytes, status: int = 200) -> web.Response:
    headers = _RETRY_AFTER if status == 503 else None
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """A request's body. Raises RequestError."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("body", f"{error}") from None


def status_of(error: StillwellError) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, NotDefined):
        return 404
    if isinstance(error, RequestError):
        return 422
    if isinstance(error, StoreError):
        return 503
    _log.error("cannot be answered", error=str(error))
    return 500
