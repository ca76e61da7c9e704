"""Requests and replies of HTTP, as pages have them; and what goes wrong with a body on its way."""

import asyncio
import contextlib
import email.utils
import functools
import time
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from serving.query_string import words_of

JSON: Final = "application/json"

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


class Request:
    """What a page is asked. body: whole, b"" where there is none, or while it has not been read."""

    __slots__ = ("_go_on", "_message", "_payload", "body")

    def __init__(self, message: RawRequestMessage, payload: StreamReader, go_on: Callable[[], None]) -> None:
        """message, payload: as aiohttp parses them. go_on: tells a client that waits for it to send the body."""
        self.body = b""
        self._message = message
        self._payload = payload
        self._go_on = go_on

    @property
    def method(self) -> str:
        """Of the request; HEAD is asked as GET is."""
        return self._message.method

    @property
    def target(self) -> str:
        """Path and query string as they came."""
        return self._message.path

    @property
    def path(self) -> str:
        """Without the query string, decoded."""
        return self._message.url.path

    @property
    def query(self) -> Iterable[tuple[str, str]]:
        """The words behind the `?`, each with its text. To go through them raises RequestError at one that cannot be
        read."""
        return words_of(self._message.url.raw_query_string)

    def header(self, name: str) -> str:
        """A header, "" where there is none."""
        return self._message.headers.get(name, "")

    @property
    def stays(self) -> bool:
        """Whether the client would have the connection stay. One of HTTP/1.0 would have to be told so, which is not
        worth it."""
        return not self._message.should_close and self._message.version.minor == 1 and not self._message.upgrade

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self._payload.is_eof()

    async def read(self, most: int, patience: float) -> None:
        """Have its body. Raises TooLarge for more than so many bytes, Late where it does not come within so many
        seconds, Gone where the connection ends before it, and RequestPayloadError for one that cannot be read."""
        if self._payload.is_eof():  # it has come with the head, as all but large ones do
            self.body = self._payload.read_nowait()
            if len(self.body) > most:
                raise TooLarge
            return
        if "100-continue" in self.header("Expect").lower():
            self._go_on()
        body = bytearray()
        try:
            async with asyncio.timeout(patience):
                while part := await self._payload.readany():
                    body += part
                    if len(body) > most:
                        raise TooLarge
        except TimeoutError:
            raise Late from None
        except OSError as error:  # of the connection alone, and not of all kinds a ConnectionError: no route, say
            raise Gone(str(error)) from None
        self.body = bytes(body)

    async def drop(self, patience: float) -> None:
        """Read the rest of the body, for so long, to nobody's use: a client that is still sending it would not see the
        answer."""
        with contextlib.suppress(OSError, web.RequestPayloadError):
            async with asyncio.timeout(patience):
                while not self._payload.is_eof():
                    await self._payload.readany()

    def _cancel(self, error: BaseException) -> None:
        """Called by aiohttp, too, where the connection ends: whoever waits for the rest of the body waits no more."""
        if not self._payload.is_eof():
            self._payload.set_exception(error)


class TooLarge(Exception):
    """A body has too many bytes."""


class Late(Exception):
    """A body did not come in time. Not TimeoutError, which would also be one of ours that a page lets through."""


class Gone(Exception):
    """A client has ended its connection amid a body. Not ConnectionError, which may be a page's own."""


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
        head = _head(self.status, self.type, self.headers, not stays)
        if self.status == 204:
            return b"%bDate: %b\r\n\r\n" % (head, _date())
        body = b"" if method == "HEAD" else self.body
        return b"%bDate: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, _date(), len(self.body), body)


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
