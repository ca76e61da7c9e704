"""Producing hints to the refresh topic."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stillwell.errors import OutcomeUnknown
from stillwell.kafka_connection import refusals, unreachable
from stillwell.predictions.hint import Hint, encode

_AT_A_TIME = 1_000
"""Hints that are given to the producer before they are waited for: a span of a hub's writes may have 10,000."""

_PATIENCE_MS = 10_000
"""For an acknowledgement. A worker asks again, and a service drops the hint."""

_MENDS = refusals("our user")


def hint_producer(connection: Mapping[str, Any]) -> AIOKafkaProducer:
    """The producer for `RefreshTopic`, to be started. connection: what every aiokafka client needs.

    Acknowledged by all in-sync replicas, but not idempotent: a hint that comes twice is one look more.
    """
    return AIOKafkaProducer(
        **connection,
        acks="all",
        enable_idempotence=False,
        request_timeout_ms=_PATIENCE_MS,
        compression_type="lz4",
        linger_ms=2,
    )


class RefreshTopic:
    """The refresh topic of one namespace."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        """producer: a started `hint_producer`."""
        self._producer = producer
        self._topic = topic

    @classmethod
    async def connect(cls, connection: Mapping[str, Any], topic: str) -> Self:
        """With a producer of its own; `stop` it. Raises StoreUnavailable."""
        producer = hint_producer(connection)
        try:
            await producer.start()
        except BaseException as error:  # also where we are told to end meanwhile: it has connections open
            await producer.stop()
            if isinstance(error, KafkaError | OSError):
                raise unreachable(error) from error
            raise
        return cls(producer, topic)

    async def stop(self) -> None:
        """Close the connections."""
        await self._producer.stop()

    async def send(self, hints: Sequence[Hint]) -> None:
        """Put hints into the topic, and wait until it has them. Repeating a call repeats them, which is harmless.

        Raises OutcomeUnknown where some may be there, or none.
        """
        for first in range(0, len(hints), _AT_A_TIME):
            sent: list[asyncio.Future[Any]] = []
            try:
                for hint in hints[first : first + _AT_A_TIME]:
                    key, value = encode(hint)
                    sent.append(await self._producer.send(self._topic, key=key, value=value))
                await asyncio.gather(*sent)
            except (KafkaError, OSError) as error:
                for each in sent:  # or asyncio complains of those that fail as well, and that nobody waits for
                    each.add_done_callback(_heard)
                mend = _MENDS.get(type(error), repr(error))
                raise OutcomeUnknown(f"refresh topic {self._topic}: {mend}") from error


def _heard(sent: "asyncio.Future[Any]") -> None:
    if not sent.cancelled():
        sent.exception()
