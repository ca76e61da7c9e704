"""Hints that Kafka takes in part."""

import asyncio
import gc
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from sinks.refresh_topic import RefreshTopic
from stillwell.errors import OutcomeUnknown
from stillwell.predictions.hint import Cause, Hint


class Producer:
    """Takes so many, and then has no room; those that it has taken fail later."""

    def __init__(self, room: int) -> None:
        self.taken: list[asyncio.Future[Any]] = []
        self._room = room

    async def send(self, topic: str, key: bytes, value: bytes) -> "asyncio.Future[Any]":
        if len(self.taken) == self._room:
            raise KafkaTimeoutError
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


async def test_nothing_is_left_unheard_where_some_could_not_be_sent() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    producer = Producer(room=2)
    topic = RefreshTopic(cast(AIOKafkaProducer, producer), "t")
    with pytest.raises(OutcomeUnknown, match="refresh topic t"):
        await topic.send([Hint("M", b"k", b"", {"id": 1}, Cause.READ)] * 3)
    for each in producer.taken:
        each.set_exception(KafkaTimeoutError())
    await asyncio.sleep(0)
    producer.taken.clear()
    gc.collect()
    assert complaints == []
