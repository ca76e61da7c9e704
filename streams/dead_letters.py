"""Producing rejected records to the dead-letter topic."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stillwell.errors import OutcomeUnknown
from stillwell.layout.dead_letter import DeadLetter, dead_letters, headers_of
from stillwell.records import Outcome

LARGEST_VALUE = 512 << 10
"""A value of more bytes goes by reference: the topic's own limit is 1 MiB where nobody raised it."""

_AT_A_TIME = 1_000


class KafkaDeadLetters:
    """The dead-letter topic of one project. Acknowledged by all in-sync replicas, or not at all."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        """producer: started, with `acks="all"`."""
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
                raise OutcomeUnknown(f"dead-letter topic {self._topic}: {error!r}") from error

    async def _send(self, letter: DeadLetter) -> "asyncio.Future[Any]":
        try:
            future: asyncio.Future[Any] = await self._producer.send(
                self._topic, key=letter.key, value=letter.value, headers=headers_of(letter)
            )
        except MessageSizeTooLargeError:
            # Key and headers alone are too large; coordinates and reason must get through.
            bare = [header for header in headers_of(letter) if header not in letter.headers]
            future = await self._producer.send(self._topic, key=None, value=None, headers=bare)
        return future
