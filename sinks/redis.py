"""The online store in Redis: apply the newest rows, raise the marks that say so, read both back.

`stillwell.layout.redis_keys` draws the keys. Everything that compares before it writes is a script in `lua/`, and each
script looks at the ready key first. All writes are harmless to repeat: one that failed half-way is simply made again.
"""

import dataclasses
import hashlib
import importlib.resources
import itertools
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

from redis import exceptions

from sinks.group_commit import GroupCommit
from sinks.redis_link import Command, Exchange, RedisLink, Reply, facts_of
from stillwell.errors import SettingsError, StoreUnavailable
from stillwell.layout.online import (
    ANSWERS,
    Applied,
    AppliedEach,
    EncodedRows,
    MarkKey,
    MarkMove,
    OnlineServer,
    OnlineState,
    PutCounts,
)
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.stamp import Stamp, topic_digest
from stillwell.layout.value import FORMAT
from stillwell.settings import Settings

ROWS_PER_CALL = 100
"""The server does nothing else during a call: 100 rows are about 300 µs. Fewer cost more for each row: 50 a tenth."""

BYTES_PER_CALL = 256 * 1024
"""… or so many bytes of values, so that large rows do not make long calls."""

_CALLS_PER_BATCH = 16
"""Calls that are sent together. The next batch is made and sent while the server works on this one, so that only the
first costs time of its own. With 4, one connection takes in a sixth fewer events of a backlog."""

_ROWS_PER_GROUP = 10_000
"""Of several partitions that are applied together, or as many bytes as so many calls may have: some 30 ms of small
rows. Each of them waits for all, and for those of the group before."""

_PROBE_MS = 60_000
_TIMEOUT = 5.0
_CONNECTIONS = 16
_OLDEST = (6, 2)
_LENGTH = struct.Struct(">I")


