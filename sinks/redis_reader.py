"""Reads rows from Redis for many readers at once, over one connection.

Whoever asks in the same turn of the event loop is asked for together, by one MGET up to so many keys and by several
beyond, each with the ready key in front; a few of these are on their way at once, and while they are, the next ones
gather. So a lone reader waits for nobody, and a thousand cost little more than a hundred. redis-py connects,
authenticates and speaks TLS; then the connection is ours, and hiredis cuts replies as they come, without a task between
the socket and who waits.
"""

import asyncio
import collections
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from sinks.redis_link import RedisLink, facts_of
from stillwell.errors import StillwellError, StoreUnavailable
from stillwell.reading.online import Stored

_AHEAD = 4
"""Calls on their way at once. With one, the server idles while a reply travels; with many, each carries little."""

_MOST_KEYS = 250
"""Of one call: the server does nothing else meanwhile. With 500 that was 0.09 ms for rows of 144 bytes and 0.32 for 2
kB, with 2,000 it was 1.0 and 2.5; and what many asked for at once came in one call, or in a large one and a small one,
for which the process waited: 7 % fewer requests for twenty views. Who asks for more is answered from several calls,
in the order of the keys and of one epoch, and something may have been written between two of them. Who asks for no more
is answered from one, which is of one instant."""

_REFUSE_FOR = 0.1
"""Seconds after a connection that could not be opened, or led to a server that is not to be read, in which everybody is
refused at once: a thousand who wait for one attempt each would be a thousand attempts."""

_JOINED_FOR = 1 / 8
"""Of the time that a call has: in which it is joined, while it waits to be sent. Who asks later begins another one, so
that nobody is refused much sooner than his own time is over."""

_MOST_WAITING = 200_000
"""Keys that may wait to be asked for: some 20 MB, and up to an eighth of a second of Redis' time. Who comes then is
refused at once."""

_LOOK_EVERY = 1.0
"""Seconds between two looks at the server's role. A primary that was demoted keeps its clients, answers them, and falls
behind; nothing but this tells them. A look takes Redis 2 µs."""

_LOOK = hiredis.pack_command((b"INFO", b"replication"))  # type: ignore[arg-type]


Observe = Callable[[int, float | None], None]
"""Told of each call: how many keys it had, and the seconds until it was answered, None where it failed."""


@dataclasses.dataclass(slots=True)
class _Call:
    """One MGET, or a look at the server's role, which nobody waits for. askers: who waits for which part of its
    replies."""

    keys: list[bytes]
    askers: list[tuple["asyncio.Future[Stored]", int, int]]
    deadline: asyncio.Handle | None = None
    begun_at: float = 0.0
    sent_at: float = 0.0
    look: bool = False

    def answer(self, epoch: bytes, replies: list[bytes | None], replication_id: str) -> None:
        """Hand everybody their part."""
        self.end()
        for asker, begin, end in self.askers:
            if not asker.done():
                asker.set_result(Stored(epoch, replies[begin:end], replication_id))

    def fail(self, error: StillwellError) -> None:
        """Tell everybody."""
        self.end()
        for asker, _, _ in self.askers:
            if not asker.done():
                asker.set_exception(error)

    @property
    def is_unwanted(self) -> bool:
        """Whether all who asked have gone."""
        return all(asker.done() for asker, _, _ in self.askers)

    def end(self) -> None:
        """It has no deadline any more."""
        if self.deadline:
            self.deadline.cancel()


