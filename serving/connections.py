"""Connections: bytes in, requests to a site, answers out, and nobody who holds one for nothing.

httptools cuts requests out of bytes, as llhttp does it for Node: what might be smuggled past a proxy is refused there.
What is under way on a connection, and for how long, is decided here. A web framework's request, its response, and its
task for each request cost as much as to read ten features and answer them.
"""

import asyncio
import collections
import contextlib
import socket
from collections.abc import Iterator
from typing import Final, cast

import httptools
import structlog

from serving.busy_poll import BusyPoll
from serving.messages import BEGINNING, READ_AHEAD, Reply, Request
from serving.web import Site

_log = structlog.get_logger(__name__)

_MOST_HEAD: Final = 32 * 1024
"""Bytes of a request's first line and headers: the line of a GET names features and entities."""

_AT_ONCE: Final = 8 * 1024
"""Bytes that the parser is given at once: no more than some hundred of the smallest requests come out of them."""

_AHEAD: Final = 16
"""Requests that wait on a connection for their turn, before no more is read of it."""

_LINGER: Final = 2.0
"""Seconds in which a client may go on sending what is read no more. Who closes a connection while bytes still come
resets it, and most clients then tell of the reset and not of the answer."""

_SOUND: Final = 0.25
"""Seconds between the first two bytes by which it is seen whether a client is there; twice as many before each other.
So a client that has gone keeps what it waits in for so long, and the bytes last as long as any read waits, 60 s."""


class Server:
    """Connections to a site, on sockets that listen; for one event loop."""

    def __init__(self, site: Site, busy_poll: BusyPoll | None = None) -> None:
        self.site = site
        self.busy_poll = busy_poll
        self.connections: set[_Connection] = set()
        self._listening: list[asyncio.Server] = []
        self._empty = asyncio.Event()

    async def listen(self, on: socket.socket, backlog: int) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        self._listening.append(await loop.create_server(self._protocol, sock=on, backlog=backlog))

    async def end(self, seconds: float) -> None:
        """Take no more connections and requests; let those under way be answered, for so long, and end them all."""
        for each in self._listening:
            each.close()
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        left = [connection.abort() for connection in list(self.connections)]
        if left:
            await asyncio.wait(left, timeout=1)

    def _protocol(self) -> asyncio.Protocol:
        if self.site.ending or self.site.open >= self.site.bounds.connections:
            self.site.turned_away += 1
            return _TurnedAway()
        return _Connection(self)

    def made(self, connection: "_Connection") -> None:
        """One has come."""
        self.connections.add(connection)
        self.site.open += 1

    def lost(self, connection: "_Connection") -> None:
        """One has gone."""
        self.connections.discard(connection)
        self.site.open -= 1
        if not self.connections:
            self._empty.set()


