"""The producer of the push log: made when it is first needed, and thrown away when it has failed.

    none ──started──► starting ──► in use ──discard──► none          what is thrown away is let go of, behind all this
                          │
                          └─ not reached ──► refused, for a moment ──► none

The producer is idempotent, so that aiokafka's own attempts repeat no record and keep the order of a partition. Such a
producer never gives up a batch, and after one that failed for good Kafka refuses all others of its partition: so it is
thrown away with what it had not sent.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stillwell.errors import StoreUnavailable
from stillwell.kafka_connection import unreachable

METADATA_MAX_AGE_MS = 10_000
"""How soon new partitions are noticed."""

_BATCH_BYTES = 960_000
"""More than the largest record (`stillwell.pushing.record.LARGEST_RECORD`) and what a batch takes besides."""

_REFUSE_FOR = 0.2
"""Seconds after a producer that could not be started in which everybody is refused at once."""

FAREWELL = 1.0
"""Seconds for a producer that is thrown away to let go of its connections."""


class Producer(Protocol):
    """What is used of aiokafka's producer."""

    async def start(self) -> None: ...

    async def partitions_for(self, topic: str) -> set[int]: ...

    def create_batch(self) -> Any: ...

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Awaitable[Any]: ...


def push_producer(connection: Mapping[str, Any], timeout: float) -> AIOKafkaProducer:
    """A producer for `KafkaPushLog`, to be started. connection: what every aiokafka client needs."""
    return AIOKafkaProducer(
        **connection,
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",  # aiokafka asks LZ4 for its best, which takes longer and makes more
        max_batch_size=_BATCH_BYTES,
        request_timeout_ms=round(timeout * 1_000),
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )


class ProducerInUse:
    """One at a time, for one event loop; `close` it."""

    def __init__(self, make: Callable[[], Producer], timeout: float) -> None:
        """make: gives a producer that is not started. timeout: seconds in which it must have been."""
        self.current: Producer | None = None
        """The one that is started, if any is."""
        self._make = make
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._starting: asyncio.Task[Producer] | None = None
        self._refused: tuple[float, StoreUnavailable] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def started(self) -> Producer:
        """The current one; started now, where there is none. Raises StoreUnavailable."""
        if self.current is not None:
            return self.current
        if self._refused and self._loop.time() < self._refused[0] + _REFUSE_FOR:
            raise self._refused[1]
        if self._closed:
            raise StoreUnavailable("the query service ends: push again, to another")
        if self._starting is None:
            self._starting = self.spawn(self._start())
        return await asyncio.shield(self._starting)

    def discard(self, producer: Producer | None = None) -> bool:
        """Throw the current one away (only if it still is this one), with every batch that it was given; whether it
        was."""
        if self.current is None or (producer is not None and producer is not self.current):
            return False
        thrown_away, self.current = self.current, None
        self.spawn(_let_go(thrown_away))
        return True

    def refuse(self) -> None:
        """Start none any more."""
        self._closed = True

    async def close(self) -> None:
        """Let go of Kafka."""
        self.refuse()
        self.discard()
        if self._starting:
            self._starting.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=2 * FAREWELL)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Have work done about a producer, which `close` waits for."""
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _start(self) -> Producer:
        producer = self._make()
        try:
            async with asyncio.timeout(self._timeout):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            self._refused = self._loop.time(), unreachable(error)
            self.spawn(_let_go(producer))
            raise self._refused[1] from error
        except asyncio.CancelledError:
            self.spawn(_let_go(producer))
            raise
        finally:
            self._starting = None
        self._refused = None
        self.current = producer
        return producer

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # has been told to those who wait; to nobody, where they are gone


async def _let_go(producer: Any) -> None:
    """End a producer that cannot send what it has: its own `stop` would wait for that."""
    producer._closed = True  # or its end would be told as a leak
    with contextlib.suppress(Exception):
        async with asyncio.timeout(FAREWELL):
            await producer._sender.close()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(FAREWELL):
            await producer.client.close()
