"""Connections to Redis that the other side ends, by both event loops: uvloop raises where asyncio keeps silent."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from sinks.redis_link import RedisLink
from stillwell.errors import OutcomeUnknown, StoreUnavailable

RUNS = [asyncio.run, uvloop.run]
TURNS = range(4)
"""Of the event loop, between the end of a connection and what is sent over it."""

AT_ONCE = 8


@contextlib.asynccontextmanager
async def resetting(pings: int, turns: int = 0) -> AsyncIterator[RedisLink]:
    """A link to a server that resets each connection: as soon as it has answered so many PINGs and these turns of the
    event loop are over."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = pings
        while left > 0 and (told := await reader.read(1_000)):
            left -= told.count(b"PING")
            writer.write(b"+OK\r\n" * (told.count(b"SETINFO") + told.count(b"PING")))
        for _ in range(turns):
            await asyncio.sleep(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        link = RedisLink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", 5.0, AT_ONCE)
        try:
            yield link
        finally:
            await link.close()


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("run", RUNS)
def test_a_connection_that_is_ended_while_it_is_made_is_a_store_that_cannot_be_reached(
    run: Callable[..., None], turns: int
) -> None:
    async def ask() -> None:
        async with resetting(0, turns) as link:
            for _ in range(5):
                for call in (lambda: link.ask(("PING",)), link.connect_alone):
                    told = await asyncio.gather(*(call() for _ in range(AT_ONCE)), return_exceptions=True)
                    assert {type(each) for each in told} <= {StoreUnavailable, OutcomeUnknown}, told

    run(ask())


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("run", RUNS)
def test_a_connection_that_is_ended_between_two_calls_leaves_the_second_ones_outcome_unknown(
    run: Callable[..., None], turns: int
) -> None:
    async def twice(link: RedisLink) -> None:
        async with link.connection() as exchange:
            assert await exchange([[("PING",)]]) == [b"OK"]
            for _ in range(turns):
                await asyncio.sleep(0)
            await exchange([[("PING",)]])

    async def ask() -> None:
        async with resetting(1) as link:
            for _ in range(5):
                told = await asyncio.gather(*(twice(link) for _ in range(AT_ONCE)), return_exceptions=True)
                assert {type(each) for each in told} == {OutcomeUnknown}, told

    run(ask())
