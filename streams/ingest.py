"""What a topic's agent does with its batches."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from stillwell.broken import Broken, RuleId
from streams.consumer import Batch
from streams.gate import RejectGate, refuse_what_stops
from streams.metrics import CONFLATED, EXPECTATIONS_BROKEN, FILTERED, REJECTED, ROWS, STAGE, Metrics, Stage
from streams.ports import Threads
from streams.prepare import Preparation, Prepared

_log = structlog.get_logger(__name__)

_TELL_EVERY = 60.0
"""Seconds between two lines of the log about one rule that warns: who breaks it does so record by record."""

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
        self._warnings = Warnings(self.topic)

    async def take(self, batches: Sequence[Batch]) -> None:
        """Those of one round of fetching. Raises TooManyRejects and StopRuleBroken before anything of them was sent
        anywhere."""
        live = [batch for batch in batches if not batch.flow.ended]
        if not live:
            return
        started = time.perf_counter()
        prepared = await self._threads.call(
            self._preparation.prepare, [(batch.flow.id, batch.records) for batch in live]
        )
        self._metrics.observe(STAGE, time.perf_counter() - started, Stage.PREPARE)
        for broken in prepared.broken:
            self._metrics.count(EXPECTATIONS_BROKEN, broken.count, self.topic, *broken.rule)
        refuse_what_stops(self.topic, prepared.broken)
        for each in prepared.batches:
            self._judge(each)
        self._told(self.topic, prepared.batches)
        self._warnings.tell(prepared.broken)
        for batch, each in zip(live, prepared.batches, strict=True):
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


class Warnings:
    """Tells the log of rules of one topic that warn, at once and then at a slow pace."""

    def __init__(self, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that only grow."""
        self._topic = topic
        self._clock = clock
        self._told: dict[RuleId, float] = {}
        self._since: Counter[RuleId] = Counter()

    def tell(self, broken: Sequence[Broken]) -> None:
        """What records of a round broke. A line names the first of the round, and counts those since the last line."""
        for each in broken:
            if each.rule.action == "warn":
                self._since[each.rule] += each.count
                self._tell(each)

    def _tell(self, broken: Broken) -> None:
        now, rule = self._clock(), broken.rule
        if now - self._told.get(rule, -_TELL_EVERY) < _TELL_EVERY:
            return
        self._told[rule] = now
        _log.warning(
            "records break an expectation that warns; they are kept",
            topic=self._topic,
            column=rule.column,
            rule=rule.rule,
            records=self._since.pop(rule),
            partition=broken.partition,
            offset=broken.offset,
            value=broken.value,
        )
