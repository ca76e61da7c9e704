"""Producing rejected records to the dead-letter topic."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stillwell.errors import OutcomeUnknown
from stillwell.kafka_connection import refusals
from stillwell.layout.dead_letter import DeadLetter, dead_letters, headers_of
from stillwell.records import Outcome

LARGEST_VALUE = 512 << 10
"""A value of more bytes goes by reference: the topic's own limit is 1 MiB where nobody raised it."""

_AT_A_TIME = 1_000
_PATIENCE_MS = 10_000
_NULL = "null"

_MENDS = refusals("the worker's user")


def dead_letter_producer(connection: Mapping[str, Any]) -> AIOKafkaProducer:
    """The producer for `KafkaDeadLetters`, to be started. connection: what every aiokafka client needs.

    Acknowledged by all in-sync replicas, but not idempotent: aiokafka never gives up what an idempotent producer could
    not send, so that a topic which cannot be written would hold its partitions back without a word. A letter that
    comes twice is told by its coordinates.
    """
    return AIOKafkaProducer(
        **connection,
        acks="all",
        enable_idempotence=False,
        request_timeout_ms=_PATIENCE_MS,
        compression_type="lz4",
        key_serializer=_key,
    )


def _key(key: bytes | str | None) -> bytes | None:
    # aiokafka refuses a record without key and value, which Kafka takes; but only before it has serialized them.
    return None if isinstance(key, str) else key


class KafkaDeadLetters:
    """The dead-letter topic of one namespace. Acknowledged by all in-sync replicas, or not at all."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        """producer: a started `dead_letter_producer`."""
        self._producer = producer
        self._topic = topic

    async def send(self, outcome: Outcome, incarnation: int) -> None:
        """Produce every reject of a batch, and wait for the acknowledgements."""
        letters = list(dead_letters(outcome, incarnation, LARGEST_VALUE))
        for first in range(0, len(letters), _AT_A_TIME):
            try:
                sent = [await self._send(letter) for letter in letters[first : first + _AT_A_TIME]]
                await asyncio.gather(*sent)
            except (KafkaError, OSError) as error:
                mend = _MENDS.get(type(error), repr(error))
                raise OutcomeUnknown(f"dead-letter topic {self._topic}: {mend}") from error

    async def _send(self, letter: DeadLetter) -> "asyncio.Future[Any]":
        try:
            return await self._enqueue(letter)
        except MessageSizeTooLargeError:
            # Key and headers alone are too large; coordinates and reason must get through.
            return await self._enqueue(dataclasses.replace(letter, key=None, value=None, headers=(), by_reference=True))

    async def _enqueue(self, letter: DeadLetter) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = await self._producer.send(
            self._topic, key=_NULL if letter.key is None else letter.key, value=letter.value, headers=headers_of(letter)
        )
        return future