class RedisReader:
    """Rows from one Redis server, for one event loop; `close` it."""

    def __init__(
        self, link: RedisLink, ready: bytes, timeout: float, observe: Observe = lambda keys, seconds: None
    ) -> None:
        """ready: the ready key. timeout: seconds in which values must be there from when they are asked for, connecting
        included. observe: told of each call."""
        self._link = link
        self._ready = ready
        self._timeout = timeout
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[_Call] = collections.deque()
        self._waiting_keys = 0
        self._sent: collections.deque[_Call] = collections.deque()
        self._wire: _Wire | None = None
        self._replied_at = 0.0
        self._replication_id = ""
        self._opening: asyncio.Task[None] | None = None
        self._refused: tuple[float, StillwellError] | None = None
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many reads wait for an answer."""
        return sum(len(call.askers) for calls in (self._waiting, self._sent) for call in calls)

    def read(self, keys: Sequence[bytes]) -> Awaitable[Stored]:
        """See `stillwell.reading.online.OnlineReader`."""
        if self._waiting_keys + len(keys) > _MOST_WAITING and self._waiting_keys:
            raise StoreUnavailable(
                f"{self._waiting_keys} keys wait to be asked of Redis at {self._link.address}: it does not keep up"
            )
        return self._ask(keys) if len(keys) <= _MOST_KEYS else self._read_in_parts(keys)

    async def _read_in_parts(self, keys: Sequence[bytes]) -> Stored:
        parts = [self._ask(keys[begin : begin + _MOST_KEYS]) for begin in range(0, len(keys), _MOST_KEYS)]
        try:
            read = await asyncio.gather(*parts)
        finally:
            for part in parts:  # where one has failed nobody wants the others
                part.cancel()
        if len({part.epoch for part in read}) > 1:
            raise self._link.not_ready()  # it was rebuilt between two of them
        servers = {part.replication_id for part in read}
        return Stored(
            read[0].epoch, [value for part in read for value in part.values], servers.pop() if len(servers) == 1 else ""
        )

    def _ask(self, keys: Sequence[bytes]) -> "asyncio.Future[Stored]":
        call = self._waiting[-1] if self._waiting else None
        if call is None or len(call.keys) + len(keys) > _MOST_KEYS or not self._has_time(call):
            call = self._begin_call()
        asker: asyncio.Future[Stored] = self._loop.create_future()
        call.askers.append((asker, len(call.keys), len(call.keys) + len(keys)))
        call.keys += keys
        self._waiting_keys += len(keys)
        return asker

    async def close(self) -> None:
        """End the connection; who waits is refused."""
        if self._opening:
            self._opening.cancel()
        closed = StoreUnavailable(f"Redis at {self._link.address} is asked no more: the reader was closed")
        self._lose(closed)
        self._refuse(closed)
        await self._link.close()

    # ---- sending ----

    def _has_time(self, call: _Call) -> bool:
        """Whether who asks now may join a call: not one that has waited for long, or was even sent before, and has less
        time left than a reader may wait."""
        return self._loop.time() - call.begun_at <= self._timeout * _JOINED_FOR

    def _begin_call(self) -> _Call:
        call = _Call([], [], begun_at=self._loop.time())
        call.deadline = self._loop.call_later(self._timeout, self._due, call)
        self._waiting.append(call)
        self._loop.call_soon(self._send)
        return call

    def _send(self) -> None:
        """Send what waits, as far as it may."""
        if self._waiting and self._wire is None:
            self._open()
        while self._wire and self._waiting and len(self._sent) < _AHEAD:
            call = self._waiting.popleft()
            self._waiting_keys -= len(call.keys)
            if call.is_unwanted:
                call.end()
                continue
            call.sent_at = self._loop.time()
            self._sent.append(call)
            self._wire.send(hiredis.pack_command((b"MGET", self._ready, *call.keys)))  # type: ignore[arg-type]

    def _look(self) -> None:
        """Ask the server for its role, before anything else that is still to be sent."""
        if self._wire:
            call = _Call([], [], sent_at=self._loop.time(), look=True)
            call.deadline = self._loop.call_later(self._timeout, self._due, call)
            self._sent.append(call)
            self._wire.send(_LOOK)
            self._next_look = self._loop.call_later(_LOOK_EVERY, self._look)

    def _open(self) -> None:
        if self._refused and self._loop.time() < self._refused[0] + _REFUSE_FOR:
            self._refuse(self._refused[1])
        elif self._opening is None:
            self._opening = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._link.connect_alone()
        except (StoreUnavailable, TimeoutError) as error:
            told = error if isinstance(error, StoreUnavailable) else self._silent()
            self._refused = self._loop.time(), told
            self._refuse(told)
        else:
            self._refused = None
            self._wire = _Wire(connection, self._replied, self._lost)
            self._look()
        finally:
            self._opening = None
        self._send()

    # ---- receiving ----

    def _replied(self, reply: Any) -> None:
        """A reply has come: to the oldest call."""
        call = self._sent.popleft()
        self._replied_at = self._loop.time()
        if call.look:
            call.answer(b"", [], "")
            if isinstance(reply, hiredis.HiredisError):
                self._turn_away(self._link.refusal(reply))
            elif b"role:slave" in reply:
                self._turn_away(self._link.replica())
            else:
                # The first look of a connection is answered before anything else of it.
                self._replication_id = facts_of(reply)["master_replid"]
            self._send()
            return
        self._observe(len(call.keys) + 1, self._loop.time() - call.sent_at)
        if isinstance(reply, hiredis.HiredisError):
            call.fail(self._link.refusal(reply))
        elif reply[0] is None:
            call.fail(self._link.not_ready())
        else:
            call.answer(reply.pop(0), reply, self._replication_id)
        self._send()

    def _due(self, call: _Call) -> None:
        """The deadline of a call has come. Its answer may have, too, where something else has held the loop up: it is
        judged two turns later, behind a read that is later than now, and as of now."""
        now = self._loop.time()
        call.deadline = self._loop.call_soon(self._still_due, call, now)

    def _still_due(self, call: _Call, now: float) -> None:
        call.deadline = self._loop.call_soon(self._late, call, now)

    def _late(self, call: _Call, now: float) -> None:
        """A call was not answered in time. now: when it was due."""
        answers = self._replied_at > max(call.begun_at, now - self._timeout / 2)
        late = self._behind() if answers else self._silent()
        if call not in self._sent:
            self._waiting.remove(call)
            self._waiting_keys -= len(call.keys)
            call.fail(late)
        elif now < (silent_at := call.sent_at + self._timeout):
            # It waited for its turn. Redis has had less time than it may take, and others wait for it as well.
            call.fail(late)
            call.deadline = self._loop.call_at(silent_at, self._due, call)
        else:
            # Replies of this connection can no longer be told from each other's.
            self._ask_again_but_for(call, now)

    def _ask_again_but_for(self, late: _Call, now: float) -> None:
        """Give a silent connection up. Who has asked since the call that is late has time left, and is asked for once
        more, over another connection."""
        gone: collections.deque[_Call] = collections.deque()
        again: list[_Call] = []
        for call in self._sent:
            has_time = call is not late and not call.look and now < call.begun_at + self._timeout
            (again if has_time else gone).append(call)
        self._sent = gone
        self._lose(self._silent())
        for call in reversed(again):
            self._observe(len(call.keys) + 1, None)
            self._waiting.appendleft(call)
            self._waiting_keys += len(call.keys)
        self._send()

    def _lost(self, error: Exception | None) -> None:
        """The server, or the network, has ended the connection."""
        self._lose(StoreUnavailable(f"Redis at {self._link.address} ended the connection: {error or 'closed'}"))
        self._send()

    def _turn_away(self, error: StillwellError) -> None:
        """Leave a server that is not to be read: it takes connections, and would be connected to again and again."""
        self._refused = self._loop.time(), error
        self._lose(error)

    def _lose(self, error: StillwellError) -> None:
        """Give the connection up, with all that is on its way."""
        wire, self._wire = self._wire, None
        if wire:
            wire.abort()
        if self._next_look:
            self._next_look.cancel()
        sent, self._sent = self._sent, collections.deque()
        for call in sent:
            call.fail(error)
            if not call.look:
                self._observe(len(call.keys) + 1, None)

    def _refuse(self, error: StillwellError) -> None:
        """Tell everybody who waits to be asked for."""
        waiting, self._waiting = self._waiting, collections.deque()
        self._waiting_keys = 0
        for call in waiting:
            call.fail(error)

    def _behind(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"reads wait longer than {self._timeout:g} s for their turn at Redis at {self._link.address}, which "
            "answers: the process does not keep up. Ask for less at once, or run more processes"
        )

    def _silent(self) -> StoreUnavailable:
        return StoreUnavailable(f"Redis at {self._link.address} gives no answer within {self._timeout:g} s")


class _Wire(asyncio.Protocol):
    """A connection that redis-py has made, taken over: bytes out, replies in."""

    def __init__(
        self, connection: Any, replied: Callable[[Any], None], lost: Callable[[Exception | None], None]
    ) -> None:
        """replied: called with each reply, in order; lost: when the other side has ended the connection."""
        self._connection = connection  # kept, or its end would be the connection's
        self._transport: asyncio.Transport = connection._writer.transport
        self._replies = hiredis.Reader()
        self._replied = replied
        self._lost = lost
        self._ended = False
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> None:
        """Send commands."""
        # uvloop raises where asyncio keeps silent: when the other side has closed, and `lost` is not called yet.
        if not self._transport.is_closing():
            self._transport.write(packed)

    def abort(self) -> None:
        """End the connection at once; nothing is called any more."""
        self._ended = True
        self._transport.abort()
        self._connection._reader = self._connection._writer = None

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._replies.feed(data)
        try:
            while not self._ended and (reply := self._replies.gets()) is not False:
                self._replied(reply)
        except hiredis.ProtocolError as error:
            self.connection_lost(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if not self._ended:
            self._ended = True
            self._lost(exc)
