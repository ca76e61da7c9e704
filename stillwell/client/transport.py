"""The seam to the network: a request out, a reply back, and two ways in which there is none.

Everything that the client knows of HTTP libraries is here, so that tests can stand a small fake in its place.
"""

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from stillwell.client.errors import Closed
from stillwell.errors import StillwellError

if TYPE_CHECKING:
    import aiohttp

JSON = "application/json"

_MOST_BYTES = 256 * 1024 * 1024
"""Of one answer. The service's own limits keep far below; what is larger comes from somewhere else."""

_IDLE = 15.0
"""Seconds that a connection is kept without use. The service keeps its own side longer, so that a request seldom meets
a connection that is just being closed."""


class Reply(NamedTuple):
    """An answer. retry_after: seconds, where it says so."""

    status: int
    body: bytes
    content_type: str = JSON
    retry_after: float | None = None


class NotSent(Exception):
    """There is no connection: nothing was sent."""


class NoReply(Exception):
    """The connection ended before the answer was there: the request may have been carried out."""


class Transport(Protocol):
    """Carries requests to one service."""

    async def send(self, method: str, path: str, body: bytes | None, accept: str = JSON) -> Reply:
        """The reply, whatever its status. Raises NotSent and NoReply; whoever calls bounds the time."""

    async def close(self) -> None:
        """Close every connection."""


class HttpTransport:
    """Over a pool of connections, opened as they are needed. For one event loop: that of the first request."""

    def __init__(self, url: str, connections: int) -> None:
        """url: the service's root. connections: at most; who finds all in use waits for one."""
        self._url = url
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def send(self, method: str, path: str, body: bytes | None, accept: str = JSON) -> Reply:
        """See Transport."""
        import aiohttp

        if self._closed:
            # A call that was under way, and would be made again.
            raise Closed("the client was closed before the answer came")
        session = self._session or self._open()
        if self._loop is not asyncio.get_running_loop():
            raise StillwellError(
                "a client belongs to the event loop of its first call, and this is another one: make one in each, or "
                "use SyncClient"
            )
        headers = {"Accept": accept} if body is None else {"Accept": accept, "Content-Type": JSON}
        try:
            async with session.request(
                method, self._url + path, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return Reply(
                    answer.status,
                    await _whole(answer),
                    answer.content_type,
                    _seconds(answer.headers.get("Retry-After")),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """See Transport."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            # aiohttp closes its sockets in the next turn of the loop; who ends the loop first is warned of each.
            await asyncio.sleep(0)

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp

        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_IDLE),
            timeout=aiohttp.ClientTimeout(total=None),
            # What a service sets is not meant for a client of features, and is not sent to the next.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session


async def _whole(answer: "aiohttp.ClientResponse") -> bytes:
    length = answer.content_length
    if length is not None and length <= _MOST_BYTES:
        return await answer.read()
    parts = bytearray()
    async for part in answer.content.iter_any():
        parts += part
        if len(parts) > _MOST_BYTES:
            raise NoReply(f"the answer has more than {_MOST_BYTES} bytes")
    return bytes(parts)


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; None for a date, which depends on two clocks."""
    return float(text) if text and text.isascii() and text.isdigit() else None
