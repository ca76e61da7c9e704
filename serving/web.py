"""HTTP, as far as the query service needs it: pages by method and path, and what no client may do to the others.

aiohttp takes requests apart; finding a page and writing an answer are done here, because aiohttp's own application,
router and response cost as much as reading ten features does (a bare page answers 26 thousand requests a second so, and
17 to 19 thousand by an application of aiohttp's; both on uvloop, one core).

A page is a function from a request to a body. What goes wrong in it is an error of `stillwell.errors`, and becomes a
status and a body that says what to do, in the words of the page's interface.
"""

import asyncio
import dataclasses
import email.utils
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import MultiMapping

from stillwell.errors import Behind, NotDefined, RequestError, StillwellError, StoreError, StoreUnavailable
from stillwell.logs import LogLimit

_log = structlog.get_logger(__name__)

JSON: Final = "application/json"

_BODIES: Final = (JSON, "application/x-www-form-urlencoded", "application/octet-stream", "text/plain")
"""What a JSON body may be announced as: `curl -d` calls everything a form, and Feast's client says nothing at all."""

_RETRY_AFTER: Final = (("Retry-After", "1"),)

_REASONS: Final = {
    200: "OK",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What clients may take, each of one process.

    body: bytes of a request's. in_flight: requests at once. connections: at once. patience: seconds in which a client
    must have sent what it has begun to send, and taken what it is sent. idle: seconds that a connection stays open on
    which nothing is asked.
    """

    body: int = 1024 * 1024
    in_flight: int = 1_000
    connections: int = 4_000
    patience: float = 10.0
    idle: float = 75.0


class Request:
    """What a page is asked. body: whole, b"" where there is none."""

    __slots__ = ("_http", "body")

    def __init__(self, http: web.BaseRequest, body: bytes) -> None:
        self._http = http
        self.body = body

    @property
    def query(self) -> MultiMapping[str]:
        """The words behind the `?`."""
        return self._http.query

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        return self._http.headers.get(name, "")


class Reply:
    """An answer, for aiohttp to send in the place of a response of its own: it calls `prepare`, then `write_eof`."""

    __slots__ = ("_http", "body", "close", "headers", "keep_alive", "status", "type")

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        type: str = JSON,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        close: bool = False,
    ) -> None:
        """type: of the body. close: whether the connection is to end with it."""
        self.body = body
        self.status = status
        self.type = type
        self.headers = headers
        self.close = close
        self.keep_alive = False
        self._http: web.BaseRequest | None = None

    async def prepare(self, http: web.BaseRequest) -> None:
        """Called by aiohttp."""
        self._http = http

    async def write_eof(self) -> None:
        """Called by aiohttp: send it. Raises ConnectionError where nobody can take it any more."""
        http = self._http
        assert http is not None
        transport = http.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        # A client of HTTP/1.0 would have to be told that the connection stays; it is not worth it.
        self.keep_alive = http.keep_alive and not self.close and http.version.minor == 1
        head = _head(self.status, self.type, self.headers, not self.keep_alive)
        if self.status == 204:
            transport.write(b"%bDate: %b\r\n\r\n" % (head, _date()))
        else:
            body = b"" if http.method == "HEAD" else self.body
            transport.write(b"%bDate: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, _date(), len(self.body), body))
        protocol = http.protocol
        if protocol.writing_paused:
            await _taken(http, protocol)


async def _taken(http: web.BaseRequest, protocol: RequestHandler) -> None:
    """Wait until a client that reads slowly has taken what it was sent. Raises ConnectionError for one too slow."""
    assert isinstance(protocol, _Connection)
    try:
        async with asyncio.timeout(protocol.site.bounds.patience):
            await protocol._drain_helper()
    except TimeoutError:
        if http.transport:
            http.transport.abort()
        raise ConnectionResetError("the client takes its answer too slowly") from None


@functools.lru_cache(maxsize=256)
def _head(status: int, type: str, headers: tuple[tuple[str, str], ...], close: bool) -> bytes:
    """An answer's first lines, to which date and length are still to be added."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    if type and status != 204:
        lines.append(f"Content-Type: {type}")
    lines += [f"{name}: {value}" for name, value in headers]
    if close:
        lines.append("Connection: close")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def _date() -> bytes:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=2)