class Script:
    """A Lua script, and the name that Redis has for it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def load(cls, name: str) -> Self:
        """One of the scripts in `lua/`."""
        return cls(importlib.resources.files("sinks").joinpath(f"lua/{name}.lua").read_text())


@dataclasses.dataclass(frozen=True, slots=True)
class _Apply:
    """What is to be applied."""

    rows: Sequence[EncodedRows]
    moves: Sequence[MarkMove]
    epoch: str

    def weight(self) -> int:
        """How many rows; of large ones as many as would fill as many calls."""
        return sum(
            max(len(each.keys), sum(map(len, each.values)) * ROWS_PER_CALL // BYTES_PER_CALL) for each in self.rows
        )


class RedisOnlineStore:
    """The newest row of every entity and view, in one Redis server.

    Every method raises StoreUnavailable or OutcomeUnknown where there is no clear answer, and those that take an epoch,
    or read, raise StoreNotReady where the store may have lost data or is of another epoch.
    """

    def __init__(self, link: RedisLink, keys: RedisKeys, gate: bytes | None = None) -> None:
        """gate: the key that must hold the epoch; the ready key, unless a rebuild is under way."""
        self._link = link
        self._keys = keys
        self._gate = gate or keys.ready
        self._put = Script.load("put_if_newer")
        self._raise_marks = Script.load("raise_marks")
        self._set_marks = Script.load("set_marks")
        self._finish_rebuild = Script.load("finish_rebuild")
        self._applies = GroupCommit(self._apply_together, _Apply.weight, _ROWS_PER_GROUP)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect, and refuse a server that would lose rows. Raises SettingsError naming what to set."""
        link = RedisLink(settings.redis_url.get_secret_value(), _TIMEOUT, _CONNECTIONS)
        store = cls(link, RedisKeys(settings.project, settings.namespace))
        try:
            _require_fit(await store.read_server(), link.address)
        except BaseException:
            await link.close()
            raise
        return store

    async def close(self) -> None:
        """Close every connection."""
        try:
            await self._applies.close()
        finally:
            await self._link.close()

    async def apply(self, rows: Sequence[EncodedRows], moves: Sequence[MarkMove], epoch: str) -> Applied:
        """Write each row that is newer than the one in its place; then raise each mark to the end of its move, if it
        stands within the move. Where it fails, rows may be written in part, and marks only with all of them.

        What is asked for while an earlier call is under way is applied together, over one connection: of each Redis
        reads up to 16 KiB before it looks who else has asked, so that a read beside four busy ones waits for four times
        as many rows. Marks go the way of their rows: a server that took over meanwhile, and lacks the rows, cannot
        raise the marks over them. Who stops waiting does not stop a call that is under way.
        """
        return await self._applies.ask(_Apply(rows, moves, epoch))

    async def put(self, rows: EncodedRows, epoch: str) -> PutCounts:
        """Write each row that is newer than the one in its place. A put that was refused may be done in part."""
        async with self._link.connection() as exchange:
            (counts,) = await self._put_rows(exchange, [(rows, epoch)])
        return counts

    async def put_each(self, rows: Sequence[EncodedRows], epoch: str) -> AppliedEach:
        """Write each row that is newer than the one in its place; what became of each, and which server says so."""
        async with self._link.connection() as exchange:
            # Asked first: what a server of this id has then taken, one of another id need not have.
            said: list[Reply] = []
            asked = [(each, epoch) for each in rows]
            letters = await self._put_letters(exchange, asked, [("INFO", "replication")], said)
        answers = [[ANSWERS[letter] for letter in of_view] for of_view in letters]
        return AppliedEach(answers, facts_of(*said)["master_replid"])

    async def set_marks(self, moves: Sequence[MarkMove], epoch: str) -> None:
        """Create the marks that are absent, or of another epoch, at the start of their moves."""
        keys = [self._keys.mark(move.mark) for move in moves]
        starts = [_position(move.start) for move in moves]
        call = self._call(self._set_marks, keys, [epoch, *starts])
        async with self._link.connection() as exchange:
            await self._run(exchange, self._set_marks, lambda: [call])

    async def read_marks(self, marks: Sequence[MarkKey]) -> list[int | None]:
        """Where each mark stands; None for one that is absent or of another epoch than the one in force."""
        (replies,) = await self._link.ask(("MGET", self._gate, *(self._keys.mark(mark) for mark in marks)))
        epoch, *stored = self._ready(replies)
        return [int(mark[:20]) if mark and mark[21:] == epoch else None for mark in stored]

    async def get(self, view: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these entities, None where there is none."""
        (replies,) = await self._link.ask(("MGET", self._gate, *self._keys.rows(view, keys)))
        return self._ready(replies)[1:]

    async def read_state(self) -> OnlineState:
        """Which epoch is in force (None: not ready), and which server answers."""
        epoch, info = await self._link.ask(("GET", self._gate), ("INFO", "replication"))
        return OnlineState(epoch=epoch.decode() if epoch else None, replication_id=facts_of(info)["master_replid"])

    async def read_server(self) -> OnlineServer:
        """What the server says of itself."""
        # By INFO, because managed services refuse CONFIG.
        facts = facts_of(*await self._link.ask(("INFO", "server"), ("INFO", "memory"), ("INFO", "replication")))
        return OnlineServer(
            role=facts["role"], version=facts["redis_version"], maxmemory_policy=facts["maxmemory_policy"]
        )

    async def probe(self) -> None:
        """Do once, on keys of its own, whatever a worker or a rebuild may do, so that what its user lacks is found out.

        Nothing stays: of a probe that was refused half-way, what it has written expires within a minute or so.
        """
        gate = self._keys.probe + secrets.token_hex(8).encode()
        rows, moved, lifetime = [gate + b":0", gate + b":1"], gate + b":moved", str(_PROBE_MS)
        readers = gate + b":readers"
        probe = type(self)(self._link, self._keys, gate)
        # By the server's clock: past its life by that one, a row is not written.
        (now,) = await self._link.ask(("TIME",))

        def put(offset: int, nbytes: int) -> Command:
            at = Stamp(int(now[0]) * 1_000_000, None, 0, topic_digest("probe"), 0, 0, offset, 0, 0).pack()
            value = (bytes([FORMAT]) + at + _LENGTH.pack(nbytes)).ljust(nbytes, b"\0")
            return probe._call(self._put, rows, [gate, lifetime, _behind_lengths([value, value])])

        await self._link.ask(("SET", gate, gate, "PX", lifetime), ("SCRIPT", "LOAD", self._put.text))
        # New rows, then others in their place, which takes the same length, then others instead of them.
        await self._link.ask(put(0, 64), put(1, 64), put(2, 65), ("MGET", gate, *rows))
        # Of predictions: a set that never stands there without an expiry.
        expires = str(int(now[0]) * 1_000 + _PROBE_MS)
        await self._link.ask(
            *(("MULTI",), ("ZADD", readers, expires, "0"), ("PEXPIREAT", readers, expires), ("EXEC",)),
            *(("ZRANGE", readers, "-1", "-1"), ("ZCOUNT", readers, "-inf", "+inf")),
            *(("ZREMRANGEBYSCORE", readers, "-inf", "0"), ("ZREMRANGEBYRANK", readers, "0", "-2")),
        )
        await self._link.ask(("MULTI",), ("RENAME", gate, moved), ("DEL", moved, *rows, readers), ("EXEC",))

    async def initialise(self, epoch: str) -> str:
        """Make an empty store ready, if nobody did; returns the epoch in force."""
        _, in_force = await self._link.ask(("SET", self._keys.ready, epoch, "NX"), ("GET", self._keys.ready))
        if in_force is None:
            raise StoreUnavailable(f"Redis at {self._link.address} lost its ready key as soon as it was set; try again")
        return str(in_force.decode())

    async def begin_rebuild(self, epoch: str) -> Self:
        """Make the store not ready for all but the one that is returned, which puts rows and marks under this epoch.

        Close either of the two: they share their connections.
        """
        await self._link.ask(("MULTI",), ("DEL", self._keys.ready), ("SET", self._keys.rebuild, epoch), ("EXEC",))
        return type(self)(self._link, self._keys, self._keys.rebuild)

    async def finish_rebuild(self, epoch: str) -> None:
        """Bring the rebuild's epoch into force; call it on what `begin_rebuild` returned.

        Raises StoreNotReady if the store has forgotten the rebuild, or another one has begun.
        """
        async with self._link.connection() as exchange:
            call = self._call(self._finish_rebuild, [self._keys.ready], [epoch])
            await self._run(exchange, self._finish_rebuild, lambda: [call])

    async def _apply_together(self, asked: Sequence[_Apply]) -> list[Applied]:
        async with self._link.connection() as exchange:
            rows = [(each, one.epoch) for one in asked for each in one.rows]
            counts = iter(await self._put_rows(exchange, rows))
            positions = await self._raise(exchange, asked)
        return [
            Applied(list(itertools.islice(counts, len(one.rows))), raised)
            for one, raised in zip(asked, positions, strict=True)
        ]

    async def _put_rows(self, exchange: Exchange, rows: Sequence[tuple[EncodedRows, str]]) -> list[PutCounts]:
        """Write the rows of several views in one stream, each under its epoch; what became of each view's."""
        return [PutCounts.of_letters(letters) for letters in await self._put_letters(exchange, rows)]

    async def _put_letters(
        self,
        exchange: Exchange,
        rows: Sequence[tuple[EncodedRows, str]],
        before: Sequence[Command] = (),
        said: list[Reply] | None = None,
    ) -> list[bytes]:
        """The same, a letter for each row. before: commands that go first; said: takes the replies to them."""
        cuts = [list(_cuts(each.values)) for each, _ in rows]

        def calls() -> Iterator[Command]:
            yield from before
            for (each, epoch), own in zip(rows, cuts, strict=True):
                yield from self._put_calls(each, own, epoch)

        replies = await self._run(exchange, self._put, calls)
        if said is not None:
            said += replies[: len(before)]
        letters = iter(replies[len(before) :])
        return [b"".join(itertools.islice(letters, len(own))) for own in cuts]

    def _put_calls(self, rows: EncodedRows, cuts: Sequence[tuple[int, int]], epoch: str) -> Iterator[Command]:
        lifetime = str(-1 if rows.lifetime_ms is None else rows.lifetime_ms)
        for begin, end in cuts:
            keys = self._keys.rows(rows.view, rows.keys[begin:end])
            yield self._call(self._put, keys, [epoch, lifetime, _behind_lengths(rows.values[begin:end])])

    async def _raise(self, exchange: Exchange, asked: Sequence[_Apply]) -> list[list[int | None]]:
        """Raise the marks of each; where they stand then."""
        calls = []
        for one in asked:
            keys = [self._keys.mark(move.mark) for move in one.moves]
            spans = [_position(offset) for move in one.moves for offset in (move.start, move.end)]
            calls.append(self._call(self._raise_marks, keys, [one.epoch, *spans]))
        replies = await self._run(exchange, self._raise_marks, lambda: calls)
        return [[int(position) if position else None for position in positions] for positions in replies]

    def _call(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str]) -> Command:
        """A call of a script: the gate's key before the others."""
        command: list[bytes | str] = ["EVALSHA", script.sha, str(1 + len(keys)), self._gate]
        command += keys
        command += arguments
        return tuple(command)

    def _ready(self, replies: list[bytes | None]) -> list[bytes | None]:
        """The replies, unless the first, the ready key's, is missing."""
        if replies[0] is None:
            raise self._link.not_ready()
        return replies

    async def _run(self, exchange: Exchange, script: Script, calls: Callable[[], Iterable[Command]]) -> list[Reply]:
        """The replies to calls of a script, which is loaded where the server does not know it (any longer).

        calls: gives the same calls each time; drawn on while earlier ones are under way.
        """
        replies = await exchange(_batches(calls()))
        if any(isinstance(reply, exceptions.NoScriptError) for reply in replies):
            load: Command = ("SCRIPT", "LOAD", script.text)
            loaded, *replies = await exchange(itertools.chain([[load]], _batches(calls())))
            if isinstance(loaded, exceptions.ResponseError):
                raise self._link.refusal(loaded)
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError):
                raise self._link.refusal(reply)
        return replies


