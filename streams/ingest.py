"""What a topic's agent does with a batch."""

import time
from collections import Counter

from streams.consumer import Batch
from streams.gate import RejectGate
from streams.metrics import CONFLATED, FILTERED, REJECTED, ROWS, STAGE, Metrics, Stage
from streams.ports import Threads
from streams.prepare import Prepared


class Ingest:
    """Takes the batches of one topic in their order: rows and rejects are made in a thread, then handed to the flow."""

    def __init__(self, topic: str, gate: RejectGate, threads: Threads, metrics: Metrics) -> None:
        self.topic = topic
        self._gate = gate
        self._threads = threads
        self._metrics = metrics

    async def take(self, batch: Batch) -> None:
        """Raises TooManyRejects before anything of the batch was sent anywhere."""
        if batch.flow.ended:
            return
        started = time.perf_counter()
        prepared = await self._threads.call(batch.flow.prepare, batch.records)
        self._metrics.observe(STAGE, time.perf_counter() - started, Stage.PREPARE)
        self._judge(prepared)
        self._count(prepared)
        if not batch.flow.ended:
            batch.flow.take(prepared)

    def _judge(self, prepared: Prepared) -> None:
        rejects = prepared.outcome.rejects
        rejected = len({reject.offset for reject in rejects})
        self._gate.judge(len(prepared.outcome.records), rejected, rejects[-1].error if rejects else "")

    def _count(self, prepared: Prepared) -> None:
        for rows, sent in zip(prepared.outcome.rows, prepared.online.rows, strict=True):
            self._metrics.count(ROWS, rows.frame.height, rows.view)
            self._metrics.count(FILTERED, rows.filtered, rows.view)
            self._metrics.count(CONFLATED, rows.frame.height - len(sent.keys), rows.view)
        for (view, reason), count in Counter((r.view or "*", r.reason) for r in prepared.outcome.rejects).items():
            self._metrics.count(REJECTED, count, self.topic, view, reason)