def _date_of(second: int) -> bytes:
    return email.utils.formatdate(second, usegmt=True).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What is answered to a method at a path.

    answer: gives the body of a 200, or a whole reply. worded: an error's body, as the clients of this interface read
    it. words: those that its query string may have; None where the page looks itself. vital: answered even where there
    are too many requests, as probes must be. described: what the OpenAPI document says of it, as an operation.
    """

    method: str
    path: str
    answer: Callable[[Request], Awaitable[bytes | Reply]]
    worded: Callable[[Exception], bytes]
    words: frozenset[str] | None = frozenset()
    vital: bool = False
    described: Mapping[str, Any] | None = None


_UNANSWERED = LogLimit(5.0)
"""What a page raises that only its owner can mend: by the kind of error, since messages name what rows hold."""

Observe = Callable[[str, int, float], None]
"""Told of each request: the path of its page, the status, and the seconds that it took."""

NOWHERE: Final = "(none)"
"""In the place of a path that there is not: what clients make up must not become labels."""


class Site:
    """Pages, and the bounds that hold for all who ask for them."""

    def __init__(
        self, pages: Iterable[Page], worded: Callable[[Exception], bytes], bounds: Bounds, observe: Observe
    ) -> None:
        """worded: how an error is worded where there is no page."""
        self.bounds = bounds
        self.in_flight = 0
        self.open = 0
        self.turned_away = 0
        self.ending = False
        self._worded = worded
        self._observe = observe
        self._pages = {(page.method, page.path): page for page in pages}
        self._methods: dict[str, list[str]] = {}
        for method, path in sorted(self._pages):
            self._methods.setdefault(path, []).append(method)
        self._unexpected = LogLimit(5.0)

    @property
    def pages(self) -> Mapping[tuple[str, str], Page]:
        """By method and path."""
        return self._pages

    async def __call__(self, http: web.BaseRequest) -> Reply:
        """Answer a request, whatever becomes of it."""
        begun = time.perf_counter()
        page = self._pages.get((http.method, http.raw_path)) or self._pages.get((_method(http), http.path))
        self.in_flight += 1
        try:
            if page is None:
                reply = self._nowhere(http)
            elif self.in_flight > self.bounds.in_flight and not page.vital:
                reply = self._too_many(page)
            else:
                reply = await self._answered(page, http)
        finally:
            self.in_flight -= 1
        if self.ending:
            reply.close = True
        self._observe(page.path if page else NOWHERE, reply.status, time.perf_counter() - begun)
        return reply

    async def _answered(self, page: Page, http: web.BaseRequest) -> Reply:
        try:
            if page.words is not None and http.query_string:
                _require_known(http.query, page.words)
            content = http.content
            if page.method == "GET":
                body = b""
            elif content.is_eof():
                # All of it has come with the head, as it does for all but large ones.
                body = content.read_nowait()
                if len(body) > self.bounds.body:
                    raise web.HTTPRequestEntityTooLarge(self.bounds.body)
            else:
                body = await self._body(http)
            if body and not _is_json(http.headers.get("Content-Type", "")):
                announced = _short(http.headers["Content-Type"])
                wrong = RequestError("Content-Type", f"must be {JSON} in UTF-8, not {announced!r}")
                return Reply(page.worded(wrong), 415)
            answer = await page.answer(Request(http, body))
        except StillwellError as error:
            status = status_of(error)
            return Reply(page.worded(error), status, headers=_RETRY_AFTER if status == 503 else ())
        except web.HTTPRequestEntityTooLarge:
            problem = f"has more than {self.bounds.body} bytes; ask in parts"
            # The rest of it is not read.
            return Reply(page.worded(RequestError("body", problem)), 413, close=True)
        except _Late:
            problem = f"did not come within {self.bounds.patience:g} s; send it at once"
            return Reply(page.worded(RequestError("body", problem)), 408, close=True)
        except web.RequestPayloadError as error:
            return Reply(page.worded(RequestError("body", f"cannot be read: {error}")), 400, close=True)
        except Exception:
            if (silent := self._unexpected.times()) is not None:
                _log.exception("cannot be answered, which is a mistake of Stillwell's", path=page.path, silent=silent)
            return Reply(page.worded(StillwellError("Stillwell made a mistake; its log says where")), 500)
        return answer if isinstance(answer, Reply) else Reply(answer)

    async def _body(self, http: web.BaseRequest) -> bytes:
        """A body that is still coming. Raises _Late, and what aiohttp raises."""
        if "100-continue" in http.headers.get("Expect", "").lower() and http.transport:
            http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self.bounds.patience):
                return await http.read()
        except TimeoutError:
            raise _Late from None

    def _too_many(self, page: Page) -> Reply:
        self.turned_away += 1
        error = StoreUnavailable(f"{self.bounds.in_flight} requests are under way already; ask again in a second")
        return Reply(page.worded(error), 503, headers=_RETRY_AFTER)

    def _nowhere(self, http: web.BaseRequest) -> Reply:
        """What is said where there is no page: which there are."""
        methods = self._methods.get(http.path)
        if methods is None:
            known = ", ".join(f"{method} {path}" for path, at in sorted(self._methods.items()) for method in at)
            error = NotDefined("path", f"{http.method} {_short(http.path)} is none of {known}")
            return Reply(self._worded(error), 404)
        allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if http.method == "OPTIONS":
            return Reply(b"", 204, headers=(("Allow", allowed),))
        wrong = RequestError("method", f"{_short(http.method)} is not answered at {http.path}; use {allowed}")
        return Reply(self._worded(wrong), 405, headers=(("Allow", allowed),))


class _Late(Exception):
    """A body did not come in time. Not TimeoutError, which would also be one of ours that a page lets through."""


def _method(http: web.BaseRequest) -> str:
    return "GET" if http.method == "HEAD" else http.method


def _short(text: str) -> str:
    """What a client sent, as far as it is shown to it again."""
    return text if len(text) <= 100 else f"{text[:100]}…"


def _require_known(query: MultiMapping[str], words: frozenset[str]) -> None:
    for word in query:
        if word not in words:
            known = ", ".join(sorted(words)) or "none"
            raise RequestError(_short(word), f"is no word that the URL of this path may have; there is: {known}")


@functools.lru_cache(maxsize=256)
def _is_json(content_type: str) -> bool:
    """Whether a body that is announced so may be JSON in UTF-8."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [each.partition("=")[2].strip("\"' ") for each in parameters if each.startswith("charset=")]
    return (kind in ("", *_BODIES) or kind.endswith("+json")) and set(charsets) <= {"utf-8", "utf8", "us-ascii"}


