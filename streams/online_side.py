"""One partition's side of Redis, under one epoch: rows and marks go in together, and are seen to be there still."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from stillwell.errors import StoreNotReady
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove, OnlineState
from streams.endings import OnlineFellBehind
from streams.metrics import NEWEST, SERVABLE, UPSERTS, Metrics
from streams.ports import OnlineStore
from streams.prepare import OnlineBatch
from streams.retry import Retry


class OnlineSide:
    """Asks again for as long as Redis does not answer."""

    def __init__(
        self,
        id: PartitionId,
        store: OnlineStore,
        retry: Retry,
        marks: Sequence[MarkKey],
        epoch: str,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """marks: those of every view version that the partition's rows are of. clock: seconds since 1970."""
        self.epoch = epoch
        self._id = id
        self._store = store
        self._retry = retry
        self._marks = tuple(marks)
        self._metrics = metrics
        self._clock = clock

    async def write(self, batch: OnlineBatch) -> None:
        """Rows into Redis, then the marks up to their end. Raises StoreNotReady or OnlineFellBehind."""
        rows = [each for each in batch.rows if each.keys]
        moves = [MarkMove(mark, batch.start, batch.end) for mark in self._marks]
        applied = await self._retry.until_done(lambda: self._store.apply(rows, moves, self.epoch))
        for each, counts in zip(rows, applied.counts, strict=True):
            for result, count in dataclasses.asdict(counts).items():
                self._metrics.count(UPSERTS, count, each.view, result)
        self._require(applied.positions, batch.end)
        self._observe_servable(batch)
        self._tell_newest(batch)

    async def require(self, end: int) -> OnlineState:
        """Look whether Redis, in our epoch, holds every row below an offset, and which server says so.

        Raises StoreNotReady or OnlineFellBehind if not.
        """
        state = await self._retry.until_done(self._store.read_state)
        if state.epoch != self.epoch:
            raise StoreNotReady(f"{self._id}: Redis has lost data or was rebuilt: its epoch is no longer {self.epoch}")
        self._require(await self._retry.until_done(lambda: self._store.read_marks(self._marks)), end)
        return state

    def _require(self, positions: Sequence[int | None], end: int) -> None:
        if any(position is None or position < end for position in positions):
            raise OnlineFellBehind(f"{self._id}: Redis has lost rows below offset {end} that it had acknowledged")

    def _tell_newest(self, batch: OnlineBatch) -> None:
        for rows, newest in zip(batch.rows, batch.newest, strict=True):
            if newest is not None and newest / 1e6 > self._metrics.get(NEWEST, rows.view):
                self._metrics.set(NEWEST, newest / 1e6, rows.view)

    def _observe_servable(self, batch: OnlineBatch) -> None:
        now = self._clock()
        for rows, produced_at in zip(batch.rows, batch.produced_at, strict=True):
            # -1 is a record without a timestamp; a producer's clock that is ahead of ours gives no negative time.
            known = produced_at[produced_at >= 0]
            if len(known):
                self._metrics.observe(SERVABLE, np.maximum(now - known / 1000, 0.0), rows.view)
