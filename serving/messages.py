"""Requests and replies of HTTP, as pages have them; and what goes wrong with a body on its way."""

import asyncio
import contextlib
import email.utils
import functools
import time
from collections.abc import Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import unquote

from serving.query_string import words_of
from serving.unpacking import Body, Broken, TooLarge

JSON: Final = "application/json"

READ_AHEAD: Final = 2**16
"""Bytes of a body that wait for its page, or of several that are whole; with more, and what the system hands over at
once, no more is read. Any connection can have so much behind a request that takes long."""

BEGINNING: Final = b"HTTP/1.1 "
"""What every answer begins with, whatever it says."""

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
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Flow(Protocol):
    """The connection that a request comes by."""

    def go_on(self) -> None:
        """Tell a client that waits for it to send the body."""

    def taken(self) -> None:
        """Some of the body was taken."""

    def only_waits(self) -> contextlib.AbstractContextManager[None]:
        """While it is entered the request waits, and ends with its client."""


class Request:
    """What a page is asked. method, target: of its first line, the target with its query string, as they came. stays:
    whether the client would have the connection stay. body: once it has been read, b"" before. whole: whether all of it
    has come. size: bytes of it that have come and were not read."""

    __slots__ = (
        "_broken",
        "_flow",
        "_headers",
        "_parts",
        "_reader",
        "body",
        "method",
        "size",
        "stays",
        "target",
        "whole",
    )

    def __init__(self, method: str, target: str, headers: Mapping[bytes, bytes], stays: bool, flow: Flow) -> None:
        """headers: by their names in small letters."""
        self.method = method
        self.target = target
        self.stays = stays
        self.body = b""
        self.whole = False
        self._headers = headers
        self._flow = flow
        self._parts: list[bytes] = []
        self.size = 0
        self._reader: asyncio.Future[None] | None = None
        self._broken: str | None = None

    @property
    def path(self) -> str:
        """Without the query string, decoded."""
        return unquote(self._split[0])

    @property
    def query(self) -> Iterable[tuple[str, str]]:
        """The words behind the `?`, each with its text. To go through them raises RequestError at one that cannot be
        read."""
        return words_of(self._split[1])

    @property
    def _split(self) -> tuple[str, str]:
        """Path and query string. Who asks a proxy names the host as well."""
        target = self.target.partition("#")[0]
        if not target.startswith("/") and "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        return path, query

    def header(self, name: bytes) -> str:
        """A header, "" where there is none; of several the first. name: in small letters."""
        value = self._headers.get(name)
        return "" if value is None else value.decode("latin-1").strip(" \t")

    def only_waits(self) -> contextlib.AbstractContextManager[None]:
        """Enter it while nothing is done but to wait for what nobody else waits for by way of here: where the client
        goes meanwhile, the task is cancelled there, and nowhere else. A write that has begun comes to its end, and work
        that others share is not theirs to lose."""
        return self._flow.only_waits()

    # ---- the body, as it comes ----

    def feed(self, part: bytes) -> None:
        """A part of the body has come."""
        self._parts.append(part)
        self.size += len(part)
        self._wake()

    def feed_end(self) -> None:
        """All of it has."""
        self.whole = True
        self._wake()

    def fail(self, why: str) -> None:
        """No more of it comes."""
        self._broken = why
        self._wake()

    @property
    def is_full(self) -> bool:
        """Whether no more is to come before some was taken."""
        return self.size > READ_AHEAD

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _next(self) -> bytes:
        """What has come; b"" where all has. Raises Broken."""
        while not self._parts and not self.whole:
            if self._broken is not None:
                raise Broken(self._broken)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._take()

    def _take(self) -> bytes:
        parts, self._parts, self.size = self._parts, [], 0
        self._flow.taken()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, most: int) -> bool:
        """Have its body, if all of it has come, and is as it is meant; gives whether it is. Raises TooLarge for more
        than so many bytes."""
        if not self.whole or b"content-encoding" in self._headers:
            return False
        if self._parts:
            self.body = self._take()
            if len(self.body) > most:
                raise TooLarge
        return True

    async def read(self, most: int, patience: float) -> None:
        """Have its body, unpacked. Raises TooLarge for more than so many bytes, Late where it does not come within so
        many seconds, UnknownEncoding, and Broken for one that ends too early or cannot be read."""
        body = Body(self.header(b"content-encoding"), most)
        if self.held:
            self._flow.go_on()
        try:
            async with asyncio.timeout(patience):
                while part := await self._next():
                    body.feed(part)
        except TimeoutError:
            raise Late from None
        self.body = body.whole()

    @property
    def held(self) -> bool:
        """Whether a client may hold the body back until it is told to go on: what it sends behind an answer may be the
        body, or the next request. Who was told, and has not sent all, gets an answer that ends the connection as well.
        """
        return not self.whole and "100-continue" in self.header(b"expect").lower()

    async def drop(self, patience: float) -> None:
        """Read the rest of the body, for so long, to nobody's use: a client that is still sending it would not see the
        answer."""
        with contextlib.suppress(Broken, TimeoutError):
            async with asyncio.timeout(patience):
                while await self._next():
                    pass


class Late(Exception):
    """A body did not come in time. Not TimeoutError, which would also be one of ours that a page lets through."""


class Reply:
    """An answer."""

    __slots__ = ("body", "close", "headers", "status", "type")

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

    def packed(self, method: str, stays: bool) -> bytes:
        """As it is sent. method: of the request; stays: whether the connection does."""
        head = _head(int(time.time()), self.status, self.type, self.headers, not stays)
        if self.status == 204:
            return head + b"\r\n"
        body = b"" if method == "HEAD" else self.body
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(self.body), body)


@functools.lru_cache(maxsize=256)
def _head(second: int, status: int, type: str, headers: tuple[tuple[str, str], ...], close: bool) -> bytes:
    """An answer's first lines, to which the length is still to be added. second: since the epoch."""
    lines = [
        f"{BEGINNING.decode()}{status} {_REASONS.get(status, '')}",
        f"Date: {email.utils.formatdate(second, usegmt=True)}",
    ]
    if type and status != 204:
        lines.append(f"Content-Type: {type}")
    lines += [f"{name}: {value}" for name, value in headers]
    if close:
        lines.append("Connection: close")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
