"""Sends the records of a plan to Kafka, at the pace of the workers."""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import numpy as np
import polars as pl
from confluent_kafka import KafkaError, Message, Producer

from scripts.flights.ending import DemoFailed
from scripts.flights.table import Sent

_SLICE = 250
"""Records sent in one go, with one timestamp."""

_POLL = 0.02
_FLUSH_PATIENCE = 30.0


@dataclasses.dataclass(slots=True)
class Pace:
    """How far the feed may run ahead of what is in Redis.

    ahead: so many records as a rule: enough to keep the workers busy, few enough that rows are fresh. While a worker is
    gone the feed goes on as fast as it was, as the world does, up to so many as `outage_ahead`.
    """

    ahead: int
    outage_ahead: int
    _since: float | None = None
    _sent_before: int = 0
    _rate: float = 0.0

    def begin_outage(self, now: float, sent: int, rate: float) -> None:
        """A worker is gone. rate: records a second so far."""
        self._since, self._sent_before, self._rate = now, sent, rate

    def end_outage(self) -> None:
        """The worker is back."""
        self._since = None

    def allows(self, now: float, sent: int, served: int) -> bool:
        """Whether more may be sent."""
        if sent - served < self.ahead:
            return True
        if self._since is None or sent - served >= self.outage_ahead:
            return False
        return sent < self._sent_before + self._rate * (now - self._since)


class Feed:
    """Sends every record of a plan once, in its order, and notes when."""

    def __init__(
        self,
        bootstrap: str,
        records: pl.DataFrame,
        pace: Pace,
        served: Callable[[], Awaitable[int]],
        now_ms: Callable[[], int],
    ) -> None:
        """served: how many records Redis has taken in. now_ms: milliseconds since the epoch, for the records."""
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                # In order and without duplicates but for those of the plan: only so does the order of sending tell
                # the offsets.
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                # It would write between the lines of the table; what matters comes back as a failed delivery.
                "log_level": 2,
                "on_delivery": self._failed,
            }
        )
        self._records = records
        self._pace = pace
        self._served = served
        self._now_ms = now_ms
        self._timestamps = np.zeros(records.height, np.int64)
        self._failures: list[str] = []
        self.sent = 0
        self.sent_by_topic: Counter[str] = Counter()
        self.began = time.monotonic()
        self._ended: float | None = None
        self.is_halfway = asyncio.Event()

    @property
    def total(self) -> int:
        """Records that are to be sent."""
        return self._records.height

    @property
    def took(self) -> float:
        """Seconds since the beginning, or from the beginning to the end."""
        return (self._ended or time.monotonic()) - self.began

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.sent / max(self.took, 1e-3)

    def progress(self) -> Sent:
        """How far the feed is."""
        latest = self._records.item(max(self.sent - 1, 0), "event")
        return Sent(self.sent, self.total, self.sent_by_topic, latest)

    async def run(self) -> None:
        """Send everything; returns when Kafka has acknowledged it all. Raises DemoFailed when it did not."""
        self.began = time.monotonic()
        for records in self._records.iter_slices(_SLICE):
            # Redis has no event to wait for.
            while not self._pace.allows(time.monotonic(), self.sent, await self._served()):  # noqa: ASYNC110
                await asyncio.sleep(_POLL)
            self._send(records)
            await asyncio.sleep(0)
        deadline = time.monotonic() + _FLUSH_PATIENCE
        while len(self._producer) and time.monotonic() < deadline:
            self._producer.poll(0)
            await asyncio.sleep(_POLL)
        self._ended = time.monotonic()
        if missing := len(self._producer) + len(self._failures):
            raise DemoFailed(f"Kafka did not take {missing} records: {self._failures[:1] or 'no answer'}")

    def ledger(self) -> pl.DataFrame:
        """What was sent, in order: `sequence`, and of the plan all but what the records say."""
        sent = self._records.drop("value", "feed").with_columns(timestamp=pl.Series(self._timestamps))
        return sent.with_row_index("sequence").head(self.sent)

    def _send(self, records: pl.DataFrame) -> None:
        timestamp = self._now_ms()
        columns = records.select("topic", "partition", "key", "value", "feed").get_columns()
        for topic, partition, key, value, feed in zip(*(column.to_list() for column in columns), strict=True):
            headers = [("feed", feed.encode())] if feed else None
            self._producer.produce(topic, value.encode(), key.encode(), partition, timestamp=timestamp, headers=headers)
        self._producer.poll(0)
        self._timestamps[self.sent : self.sent + records.height] = timestamp
        self.sent += records.height
        self.sent_by_topic.update(columns[0].to_list())
        if self.sent >= self.total // 2:
            self.is_halfway.set()

    def _failed(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