class _Connection(asyncio.Protocol):
    """One connection. A task of its own answers its requests, one after the other."""

    def __init__(self, server: Server) -> None:
        self.site = server.site
        self._server = server
        self._busy_poll = server.busy_poll
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        """What the task waits on for a request, or the end."""
        self._waiting: collections.deque[Request | Reply] = collections.deque()
        """Requests whose turn has not come, and what is said of bytes that are none."""
        self._under_way = False
        self._only_waits = False
        """Whether what is under way only waits, and is to end with its client."""
        self._begun = 0
        """Bytes of the answer's beginning that were sent to see whether the client is there."""
        self._last = False
        """Whether the connection ends behind what is under way."""
        self._ended = False
        """Whether the client has said that it sends no more."""

        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._unparsed = b""
        """What has come and is not looked at before there is room."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._again: list[tuple[bytes, bytes]] = []
        """Headers that have come again, after the first of their name."""
        self._head = 0
        """Bytes that have come since a head began, or since a part of a body came: what stands between a body's parts,
        and behind it, may have no more than a head."""
        self._in_head = False
        self._coming: Request | None = None
        """Whose body comes."""
        self._reading_paused = False

        self._writable: asyncio.Future[None] | None = None
        """Where the client takes its answers more slowly than they come."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_until = 0.0
        self._end_timer: asyncio.TimerHandle | None = None
        self._sound_timer: asyncio.TimerHandle | None = None

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has come."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's only looks like one
        # A client whose machine has gone says nothing.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._server.made(self)
        self._task = self._loop.create_task(self._run())
        self._stay()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self.transport = None
        self._parser = None  # which holds this one
        for timer in (self._head_timer, self._idle_timer, self._end_timer, self._sound_timer):
            if timer:
                timer.cancel()
        if self._only_waits and self._task:
            self._task.cancel()
        self._broken("the connection was lost")
        self._waiting.clear()  # each of which holds this one as well
        self.resume_writing()
        self._wake()
        self._server.lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._last or self.transport is None:
            if self._coming:  # what is under way may come on, and nothing behind it
                self._parse(data)
            return
        self._parse(data)
        if self._busy_poll:
            self._busy_poll.prolong()

    def eof_received(self) -> bool:
        """The client sends no more: some shut down their half behind the last request and wait for the answers. Gives
        whether there are any to come. What has gone altogether looks alike, until something is sent to it."""
        self._ended = True
        self._broken("the client has sent no more of it")
        if self._under_way or self._waiting:
            if self._only_waits:
                self._sound()
            return True
        self._close()  # the transport would, but wait for as long as the client takes nothing
        return False

    def pause_writing(self) -> None:
        """The client has much to take."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = {}
        self._again = []
        self._in_head = True
        self._head = 0

    def on_url(self, part: bytes) -> None:
        """Of its first line."""
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers; or of those behind a body, which nobody reads."""
        if self._in_head:
            name = name.lower()
            if name in self._headers:
                self._again.append((name, value))
            else:
                self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        parser = self._parser
        assert parser is not None
        self._in_head = False
        self._head = 0
        method, headers = parser.get_method(), self._headers
        if b"upgrade" in headers and parser.should_upgrade() and method != b"CONNECT":
            return  # to be declined, below
        stays = parser.should_keep_alive() and method != b"CONNECT"
        if stays and (b"connection" in headers or b"proxy-connection" in headers):
            # One of HTTP/1.0 would have to be told that its connection stays, which is not worth it.
            stays = parser.get_http_version() == "1.1"
        request = Request(method.decode(), self._url.decode("latin-1"), headers, stays, self)
        self._coming = request
        self._waiting.append(request)
        self._wake()

    def on_body(self, part: bytes) -> None:
        """Of its body."""
        self._head = 0
        if self._coming:
            self._coming.feed(part)

    def on_message_complete(self) -> None:
        """It is whole."""
        if self._coming:
            self._coming.feed_end()
            self._coming = None

    # ---- reading ----

    def _parse(self, data: bytes) -> None:
        """Cut requests out of what has come, for as long as there is room for them."""
        if self._unparsed:
            data = self._unparsed + data
            self._unparsed = b""
        while data and self._parser is not None:
            if self._waiting and self._has_enough:
                self._unparsed = data
                break
            part, data = (data, b"") if len(data) <= _AT_ONCE else (data[:_AT_ONCE], data[_AT_ONCE:])
            try:
                self._parser.feed_data(part)
            except httptools.HttpParserCallbackError:
                raise  # a mistake of ours, and not the client's
            except httptools.HttpParserUpgrade as behind:
                data = self._decline(part[behind.args[0] :] + data)
            except httptools.HttpParserError as error:
                self._unreadable(self.site.unreadable(str(error), part))
            if self._in_head or self._coming:
                self._head += len(part)
                if self._head > _MOST_HEAD:
                    self._unreadable(self.site.long_head(_MOST_HEAD))
        if self._coming or self._unparsed or self._reading_paused:
            self._pause_or_resume()
        if self._head_timer or self._in_head:
            self._watch_head()

    @property
    def _has_enough(self) -> bool:
        """Whether nothing more is to be cut out before some of what waits was answered."""
        if len(self._waiting) >= _AHEAD:
            return True
        return sum(each.size for each in self._waiting if isinstance(each, Request) and each.whole) > READ_AHEAD

    def _decline(self, behind: bytes) -> bytes:
        """A client has offered to go on in another protocol, as Java's does with its first request of each connection.
        The parser stops there, before the request's body: it is given the request once more, without the offer. Gives
        what is to be parsed. behind: what has come behind the head."""
        assert self._parser is not None
        method, version = self._parser.get_method(), self._parser.get_http_version()
        stays = self._parser.should_keep_alive()
        if method == b"CONNECT":
            self._parser = None
            return b""
        self._parser = httptools.HttpRequestParser(self)
        offer = (b"upgrade", b"connection", b"http2-settings")
        headers = [*self._headers.items(), *self._again]
        head = [b"%b %b HTTP/%b" % (method, self._url, version.encode())]
        head += [b"%b: %b" % header for header in headers if header[0] not in offer]
        if not stays:
            head.append(b"connection: close")
        return b"\r\n".join([*head, b"", behind])

    def _unreadable(self, reply: Reply) -> None:
        """No more is read. Of a request whose body cannot be, that is said in its turn."""
        self._parser = None
        if self._coming:
            self._broken("it is no HTTP")
        else:
            self._in_head = False
            self._waiting.append(reply)
            self._wake()

    def _broken(self, why: str) -> None:
        """No more of a body comes."""
        if self._coming:
            self._coming.fail(why)
            self._coming = None

    def taken(self) -> None:
        """Called by a request: some of its body was taken."""
        if self._reading_paused:
            self._pause_or_resume()

    def go_on(self) -> None:
        """Called by a request: a client that waits for it is to send the body."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @contextlib.contextmanager
    def only_waits(self) -> Iterator[None]:
        """Called by a request: where the client goes before it is left, the task is cancelled."""
        assert self._task is not None
        self._only_waits = True
        if self.transport is None:
            self._task.cancel()  # which comes over it as soon as it waits
        elif self._ended:
            self._sound()
        try:
            yield
        finally:
            self._only_waits = False
            if self._sound_timer:
                self._sound_timer.cancel()
                self._sound_timer = None

    def _sound(self) -> None:
        """See whether a client is there that sends no more: only by sending it something, to which the system of one
        that has gone answers by a reset, and that shows when more is sent. So it gets its answer's first bytes, which
        are always the same, one by one; who is there finds nothing in its answer that would not be in it."""
        if self.transport is None or self.transport.is_closing() or self._begun == len(BEGINNING):
            return
        self.transport.write(BEGINNING[self._begun : self._begun + 1])
        self._sound_timer = self._loop.call_later(_SOUND * 2**self._begun, self._sound)
        self._begun += 1

    def _pause_or_resume(self) -> None:
        # Nothing comes past what has come and waits to be looked at: no bytes, and no word that there are no more.
        full = bool(self._unparsed) or (self._coming is not None and self._coming.is_full)
        if full == self._reading_paused or self.transport is None or self.transport.is_closing():
            return
        self._reading_paused = full
        if full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _watch_head(self) -> None:
        """A head that has begun has to come on: no longer than patience has it, unless others are before it."""
        if not self._in_head or self._under_way or self._waiting:
            if self._head_timer:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self.site.bounds.patience, self._cut)

    # ---- answering ----

    def _wake(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    async def _run(self) -> None:
        """Answer one request after the other, until the connection ends; and end it, whatever happens."""
        try:
            await self._answer()
            if self._parser is None:
                await self._linger()
        except Exception:
            # A mistake of ours: without an end the client would wait for an answer that does not come.
            _log.exception("a connection is ended, by a mistake of Stillwell's")
        finally:
            self._close()

    async def _answer(self) -> None:
        stays = True
        while stays and self.transport is not None:
            if not self._waiting:
                if self._ended or self._last:
                    break
                self._next = self._loop.create_future()
                await self._next
                continue
            request = self._waiting.popleft()
            self._under_way = True
            try:
                if isinstance(request, Reply):
                    self._write(request.packed("GET", stays=False))
                    break
                reply = await self.site(request)
                stays = request.stays and not reply.close and not request.held and not self._is_last
                self._write(reply.packed(request.method, stays))
                if self._writable or not request.whole:
                    stays = await self._settled(request) and stays
            except ConnectionError:
                break  # nobody is there to be told
            finally:
                self._under_way = False
            if stays and self.transport is not None:
                self._stay()

    async def _linger(self) -> None:
        """Read on for a while, to nobody's use: a client whose bytes cannot be read is to see what was said of them."""
        if self._ended or self.transport is None or self.transport.is_closing():
            return
        self._last = True
        self._waiting.clear()  # nobody's turn comes any more, and whoever ends the connection need not wait for it
        self.transport.write_eof()
        self._next = self._loop.create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await self._next

    async def _settled(self, request: Request) -> bool:
        """Wait until a client has taken what it was sent, and has sent the rest of what was not read; gives whether it
        has. Raises ConnectionError where it does not take it."""
        if self._writable:
            await self._taken()
        if not request.whole:
            await request.drop(self.site.bounds.patience)
        return request.whole

    @property
    def _is_last(self) -> bool:
        """Whether nothing is answered behind the request that is under way."""
        return self._last or (self._ended and not self._waiting)

    def _write(self, packed: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(packed[self._begun :] if self._begun else packed)
        self._begun = 0

    async def _taken(self) -> None:
        """Wait until a client that reads slowly has taken what it was sent. Raises ConnectionError for one too slow, or
        gone."""
        try:
            async with asyncio.timeout(self.site.bounds.patience):
                while self._writable:
                    await self._writable
        except TimeoutError:
            self._cut()
            raise ConnectionResetError("the client takes its answer too slowly") from None
        if self.transport is None:
            raise ConnectionResetError("the client has gone")

    # ---- ending ----

    def end(self) -> None:
        """Take no more requests: what is under way may come on and be answered."""
        self._last = True
        if self._under_way:
            self._waiting.clear()
        elif self._waiting:  # it has come, and its turn is the next thing that happens
            first = self._waiting.popleft()
            self._waiting.clear()
            self._waiting.append(first)
        else:
            self._close()

    def abort(self) -> "asyncio.Task[None]":
        """End it at once, with what is under way; gives the task that ends by it."""
        assert self._task is not None
        self._cut()
        self._task.cancel()
        return self._task

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _close(self) -> None:
        """End it, once the client has taken what it was sent: for that a transport would wait, however long."""
        self._last = True
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() and self._end_timer is None:
            self._end_timer = self._loop.call_later(self.site.bounds.patience, self._cut)
        self.transport.close()

    def _stay(self) -> None:
        """Go on reading, if that was held up, and wait for the next request, for so long as a connection may be
        idle."""
        if self._reading_paused and len(self._waiting) <= _AHEAD // 2:
            self._parse(b"")
        if self._in_head:
            self._watch_head()
        self._idle_until = self._loop.time() + self.site.bounds.idle
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_at(self._idle_until, self._idle)

    def _idle(self) -> None:
        """Nothing may have been asked for too long. Each request prolongs the time, and leaves the timer as it is."""
        self._idle_timer = None
        if self._under_way or self._waiting or self._in_head:
            return  # which waits anew behind it
        if self._loop.time() >= self._idle_until:
            self._close()
        else:
            self._idle_timer = self._loop.call_at(self._idle_until, self._idle)


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
        own = self._transport = cast(asyncio.Transport, transport)
        self._end = asyncio.get_running_loop().call_later(1.0, own.abort)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if not self._transport.is_closing():
            self._transport.write(self._answer % (len(self._body), self._body))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._end.cancel()
