"""Predictions and leases in memory: the twin of those in Redis, under the same contract."""

import asyncio
from collections.abc import Sequence

from stillwell.errors import StoreNotReady, StoreUnavailable
from stillwell.layout.prediction import lived_from, merged
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.store import Claim, Claimed, StoredAt
from stillwell.testing.online import MemoryRedis


class MemoryPredictions:
    """See `stillwell.predictions.store.PredictionStore`."""

    def __init__(self, server: MemoryRedis, keys: RedisKeys | None = None) -> None:
        self.server = server
        self._ready = (keys or RedisKeys("test", "test")).ready

    async def read_at(self, keys: Sequence[bytes]) -> StoredAt:
        """What is stored under these keys, all at one instant."""
        await asyncio.sleep(0)
        if self.server.role != "master":
            raise StoreUnavailable("it is a replica, whose rows may be behind")
        epoch = self.server.read(self._ready)
        if epoch is None:
            raise self._not_ready()
        return StoredAt(epoch, [self.server.read(key) for key in keys], self.server.clock() * 1_000)

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

    async def put(self, records: Sequence[tuple[bytes, bytes]], kept_ms: int, epoch: bytes) -> list[bool]:
        """Merge each record with the one at its key; whether that changed it."""
        await self._require(epoch)
        return [self._put(key, record, kept_ms) for key, record in records]

    def _put(self, key: bytes, record: bytes, kept_ms: int) -> bool:
        stored = self.server.read(key)
        result = merged(stored, record, self.server.clock() * 1_000)
        expires = lived_from(result) // 1_000 + kept_ms
        if result == stored or expires <= self.server.clock():
            return False
        self.server.write(key, result, expires)
        return True

    async def _require(self, epoch: bytes) -> None:
        await asyncio.sleep(0)
        if self.server.read(self._ready) != epoch:
            raise self._not_ready()

    def _not_ready(self) -> StoreNotReady:
        return StoreNotReady("the ready key is missing, or holds another epoch; see `stillwell rebuild`")
