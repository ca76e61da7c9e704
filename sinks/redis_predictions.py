"""Predictions in Redis, and the leases of those who compute them: the slow side, for what is not fresh.

What is read in every request comes with the rows, by `sinks.redis_reader`. Here inputs and time are read at one
instant, and everything that compares before it writes is a script in `lua/` that looks at the ready key first.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from redis import exceptions

from sinks.redis import Script
from sinks.redis_link import Command, RedisLink, Reply, facts_of
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.store import Claim, Claimed, Listing, Put, Readers, StoredAt

_T = TypeVar("_T")

_PER_CALL = 50
"""Predictions in one call: the server does nothing else meanwhile, some 100 µs."""

_READERS_PER_CALL = 500
"""… and readers of rows, which take a millisecond or two."""


class RedisPredictions:
    """See `stillwell.predictions.store.PredictionStore`. Whoever made the link closes it."""

    def __init__(self, link: RedisLink, keys: RedisKeys) -> None:
        self._link = link
        self._ready = keys.ready
        self._nothing = keys.probe + b"never"
        self._put = Script.load("put_prediction")
        self._claim = Script.load("claim_leases")
        self._keep = Script.load("keep_leases")
        self._read_readers = Script.load("read_readers")

    async def read_at(self, keys: Sequence[bytes]) -> StoredAt:
        """What is stored under these keys, all at one instant."""
        # To delete what is never there makes it a write, which a primary that was demoted refuses. Reads it answers, to
        # clients that it has kept, from rows that may be behind: what is stale would be called fresh, and forgotten.
        *_, replies = await self._link.ask(
            ("MULTI",),
            ("TIME",),
            ("MGET", self._ready, *keys),
            ("INFO", "replication"),
            ("DEL", self._nothing),
            ("EXEC",),
        )
        (seconds, microseconds), (epoch, *values), info, _ = replies
        if epoch is None:
            raise self._link.not_ready()
        at_us = int(seconds) * 1_000_000 + int(microseconds)
        return StoredAt(epoch, values, at_us, facts_of(info)["master_replid"])

    async def claim(self, claims: Sequence[Claim], owner: bytes, lease_ms: int, epoch: bytes) -> list[Claimed]:
        """Take each lease that nobody else holds, for so long."""
        claimed: list[Claimed] = []
        for some in _parts(claims):
            keys = [key for each in some for key in (each.lease, each.record)]
            replies = await self._run(self._claim, keys, [epoch, owner, str(lease_ms)])
            # An array of Lua's ends at its last answer that is not nil.
            replies += [None] * (len(keys) - len(replies))
            claimed += [Claimed(held == b"1", record) for held, record in zip(*[iter(replies)] * 2, strict=True)]
        return claimed

    async def renew(self, leases: Sequence[bytes], owner: bytes, lease_ms: int, epoch: bytes) -> list[bool]:
        """Hold our leases for so long from now; False for one that is no longer ours."""
        letters = [await self._run(self._keep, some, [epoch, owner, str(lease_ms)]) for some in _parts(leases)]
        return [letter == ord("k") for letter in b"".join(letters)]

    async def release(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> None:
        """Give up those that are ours."""
        for some in _parts(leases):
            await self._run(self._keep, some, [epoch, owner, "0"])

    async def put(
        self,
        records: Sequence[tuple[bytes, bytes]],
        kept_ms: int,
        epoch: bytes,
        listings: Sequence[Listing] = (),
        most: int = 0,
    ) -> Put:
        """Merge each record with the one at its key, and list it with the readers of what it stands on."""
        said = Put([], [], 0)
        width = len(listings[0].places) if listings else 0
        listed = listings or [Listing(b"", ())] * len(records)
        for some in _parts(list(zip(records, listed, strict=True))):
            keys = [each for (key, _), listing in some for each in (key, *listing.places)]
            values = [each for (_, value), listing in some for each in (value, listing.entity)]
            letters, listing_letters, dropped = await self._run(
                self._put, keys, [epoch, str(kept_ms), str(width), str(most), *values]
            )
            said = Put(
                said.stored + [letter == ord("a") for letter in letters],
                said.listed + [letter == ord("n") for letter in listing_letters],
                said.dropped + dropped,
            )
        return said

    async def readers(self, places: Sequence[bytes], each: int, most: int, epoch: bytes) -> Readers:
        """Who is listed at each place and not expired: so many of each, and so many altogether."""
        found: list[list[bytes]] = [[] for _ in places]
        counts = [0] * len(places)
        told = at = 0
        while at < len(places):
            room = min(most - told, _READERS_PER_CALL)
            asked = (epoch, str(each), str(room), str(len(found[at])))
            part = places[at : at + _PER_CALL]
            replies = await self._run(self._read_readers, [self._nothing, *part], asked)
            for number, (count, some) in enumerate(replies, at):
                counts[number] = count
                found[number] += some
            now = sum(len(some) for _, some in replies)
            told += now
            # A call that is full goes on where it ended.
            at += max(number for number, (_, some) in enumerate(replies) if some) if 0 < now == room else len(part)
        return Readers(found, sum(counts) - told)

    async def _run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str]) -> Reply:
        """The reply to a script, which is loaded where the server does not know it (any longer)."""
        call: Command = ("EVALSHA", script.sha, str(1 + len(keys)), self._ready, *keys, *arguments)
        async with self._link.connection() as exchange:
            (reply,) = await exchange([[call]])
            if isinstance(reply, exceptions.NoScriptError):
                *_, reply = await exchange([[("SCRIPT", "LOAD", script.text), call]])
        if isinstance(reply, exceptions.ResponseError):
            raise self._link.refusal(reply)
        return reply


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(items), _PER_CALL):
        yield items[begin : begin + _PER_CALL]
