"""Leases: who holds one asks the model, and all others wait for what comes of it.

Whoever dies leaves a lease that expires. One that was lost, or a store that does not answer, may cost a second call of
the model, and nothing else: the newest inputs win.
"""

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Sequence

from stillwell.errors import StillwellError, StoreError
from stillwell.predictions.store import Claim, Claimed, PredictionStore

LEASE_MS = 5_000
"""How long who died in the middle of a call keeps the others waiting. Renewed at a third of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What came of some claims, in their order; and the leases of those that were granted. owner: who holds them;
    epoch: of the store, under which they are."""

    claimed: Sequence[Claimed]
    leases: Sequence[bytes]
    owner: bytes
    epoch: bytes


class Leases:
    """Claims leases, holds them and gives them up. lease_ms: how long one lives that is not renewed."""

    def __init__(self, store: PredictionStore, lease_ms: int) -> None:
        self._store = store
        self._lease_ms = lease_ms

    @contextlib.asynccontextmanager
    async def claimed(self, claims: Sequence[Claim], epoch: bytes) -> AsyncIterator[Held]:
        """Take those that nobody else holds, for as long as the block lasts or as they live. Raises StoreError."""
        owner = secrets.token_bytes(12)
        claimed = await self._store.claim(claims, owner, self._lease_ms, epoch)
        leases = [claim.lease for claim, (granted, _) in zip(claims, claimed, strict=True) if granted]
        held = Held(claimed, leases, owner, epoch)
        try:
            yield held
        finally:
            if leases:
                await self._give_up(held)

    @contextlib.asynccontextmanager
    async def renewed(self, held: Held) -> AsyncIterator[None]:
        """Have them live for as long as the block lasts."""
        task = asyncio.create_task(self._renew(held))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _renew(self, held: Held) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3_000)
            with contextlib.suppress(StoreError):
                await self._store.renew(held.leases, held.owner, self._lease_ms, held.epoch)

    async def _give_up(self, held: Held) -> None:
        with contextlib.suppress(StillwellError):  # they expire
            await asyncio.shield(self._store.release(held.leases, held.owner, held.epoch))
