"""The client over a real connection, to the real pages of the service over a store in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from stillwell.client import (
    Client,
    Closed,
    NotDefined,
    NotReady,
    RequestError,
    Retries,
    Status,
    SyncClient,
    Unavailable,
)
from stillwell.errors import StillwellError
from tests.served import Served

SEEN = "2026-01-01T00:00:00.000001Z"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A service over an empty store."""
    made = Served()
    await made.client.start_server()
    yield made
    await made.client.close()


def url(served: Served) -> str:
    """Its root."""
    return str(served.client.make_url("/"))


async def test_features_come_as_they_were_stored(served: Served) -> None:
    await served.put({"id": 1, "name": "ä", "amount": 0.1, "seen": SEEN, "raw": "aGk="}, {"id": 2, "name": "b"})
    asked = [f"Users:{name}" for name in ("amount", "small", "name", "seen", "raw", "large")]
    async with Client(url(served)) as client:
        found = await client.features(asked, {"id": [2, 1, 3, 1]})
    second, first, absent, again = found
    assert first.to_dict() == again.to_dict()
    assert [each.value for each in first.features.values()][:3] == [0.1, 0.10000000149011612, "ä"]
    assert first["Users:raw"].value == b"hi"
    assert first["Users:seen"].value.microsecond == 1
    assert second["Users:amount"].status is Status.NULL_VALUE
    assert {each.status for each in absent.features.values()} == {Status.NOT_FOUND}


async def test_what_is_wrong_is_raised_as_what_it_is(served: Served) -> None:
    async with Client(url(served)) as client:
        with pytest.raises(NotReady, match="not ready"):
            await client.features(["Users:amount"], {"id": 1})
        await served.put({"id": 1, "name": "a"})
        with pytest.raises(NotDefined, match="did you mean 'amount'"):
            await client.features(["Users:amonut"], {"id": 1})
        with pytest.raises(RequestError) as refused:
            await client.features(["Users:amount"], {"id": [1, "2"]})
    assert refused.value.field == "entities.id[1]"


async def test_a_thousand_at_once_share_the_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})
    opened: list[int] = []
    monkeypatch.setattr(served.site, "_observe", lambda *request: opened.append(served.site.open))
    async with Client(url(served), connections=4, timeout=30) as client:
        found = await asyncio.gather(*[client.features(["Users:amount"], {"id": 1}) for _ in range(1_000)])
    assert {each.one()["Users:amount"].value for each in found} == {7.5}
    assert (len(opened), max(opened)) == (1_000, 4)


async def test_a_service_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Client(address, retries=Retries(attempts=2, first=0.001)) as client:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await client.features(["Users:amount"], {"id": 1})


async def test_a_connection_that_is_cut_before_the_answer_is_tried_again() -> None:
    attempts = 0

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(address, retries=Retries(attempts=3, first=0.001)) as client:
            with pytest.raises(Unavailable, match="ended the connection"):
                await client.features(["Users:amount"], {"id": 1})
    assert attempts == 3


def test_a_client_that_is_taken_to_another_event_loop_says_so() -> None:
    client = Client("http://127.0.0.1:1", retries=Retries(attempts=1))

    async def read() -> None:
        await client.features(["Users:amount"], {"id": 1})

    with pytest.raises(Unavailable):
        asyncio.run(read())
    with pytest.raises(StillwellError, match="belongs to the event loop of its first call"):
        asyncio.run(read())
    asyncio.run(client.close())


async def test_the_synchronous_client_works_where_a_loop_runs_and_for_several_threads(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})

    def read(client: SyncClient) -> object:
        return client.features(["Users:amount"], {"id": 1}).one()["Users:amount"].value

    with SyncClient(url(served)) as client:
        values = await asyncio.gather(*[asyncio.to_thread(read, client) for _ in range(20)])
        assert set(values) == {7.5}
        with pytest.raises(NotDefined):
            await asyncio.to_thread(client.features, ["Users:x"], {"id": 1})


async def test_one_that_is_closed_says_so_and_opens_nothing_again(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})
    client = Client(url(served))
    assert (await client.features(["Users:amount"], {"id": 1})).one()["Users:amount"].value == 7.5
    pusher = client.pusher("Users")
    await client.close()
    await client.close()
    for call in (
        client.features(["Users:amount"], {"id": 1}),
        client.predictions("Delay", {"id": 1}),
        client.push("Users", {"id": 1}),
    ):
        with pytest.raises(Closed, match="the client is closed: make another one"):
            await call
    receipt = await pusher.push({"id": 1})
    with pytest.raises(Closed):
        await receipt


async def test_a_call_that_is_under_way_when_its_client_is_closed_fails_and_is_not_made_again() -> None:
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        came.set()
        await reader.read()
        writer.close()

    came = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=30)
        call = asyncio.ensure_future(client.features(["Users:amount"], {"id": 1}))
        await came.wait()
        await client.close()
        with pytest.raises(Closed, match="closed before the answer came"):
            await call
    assert asked == 1
