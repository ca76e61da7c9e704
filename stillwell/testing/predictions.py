"""Predictions and leases in memory: the twin of those in Redis, under the same contract."""

import asyncio
from collections.abc import Sequence

import msgspec

from stillwell.errors import StoreNotReady, StoreUnavailable
from stillwell.layout.prediction import lived_from, merged
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.store import Claim, Claimed, Listing, Put, Readers, StoredAt
from stillwell.testing.online import MemoryRedis


class MemoryPredictions:
    """See `stillwell.predictions.store.PredictionStore`."""

    def __init__(self, server: MemoryRedis, keys: RedisKeys | None = None) -> None:
        self.server = server
        self._ready = (keys or RedisKeys("test", "test")).ready

    async def read_at(self, keys: Sequence[bytes]) -> StoredAt:
        """What is stored under these keys, all at one instant."""
        await asyncio.sleep(0)
        self._require_primary()
        epoch = self.server.read(self._ready)
        if epoch is None:
            raise self._not_ready()
        values = [self.server.read(key) for key in keys]
        return StoredAt(epoch, values, self.server.clock() * 1_000, self.server.replication_id)

    async def claim(self, claims: Sequence[Claim], owner: bytes, lease_ms: int, epoch: bytes) -> list[Claimed]:
        """Take each lease that nobody else holds, for so long."""
        await self._require(epoch)
        claimed = []
        for each in claims:
            if self.server.read(each.lease) is None:
                self.server.write(each.lease, owner, self.server.clock() + lease_ms)
            claimed.append(Claimed(self.server.read(each.lease) == owner, self.server.read(each.record)))
        return claimed

    async def renew(self, leases: Sequence[bytes], owner: bytes, lease_ms: int, epoch: bytes) -> list[bool]:
        """Hold our leases for so long from now; False for one that is no longer ours."""
        await self._require(epoch)
        ours = [self.server.read(lease) == owner for lease in leases]
        for lease, held in zip(leases, ours, strict=True):
            if held:
                self.server.write(lease, owner, self.server.clock() + lease_ms)
        return ours

    async def release(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> None:
        """Give up those that are ours."""
        await self._require(epoch)
        for lease in leases:
            if self.server.read(lease) == owner:
                self.server.evict(lease)

    async def put(
        self,
        records: Sequence[tuple[bytes, bytes]],
        kept_ms: int,
        epoch: bytes,
        listings: Sequence[Listing] = (),
        most: int = 0,
    ) -> Put:
        """Merge each record with the one at its key, and list it with the readers of what it stands on."""
        await self._require(epoch)
        said = Put([], [], 0)
        for number, (key, record) in enumerate(records):
            stored = self.server.read(key)
            result = merged(stored, record, self.server.clock() * 1_000)
            expires = lived_from(result) // 1_000 + kept_ms
            expired = result != stored and expires <= self.server.clock()
            if result != stored and not expired:
                self.server.write(key, result, expires)
            new, dropped = False, 0
            for place in listings[number].places if listings and not expired else ():
                is_new, left = self._list(place, listings[number].entity, expires, most)
                new, dropped = new or is_new, dropped + left
            said = Put([*said.stored, result != stored and not expired], [*said.listed, new], said.dropped + dropped)
        return said

    async def readers(self, places: Sequence[bytes], each: int, most: int, epoch: bytes) -> Readers:
        """Who is listed at each place and not expired: so many of each, and so many altogether."""
        await self._require(epoch)
        self._require_primary()
        said = Readers([], 0)
        for place in places:
            known = self._living(place)
            some = sorted(known, key=lambda entity: (known[entity], entity), reverse=True)[: min(each, most)]
            most -= len(some)
            said = Readers([*said.keys, some], said.left + len(known) - len(some))
        return said

    def _list(self, place: bytes, entity: bytes, expires: int, most: int) -> tuple[bool, int]:
        """Whether a reader is new at a place, and how many leave it."""
        known = _members(self.server.read(place))
        new = entity not in known
        known[entity] = expires
        living = {each: at for each, at in known.items() if at > self.server.clock()}
        stay = dict(sorted(living.items(), key=lambda item: (item[1], item[0]))[-most:])
        if stay:
            self.server.write(place, msgspec.msgpack.encode(stay), max(stay.values()))
        else:
            self.server.evict(place)
        return new, len(living) - len(stay)

    def _living(self, place: bytes) -> dict[bytes, int]:
        return {each: at for each, at in _members(self.server.read(place)).items() if at > self.server.clock()}

    async def _require(self, epoch: bytes) -> None:
        await asyncio.sleep(0)
        if self.server.read(self._ready) != epoch:
            raise self._not_ready()

    def _require_primary(self) -> None:
        if self.server.role != "master":
            raise StoreUnavailable("it is a replica, whose rows may be behind")

    def _not_ready(self) -> StoreNotReady:
        return StoreNotReady("the ready key is missing, or holds another epoch; see `stillwell rebuild`")


def _members(stored: bytes | None) -> dict[bytes, int]:
    """A sorted set, as it is kept here: of each member when it expires."""
    return _members_of(stored) if stored else {}


_members_of = msgspec.msgpack.Decoder(dict[bytes, int]).decode
