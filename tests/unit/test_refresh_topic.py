"""The topic of hints, where Kafka takes connections and says nothing, is not there, or takes hints in part."""

import asyncio
import gc
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from sinks.refresh_topic import RefreshTopic
from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.local import free_port
from stillwell.predictions.hint import Cause, Hint
from tests.waiting import eventually_async


async def test_who_is_told_to_end_while_it_connects_leaves_no_connection_open() -> None:
    open_now = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            while await reader.read(1_000):
                pass
        finally:
            open_now -= 1
            writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connecting = asyncio.create_task(RefreshTopic.connect({"bootstrap_servers": address}, "t"))

        async def is_open(count: int) -> bool:
            return open_now == count

        await eventually_async(lambda: is_open(1), what="a connection")
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await eventually_async(lambda: is_open(0), what="its end")
    gc.collect()


async def test_a_kafka_that_is_not_there_is_told() -> None:
    with pytest.raises(StoreUnavailable, match="Kafka cannot be reached"):
        await RefreshTopic.connect({"bootstrap_servers": f"127.0.0.1:{free_port()}"}, "t")


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
