"""Connections: bytes in, requests to a site, answers out.

aiohttp takes requests apart and watches over connections. Its own loop that answers them, its request and its response
are not used: a task, a turn of the event loop and a dozen objects more for each request take a sixth of what a bare
page costs (21 µs of processor time instead of 25, on uvloop).
"""

import asyncio
from typing import Any

import structlog
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from serving.busy_poll import BusyPoll
from serving.messages import Request
from serving.web import Site

_log = structlog.get_logger(__name__)

_READ_AHEAD = 2**16
"""Bytes of a body that wait for its page; twice as many, and what the system hands over at once, stop reading. Any
connection can have so much behind a request that takes long: of aiohttp's 256 KiB it would be gigabytes in all."""


class Server(web.Server):
    """Makes a connection's protocol for each that comes, or turns it away."""

    def __init__(self, site: Site, busy_poll: BusyPoll | None = None) -> None:
        super().__init__(
            site,  # type: ignore[arg-type]  # which is asked by _Connection, not by aiohttp
            access_log=None,
            keepalive_timeout=site.bounds.idle,
            read_bufsize=_READ_AHEAD,
        )
        self.site = site
        self.busy_poll = busy_poll

    def __call__(self) -> Any:
        """Called for each connection."""
        if self.site.ending or self.site.open >= self.site.bounds.connections:
            self.site.turned_away += 1
            return _TurnedAway()
        return _Connection(self.site, self, **self._kwargs)


class _Connection(RequestHandler):
    """A connection, which ends where a request that has begun does not come on."""

    __slots__ = ("_begun", "_busy_poll", "_ended", "_ending", "_last", "_seen", "site")

    def __init__(self, site: Site, server: Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self.site = site
        self._busy_poll = server.busy_poll
        self._begun: asyncio.TimerHandle | None = None
        self._ended = False
        """Whether the client has said that it sends no more."""
        self._ending: asyncio.TimerHandle | None = None
        self._last = False
        """Whether the connection ends with the request that is under way."""
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
        if self._ending:
            self._ending.cancel()

    def force_close(self) -> None:
        """Called by aiohttp, too: end the connection."""
        self._end_in_time()
        super().force_close()

    def close(self) -> None:
        """Called by aiohttp where the service ends: take no more requests. What is under way may come on: aiohttp would
        not read the rest of its body."""
        if self._request_in_progress:
            self._last = True
        else:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  # as aiohttp has it
        """Called by aiohttp then: let what is under way be answered, and end."""
        begun = self._loop.time()
        if self._request_in_progress and self._task_handler is not None:
            self._last = True
            await asyncio.wait([self._task_handler], timeout=timeout)
        # To aiohttp no time at all means any time.
        left = None if timeout is None else max(0.1, timeout - (self._loop.time() - begun))
        await super().shutdown(left)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by aiohttp, whenever a part of a body was taken. Where reading was not paused there is nothing to
        resume, and to look for it, as aiohttp does, is to go through the parser a second time for each request."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        super().data_received(data)
        if self._busy_poll:
            self._busy_poll.prolong()
        if self._request_count != self._seen:
            self._seen = self._request_count
            self._stop()
        elif self._begun is None and not self._messages and not self._request_in_progress:
            # Part of a head: aiohttp would wait for the rest as long as for a new request. A body has its own deadline.
            # uvloop may hand over what a connection begins with before the connection's task has run at all.
            self._begun = self._loop.call_later(self.site.bounds.patience, self._late)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Called by the event loop, where the client sends no more: some shut down their half behind the last request
        and wait for the answers. Gives whether there are any to come. What has gone altogether looks alike, until
        something is sent to it."""
        self._ended = True
        cut = ConnectionResetError("the client has sent no more of it")
        if self._current_request is not None:
            self._current_request._cancel(cut)
        for _, payload in self._messages:
            if not payload.is_eof():
                payload.set_exception(cut)
        return self._request_in_progress or bool(self._messages)

    async def start(self) -> None:
        """Called by aiohttp, as the connection's task: answer one request after the other."""
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, payload = self._messages.popleft()
            self._make_room()
            self._request_in_progress = True
            try:
                stays = await self._answer(message, payload)
            except ConnectionError:
                break  # nobody is there to be told
            except Exception:
                # A mistake of ours: without an end the client would wait for an answer that does not come.
                _log.exception("a connection is ended, by a mistake of Stillwell's")
                break
            except asyncio.CancelledError:
                self.force_close()
                raise
            finally:
                self._request_in_progress = False
                if self._handler_waiter is not None and not self._handler_waiter.done():
                    self._handler_waiter.set_result(None)
            if not stays or self._is_last or self._close or self._force_close:
                break
            self._stay()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self._end_in_time()
                self.transport.close()

    async def _answer(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Answer a request; gives whether the connection stays. Raises ConnectionError where nobody takes the
        answer."""
        if isinstance(message, _ErrInfo):
            self._write(self.site.unreadable(message.message).packed("GET", stays=False))
            return False
        request = Request(message, payload, self._go_on)
        self._current_request = request  # type: ignore[assignment]  # told where the connection ends meanwhile
        try:
            reply = await self.site(request)
            stays = request.stays and not reply.close and not self._is_last
            self._write(reply.packed(message.method, stays))
            if self.writing_paused:
                await self._taken()
            if not request.whole:
                await request.drop(self.site.bounds.patience)
                return stays and request.whole
            return stays
        finally:
            self._current_request = None

    @property
    def _is_last(self) -> bool:
        """Whether nothing is answered behind the request that is under way."""
        return self._last or (self._ended and not self._messages)

    def _write(self, packed: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(packed)

    def _go_on(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _taken(self) -> None:
        """Wait until a client that reads slowly has taken what it was sent. Raises ConnectionError for one too slow."""
        try:
            async with asyncio.timeout(self.site.bounds.patience):
                await self._drain_helper()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionResetError("the client takes its answer too slowly") from None

    def _end_in_time(self) -> None:
        """A transport that is closed waits, however long, for the client to take what it still holds: no longer than
        patience has it."""
        transport = self.transport
        if self._ending is None and transport is not None and transport.get_write_buffer_size():
            self._ending = self._loop.call_later(self.site.bounds.patience, transport.abort)

    def _make_room(self) -> None:
        """A request that came ahead of its turn has its turn: the parser may take another."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def _stay(self) -> None:
        """Wait for the next request, for so long as a connection may be idle."""
        end = self._loop.time() + self.site.bounds.idle
        self._next_keepalive_close_time = end
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(end, self._process_keepalive)

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
