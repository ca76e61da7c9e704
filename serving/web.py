"""HTTP, as far as the query service needs it: pages by method and path, and what no client may do to the others.

A page is a function from a request to a body. What goes wrong in it is an error of `stillwell.errors`, and becomes a
status and a body that says what to do, in the words of the page's interface. Bytes of connections are the business of
`serving.connections`.
"""

import asyncio
import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from serving.messages import JSON, Late, Reply, Request
from serving.unpacking import ENCODINGS, Broken, TooLarge, UnknownEncoding
from stillwell.errors import Behind, NotDefined, RequestError, StillwellError, StoreError, StoreUnavailable
from stillwell.logs import LogLimit

_log = structlog.get_logger(__name__)

_BODIES: Final = (JSON, "application/x-www-form-urlencoded", "application/octet-stream", "text/plain")
"""What a JSON body may be announced as: `curl -d` calls everything a form, and Feast's client says nothing at all."""

_RETRY_AFTER: Final = (("Retry-After", "1"),)
"""Seconds after which there may be an answer: no promise, and long enough that who waits so is no storm."""


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


_NO_URL: Final = ("Expected HTTP/", "Invalid char in url")
"""What llhttp says of a first line whose URL holds a space, or a character that a URL cannot have."""

Observe = Callable[[str, int, float], None]
"""Told of each request: the path of its page, the status, and the seconds that it took."""

NOWHERE: Final = "(none)"
"""In the place of a path that there is not: what clients make up must not become labels."""


class _NoJson(Exception):
    """A body is announced as something else; says as what."""


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
        self._unexpected = LogLimit()
        self._unanswered = LogLimit()

    @property
    def pages(self) -> Mapping[tuple[str, str], Page]:
        """By method and path."""
        return self._pages

    async def __call__(self, request: Request) -> Reply:
        """Answer a request, whatever becomes of it."""
        begun = time.perf_counter()
        page = self._pages.get((request.method, request.target)) or self._pages.get((_method(request), request.path))
        self.in_flight += 1
        try:
            if page is None:
                reply = self._nowhere(request)
            elif self.in_flight > self.bounds.in_flight and not page.vital:
                reply = self._too_many(page)
            else:
                if page.words is not None and "?" in request.target:
                    _require_known(request.query, page.words)
                if page.method != "GET":
                    # What has come with the head, as nearly always, is not waited for.
                    if not request.take(self.bounds.body):
                        await request.read(self.bounds.body, self.bounds.patience)
                    if request.body and not _is_json(announced := request.header(b"content-type")):
                        raise _NoJson(announced)
                answer = await page.answer(request)
                reply = answer if isinstance(answer, Reply) else Reply(answer)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            assert page is not None
            reply = self._refused(page, error)
        finally:
            self.in_flight -= 1
        if self.ending:
            reply.close = True
        self._observe(page.path if page else NOWHERE, reply.status, time.perf_counter() - begun)
        return reply

    def _refused(self, page: Page, error: BaseException) -> Reply:
        """What is said of an error. Where a body was not read to its end, the connection ends with that."""
        match error:
            case StillwellError():
                status = status_of(error)
                self._tell(error, status)
                return Reply(page.worded(error), status, headers=_RETRY_AFTER if status == 503 else ())
            case _NoJson():
                wrong = RequestError("Content-Type", f"must be {JSON} in UTF-8, not {_short(str(error))!r}")
                return Reply(page.worded(wrong), 415)
            case UnknownEncoding():
                known = ", ".join(ENCODINGS)
                wrong = RequestError(
                    "Content-Encoding", f"{_short(str(error))!r} is not read here; use {known}, or none"
                )
                return Reply(page.worded(wrong), 415)
            case TooLarge():
                problem = f"has more than {self.bounds.body} bytes; ask in parts"
                return Reply(page.worded(RequestError("body", problem)), 413, close=True)
            case Late():
                problem = f"did not come within {self.bounds.patience:g} s; send it at once"
                return Reply(page.worded(RequestError("body", problem)), 408, close=True)
            case Broken():
                return Reply(page.worded(RequestError("body", f"cannot be read: {error}")), 400, close=True)
        if (silent := self._unexpected.times()) is not None:
            told = "cannot be answered, which is a mistake of Stillwell's"
            _log.error(told, path=page.path, silent=silent, exc_info=error)
        return Reply(page.worded(StillwellError("Stillwell made a mistake; its log says where")), 500)

    def _tell(self, error: StillwellError, status: int) -> None:
        """Say in the log what no client can mend: of each kind of error once in a while, since messages name what rows
        hold."""
        if status in (500, 503) and (silent := self._unanswered.times(type(error).__name__)) is not None:
            say = _log.error if status == 500 else _log.warning
            say("cannot be answered", status=status, error=str(error), silent=silent)

    def unreadable(self, problem: str, came: bytes) -> Reply:
        """What is said of bytes that are no HTTP. problem: in the words of llhttp. came: the bytes, or the last of
        them."""
        error = RequestError("HTTP", problem)
        if any(each in problem for each in _NO_URL):
            line = came.partition(b"\r\n")[0].decode("utf-8", "backslashreplace")
            error = RequestError(
                "url",
                "must have the codes of spaces and of all that is no ASCII, a space as %20 and é as %C3%A9, not "
                f"{_short(line)!r}; curl writes them with -G --data-urlencode 'name=a b'",
            )
        return Reply(self._worded(error), 400, close=True)

    def long_head(self, most: int) -> Reply:
        """What is said of a head that has more bytes than it may."""
        error = RequestError("HTTP", f"a request's URL and headers have at most {most} bytes; ask by a POST")
        return Reply(self._worded(error), 431, close=True)

    def _too_many(self, page: Page) -> Reply:
        self.turned_away += 1
        error = StoreUnavailable(f"{self.bounds.in_flight} requests are under way already; ask again in a second")
        return Reply(page.worded(error), 503, headers=_RETRY_AFTER)

    def _nowhere(self, request: Request) -> Reply:
        """What is said where there is no page: which there are."""
        methods = self._methods.get(request.path)
        if methods is None:
            known = ", ".join(f"{method} {path}" for path, at in sorted(self._methods.items()) for method in at)
            error = NotDefined("path", f"{request.method} {_short(request.path)} is none of {known}")
            return Reply(self._worded(error), 404)
        allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if request.method == "OPTIONS":
            return Reply(b"", 204, headers=(("Allow", allowed),))
        wrong = RequestError("method", f"{_short(request.method)} is not answered at {request.path}; use {allowed}")
        return Reply(self._worded(wrong), 405, headers=(("Allow", allowed),))


def _is_cancelled() -> bool:
    """Whether it is this task that is cancelled, and not something that a page waited for together with others."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _method(request: Request) -> str:
    return "GET" if request.method == "HEAD" else request.method


def _short(text: str) -> str:
    """What a client sent, as far as it is shown to it again."""
    return text if len(text) <= 100 else f"{text[:100]}…"


def _require_known(query: Iterable[tuple[str, str]], words: frozenset[str]) -> None:
    for word, _ in query:
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
    return 503 if isinstance(error, StoreError) else 500
