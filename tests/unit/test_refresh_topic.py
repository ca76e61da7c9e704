"""Connecting to the topic of hints, where Kafka takes connections and says nothing, or is not there."""

import asyncio
import gc

import pytest

from sinks.refresh_topic import RefreshTopic
from stillwell.errors import StoreUnavailable
from stillwell.local import free_port
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