def status_of(error: StillwellError) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, NotDefined):
        return 404
    if isinstance(error, RequestError):
        return 422
    if isinstance(error, Behind):
        return 504
    if isinstance(error, StoreError):
        return 503
    if (silent := _UNANSWERED.times(type(error).__name__)) is not None:
        _log.error("cannot be answered", error=str(error), silent=silent)
    return 500


class Server(web.Server):
    """Makes a connection's protocol for each that comes, or turns it away."""

    def __init__(self, site: Site) -> None:
        super().__init__(
            site,  # type: ignore[arg-type]  # a Reply is sent as a response is, and is none
            request_factory=functools.partial(_request, site.bounds.body),
            access_log=None,
            keepalive_timeout=site.bounds.idle,
            lingering_time=site.bounds.patience,
        )
        self.site = site

    def __call__(self) -> Any:
        """Called for each connection."""
        if self.site.ending or self.site.open >= self.site.bounds.connections:
            self.site.turned_away += 1
            return _TurnedAway()
        return _Connection(self.site, self, **self._kwargs)


def _request(
    most: int, message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: Any
) -> web.BaseRequest:
    loop = protocol._loop
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=most)


class _Connection(RequestHandler):
    """A connection, which ends where a request that has begun does not come on."""

    __slots__ = ("_begun", "_seen", "site")

    def __init__(self, site: Site, server: Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self.site = site
        self._begun: asyncio.TimerHandle | None = None
        self._seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.site.open += 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop."""
        self.site.open -= 1
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        super().data_received(data)
        if self._request_count != self._seen:
            self._seen = self._request_count
            self._stop()
        elif self._begun is None and self._waiter is not None and not self._waiter.done():
            # Part of a head: aiohttp would wait for the rest as long as for a new request. A body has its own deadline.
            self._begun = self._loop.call_later(self.site.bounds.patience, self._late)

    def _stop(self) -> None:
        if self._begun:
            self._begun.cancel()
            self._begun = None

    def _late(self) -> None:
        self._begun = None
        self.force_close()


class _TurnedAway(asyncio.Protocol):
    """A connection too many: told so once it asks, and ended."""

    _answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
    )
    _body = (
        b'{"error":{"kind":"StoreUnavailable","field":null,"message":"there are too many connections; '
        b'ask again in a second"}}'
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._end = asyncio.get_running_loop().call_later(1.0, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if not self._transport.is_closing():
            self._transport.write(self._answer % (len(self._body), self._body))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._end.cancel()
