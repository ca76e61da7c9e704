"""What a topic's agent does with its batches."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from streams.consumer import Batch
from streams.gate import RejectGate
from streams.metrics import CONFLATED, FILTERED, REJECTED, ROWS, STAGE, Metrics, Stage
from streams.ports import Threads
from streams.prepare import Preparation, Prepared

Told = Callable[[str, Sequence[Prepared]], None]
"""Who looks at what became of a round of batches of a topic, before it goes to the sinks."""


def unseen(topic: str, prepared: Sequence[Prepared]) -> None:
    """Nobody looks."""


class Ingest:
    """Takes one topic's batches in their order: rows and rejects are made in a thread, then handed to the flows."""

    def __init__(
        self,
        preparation: Preparation,
        gate: RejectGate,
        threads: Threads,
        metrics: Metrics,
        told: Told = unseen,
    ) -> None:
        self.topic = preparation.topic.topic
        self._preparation = preparation
        self._gate = gate
        self._threads = threads
        self._metrics = metrics
        self._told = told

    async def take(self, batches: Sequence[Batch]) -> None:
        """Those of one round of fetching. Raises TooManyRejects before anything of them was sent anywhere."""
        live = [batch for batch in batches if not batch.flow.ended]
        if not live:
            return
        started = time.perf_counter()
        prepared = await self._threads.call(
            self._preparation.prepare, [(batch.flow.id, batch.records) for batch in live]
        )
        self._metrics.observe(STAGE, time.perf_counter() - started, Stage.PREPARE)
        for each in prepared:
            self._judge(each)
        self._told(self.topic, prepared)
        for batch, each in zip(live, prepared, strict=True):
            self._count(each)
            if not batch.flow.ended:
                batch.flow.take(each)

    def _judge(self, prepared: Prepared) -> None:
        rejects = prepared.rejects
        rejected = len({reject.offset for reject in rejects})
        self._gate.judge(prepared.tables.raw.num_rows, rejected, rejects[-1].error if rejects else "")

    def _count(self, prepared: Prepared) -> None:
        for rows, sent in zip(prepared.tables.views, prepared.online.rows, strict=True):
            self._metrics.count(ROWS, rows.table.num_rows, rows.view)
            self._metrics.count(FILTERED, rows.filtered, rows.view)
            self._metrics.count(CONFLATED, rows.table.num_rows - rows.offline_only - len(sent.keys), rows.view)
        for (view, reason), count in Counter((r.view or "*", r.reason) for r in prepared.rejects).items():
            self._metrics.count(REJECTED, count, self.topic, view, reason)