def _cuts(values: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where to cut rows into calls: ranges of at most ROWS_PER_CALL rows and, unless it is one row, BYTES_PER_CALL."""
    if max(map(len, values), default=0) * ROWS_PER_CALL <= BYTES_PER_CALL:
        for begin in range(0, len(values), ROWS_PER_CALL):
            yield begin, min(begin + ROWS_PER_CALL, len(values))
        return
    begin = nbytes = 0
    for at, value in enumerate(values):
        if at > begin and (at - begin == ROWS_PER_CALL or nbytes + len(value) > BYTES_PER_CALL):
            yield begin, at
            begin, nbytes = at, 0
        nbytes += len(value)
    yield begin, len(values)


def _behind_lengths(values: Sequence[bytes]) -> bytes:
    """All values in one, each behind its length."""
    if len(set(map(len, values))) == 1:
        length = _LENGTH.pack(len(values[0]))
        return length + length.join(values)
    return b"".join(itertools.chain.from_iterable((_LENGTH.pack(len(value)), value) for value in values))


def _batches(calls: Iterable[Command]) -> Iterator[Sequence[Command]]:
    remaining = iter(calls)
    while batch := list(itertools.islice(remaining, _CALLS_PER_BATCH)):
        yield batch


def _position(offset: int) -> str:
    """An offset as marks hold it: as text that sorts as the numbers do."""
    return f"{offset:020d}"


def _require_fit(server: OnlineServer, address: str) -> None:
    """Raises SettingsError for a server that is too old, or that may evict rows."""
    if tuple(int(part) for part in server.version.split(".")[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise SettingsError(
            f"Redis at {address} is of version {server.version}; {oldest} or newer is needed: upgrade it"
        )
    if server.maxmemory_policy != "noeviction":
        raise SettingsError(
            f"Redis at {address} has maxmemory-policy {server.maxmemory_policy}, with which it drops rows when "
            "memory is short, and reads would call them not found. Forbid it: `redis-cli CONFIG SET maxmemory-policy "
            "noeviction`, on Memorystore `gcloud redis instances update INSTANCE --update-redis-config "
            "maxmemory-policy=noeviction`"
        )
