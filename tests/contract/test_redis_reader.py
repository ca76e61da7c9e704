"""Reading rows from Redis for many at once: what everybody gets, and what each failure costs whom."""

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from sinks.redis_link import RedisLink
from sinks.redis_reader import _AHEAD, _MOST_KEYS, RedisReader
from stillwell.errors import StoreNotReady, StoreUnavailable
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import free_port
from stillwell.local.redis_server import RedisServer
from stillwell.reading.online import Stored
from tests.services import Proxy
from tests.waiting import eventually_async, eventually_here

TIMEOUT = 0.3
SLACK = 2.0
"""Seconds that a busy machine may add to a deadline."""


class Rows:
    """A reader, asked for rows."""

    def __init__(self, reader: RedisReader, keys: RedisKeys) -> None:
        self.reader = reader
        self._keys = keys

    async def rows(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[bytes | None]:
        """The rows of entities, view by view, one behind the other."""
        found = await self.reader.read([key for view, entities in wanted for key in self._keys.rows(view, entities)])
        assert found.epoch == b"epoch"
        return found.values


Open = Callable[..., Rows]
Reading = asyncio.Task[list[bytes | None]]


@pytest.fixture
def keys() -> RedisKeys:
    return RedisKeys("test", f"reader-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def server(redis_url: str, keys: RedisKeys) -> redis.Redis:
    """Redis, ready, with rows `<view> <entity>` of the entities a to e in the views U and V; of e in U alone."""
    client = redis.Redis.from_url(redis_url)
    client.set(keys.ready, "epoch")
    for view, entities in (("U", b"abcde"), ("V", b"abcd")):
        named = [bytes([each]) for each in entities]
        for key, name in zip(keys.rows(view, named), named, strict=True):
            client.set(key, b"%b %b" % (view.encode(), name))
    return client


@pytest.fixture
async def open_reader(keys: RedisKeys) -> AsyncIterator[Open]:
    """open_reader(url, timeout=…, step=…): a reader, closed at the end; step: what redis-py waits for by itself."""
    opened: list[Rows] = []

    def make(url: str, timeout: float = 5.0, step: float | None = None) -> Rows:
        opened.append(Rows(RedisReader(RedisLink(url, step or timeout, 1), keys.ready, timeout), keys))
        return opened[-1]

    yield make
    for each in opened:
        await each.reader.close()


@pytest.fixture
async def reader(open_reader: Open, redis_url: str, server: object) -> Rows:
    return open_reader(redis_url)


def calls(server: redis.Redis, command: str = "mget") -> int:
    stats = server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(stats["calls"])


async def test_rows_come_view_by_view_in_the_order_asked_for(reader: Rows) -> None:
    found = await reader.rows([("V", [b"b", b"e", b"a", b"b"]), ("U", [b"e"]), ("W", [b"a"]), ("U", [])])
    assert found == [b"V b", None, b"V a", b"V b", b"U e", None]
    assert await reader.rows([]) == await reader.rows([("U", [])]) == []


async def test_a_thousand_at_once_get_their_own_in_a_few_calls(reader: Rows, server: redis.Redis) -> None:
    names = [bytes([each]) for each in b"abcdexyz"]
    await reader.rows([("U", names)])
    before = calls(server)
    asked = [[names[number % 8], names[number % 5]] for number in range(1_000)]
    answers = await asyncio.gather(*(reader.rows([("U", each)]) for each in asked))
    there = {name: b"U " + name for name in names[:5]}
    assert answers == [[there.get(name) for name in each] for each in asked]
    assert calls(server) == before + 8


async def test_redis_is_not_blamed_where_the_process_does_not_keep_up(
    open_reader: Open, redis_url: str, server: redis.Redis
) -> None:
    """Who waits too long for their turn is told why; the connection, and who is answered in time, are not touched."""
    reader = open_reader(redis_url, timeout=TIMEOUT)
    await reader.rows([("U", [b"a"])])
    connections = server.info("stats")["total_connections_received"]

    def write() -> None:
        """A wide answer: nothing else is done meanwhile."""
        time.sleep(TIMEOUT / 3)

    async def slow() -> None:
        await reader.rows([("U", [b"a"] * 500)])
        write()

    told = await asyncio.gather(*(slow() for _ in range(6 * _AHEAD)), return_exceptions=True)
    failed = [str(each) for each in told if each is not None]
    assert len(failed) < len(told)
    assert failed
    assert all("does not keep up" in each for each in failed)
    assert await reader.rows([("U", [b"b"])]) == [b"U b"]
    assert server.info("stats")["total_connections_received"] == connections


async def test_no_call_has_more_keys_than_it_may(reader: Rows, server: redis.Redis) -> None:
    await reader.rows([("U", [b"a"])])
    before = calls(server)
    answers = await asyncio.gather(*(reader.rows([("U", [b"a"] * 700)]) for _ in range(5)))
    assert answers == [[b"U a"] * 700] * 5
    assert before + 14 <= calls(server) <= before + 15
    before = calls(server)
    assert await reader.rows([("U", [b"a"] * 5_000 + [b"e"])]) == [b"U a"] * 5_000 + [b"U e"]
    assert calls(server) == before + 21


async def test_a_store_that_is_not_ready_says_nothing_of_its_rows(
    reader: Rows, server: redis.Redis, keys: RedisKeys
) -> None:
    server.delete(keys.ready)
    for wanted in ([("U", [b"a"])], []):
        with pytest.raises(StoreNotReady, match="stillwell rebuild"):
            await reader.rows(wanted)
    server.set(keys.ready, "epoch")
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]


async def test_a_read_whose_parts_are_of_two_epochs_says_nothing_of_its_rows(
    redis_url: str, server: redis.Redis, keys: RedisKeys
) -> None:
    """Redis was rebuilt behind the first replies: what the later ones lack may be what nobody has put there yet."""
    rebuild = False

    def answered(count: int, seconds: float | None) -> None:
        """Told of each reply before the next call is sent: with more than may be on their way, some are not yet."""
        nonlocal rebuild
        if rebuild:
            server.set(keys.ready, "another")
            rebuild = False

    reader = RedisReader(RedisLink(redis_url, 5.0, 1), keys.ready, 5.0, answered)
    asked = keys.rows("U", [b"a"]) * ((_AHEAD + 2) * _MOST_KEYS)
    assert (await reader.read(asked)).values == [b"U a"] * len(asked)
    rebuild = True
    with pytest.raises(StoreNotReady):
        await reader.read(asked)
    again = await reader.read(asked)
    assert (again.epoch, again.values) == (b"another", [b"U a"] * len(asked))
    await reader.close()


async def test_who_gives_up_disturbs_nobody(reader: Rows) -> None:
    tasks = [asyncio.create_task(reader.rows([("U", [b"a"])])) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [[b"U a"]] * 5
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])


async def test_a_key_of_another_type_is_no_row_and_harms_nobody_later(
    reader: Rows, server: redis.Redis, keys: RedisKeys
) -> None:
    (odd,) = keys.rows("U", [b"list"])
    server.rpush(odd, b"1")
    assert await reader.rows([("U", [b"list", b"a"])]) == [None, b"U a"]


async def test_nobody_waits_longer_than_the_deadline_for_a_server_that_is_silent(
    open_reader: Open, redis_proxy: Proxy, server: object
) -> None:
    """A connection that stays open and brings nothing, as after a lost network."""
    reader = open_reader(f"redis://{redis_proxy.address}/0", timeout=TIMEOUT)
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    with redis_proxy.toxic("timeout", timeout=0):
        begun = time.monotonic()
        waiting = [asyncio.create_task(reader.rows([("U", [b"b"])])) for _ in range(100)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - begun < TIMEOUT + SLACK
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)

    async def read() -> bool:
        try:
            return await reader.rows([("U", [b"c"])]) == [b"U c"]
        except StoreUnavailable:  # a busy machine takes longer to connect
            return False

    await eventually_async(read, what="an answer over another connection")


class SilentFirst:
    """Redis behind a proxy of two connections, of which the first falls silent, as one whose other end is gone, once
    `silent` is set; the next one answers once `well` is."""

    def __init__(self, redis_url: str) -> None:
        self.silent = asyncio.Event()
        self.well = asyncio.Event()
        self.url = ""
        self._address = urlsplit(redis_url)
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "SilentFirst":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, *(each.wait_closed() for each in self._writers), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._address.hostname, self._address.port)
        first = not self._tasks
        for each in ((reader, back), (there, writer)):
            self._tasks.append(asyncio.create_task(self._carry(*each, first)))
        self._writers += (writer, back)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, of_first: bool) -> None:
        while part := await reader.read(65_536):
            if not of_first:
                await self.well.wait()
            if not (of_first and self.silent.is_set()):
                writer.write(part)


async def asked_of_the_silent(reader: Rows, proxy: SilentFirst) -> tuple[Reading, Reading]:
    """Who waits for a connection that has fallen silent, and who does for half as long."""
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    proxy.silent.set()
    first = asyncio.create_task(reader.rows([("U", [b"b"])]))
    await asyncio.wait([first], timeout=0.75)
    return first, asyncio.create_task(reader.rows([("U", [b"c"])]))


async def test_who_asks_shortly_before_a_connection_is_given_up_is_asked_for_over_the_next_one(
    open_reader: Open, redis_url: str, server: object
) -> None:
    async with SilentFirst(redis_url) as proxy:
        reader = open_reader(proxy.url, timeout=1.5)
        proxy.well.set()
        first, second = await asked_of_the_silent(reader, proxy)
        with pytest.raises(StoreUnavailable, match="gives no answer within"):
            await first
        assert await second == [b"U c"]
        assert reader.reader.waiting == 0


async def test_who_asks_while_others_are_asked_for_again_has_their_own_time(
    open_reader: Open, redis_url: str, server: object
) -> None:
    """The next connection is slow to come: longer than they have time who asked before the first one was given up."""
    async with SilentFirst(redis_url) as proxy:
        reader = open_reader(proxy.url, timeout=1.5)
        first, second = await asked_of_the_silent(reader, proxy)
        with pytest.raises(StoreUnavailable, match="gives no answer within"):
            await first
        third = asyncio.create_task(reader.rows([("U", [b"d"])]))
        with pytest.raises(StoreUnavailable, match="gives no answer within"):
            await second
        proxy.well.set()
        assert await third == [b"U d"]
        assert reader.reader.waiting == 0


async def test_a_slow_answer_is_given_up_and_not_taken_for_another(
    open_reader: Open, redis_proxy: Proxy, server: object
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0", timeout=TIMEOUT)
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    with redis_proxy.toxic("latency", latency=round(TIMEOUT * 2_000)), pytest.raises(StoreUnavailable):
        await reader.rows([("U", [b"b"])])
    answers = [await reader.rows([("U", [name])]) for name in (b"c", b"d", b"e")]
    assert answers == [[b"U c"], [b"U d"], [b"U e"]]


async def test_a_connection_that_ends_within_an_answer_is_made_anew(
    open_reader: Open, redis_proxy: Proxy, server: object
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0")
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    with redis_proxy.toxic("limit_data", bytes=10), pytest.raises(StoreUnavailable, match="ended the connection"):
        await reader.rows([("U", [b"b"] * 100)])
    assert await reader.rows([("U", [b"c"])]) == [b"U c"]


async def test_a_server_that_is_gone_is_told_at_once_and_found_again(
    open_reader: Open, redis_proxy: Proxy, server: redis.Redis
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0")
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    redis_proxy.down()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await reader.rows([("U", [b"b"])])
    redis_proxy.up()

    async def found() -> bool:
        try:
            return await reader.rows([("U", [b"c"])]) == [b"U c"]
        except StoreUnavailable:
            return False

    await eventually_async(found, what="an answer from the server that is back")


@pytest.mark.parametrize("step", [TIMEOUT / 3, 10 * TIMEOUT])
async def test_a_server_that_is_silent_from_the_start_leaves_nothing_open(
    open_reader: Open, redis_proxy: Proxy, server: object, step: float
) -> None:
    """It takes the connection, and answers nothing of what is said to begin with, whoever's patience ends first."""
    reader = open_reader(f"redis://{redis_proxy.address}/0", timeout=TIMEOUT, step=step)
    with redis_proxy.toxic("timeout", timeout=0):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await reader.rows([("U", [b"a"])])
        assert time.monotonic() - begun < TIMEOUT + SLACK
        gc.collect()  # what is open and forgotten warns, and a warning is an error

    async def found() -> bool:
        try:
            return await reader.rows([("U", [b"c"])]) == [b"U c"]
        except StoreUnavailable:
            return False

    await eventually_async(found, what="an answer from the server that speaks")


async def test_a_server_that_is_away_is_not_called_by_everybody_who_asks(
    open_reader: Open, redis_proxy: Proxy, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0")
    attempts: list[float] = []
    connect = reader.reader._link.connect_alone

    async def counted() -> object:
        attempts.append(time.monotonic())
        return await connect()

    monkeypatch.setattr(reader.reader._link, "connect_alone", counted)
    redis_proxy.down()
    begun = time.monotonic()
    for _ in range(200):
        with pytest.raises(StoreUnavailable):
            await reader.rows([("U", [b"a"])])
    assert len(attempts) <= 1 + (time.monotonic() - begun) / 0.1
    redis_proxy.up()


async def test_a_server_that_is_not_to_be_read_is_not_connected_to_by_everybody_who_asks(
    open_reader: Open, keys: RedisKeys, pair: tuple[RedisServer, RedisServer]
) -> None:
    """It takes connections, and each shows what it is only when it is asked."""
    replica, primary = pair
    with redis.Redis.from_url(replica.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
        reader = open_reader(replica.url)
        before = client.info("stats")["total_connections_received"]
        begun = time.monotonic()
        for _ in range(300):
            with pytest.raises(StoreUnavailable, match="it is a replica"):
                await reader.rows([("U", [b"a"])])
        made = client.info("stats")["total_connections_received"] - before
        assert 1 <= made <= 1 + (time.monotonic() - begun) / 0.1


async def test_a_server_that_never_was_is_named_with_the_setting(open_reader: Open) -> None:
    reader = open_reader(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable, match=r"cannot be reached: .*check that it runs, and STILLWELL_REDIS_URL"):
        await reader.rows([("U", [b"a"])])


async def test_after_close_nobody_waits(reader: Rows) -> None:
    waiting = asyncio.create_task(reader.rows([("U", [b"a"])]))
    await asyncio.sleep(0)
    await reader.reader.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers of this test's own."""
    folders = [tmp_path / name for name in ("first", "second")]
    servers = [RedisServer(folder, config={"repl-diskless-sync-delay": "0"}) for folder in folders]
    for folder, each in zip(folders, servers, strict=True):
        folder.mkdir()
        each.start()
    yield servers[0], servers[1]
    for each in servers:
        each.stop()


async def test_a_primary_that_was_demoted_is_left_by_its_readers(
    open_reader: Open, keys: RedisKeys, pair: tuple[RedisServer, RedisServer]
) -> None:
    """It keeps its clients and answers them, from rows that it no longer gets first."""
    demoted, promoted = pair
    (row,) = keys.rows("U", [b"a"])
    with redis.Redis.from_url(demoted.url) as first, redis.Redis.from_url(promoted.url) as second:
        second.set(keys.ready, "epoch")
        second.set(row, b"newer")
        first.set(keys.ready, "epoch")
        first.set(row, b"older")
        reader = open_reader(demoted.url)
        assert await reader.rows([("U", [b"a"])]) == [b"older"]
        first.execute_command("REPLICAOF", "127.0.0.1", str(promoted.port))

        async def refused() -> bool:
            try:
                await reader.rows([("U", [b"a"])])
            except StoreUnavailable as error:
                return "it is a replica: point STILLWELL_REDIS_URL at the primary" in str(error)
            return False

        await eventually_async(refused, within_s=5, what="a refusal to read from a replica")

        async def synced() -> bool:
            return bool(first.get(row) == b"newer")

        await eventually_async(synced, within_s=20, what="a replica that has all")
        assert await refused()  # though its rows are all there: it may be behind at any moment
        before = reader.reader._replication_id
        first.execute_command("REPLICAOF", "NO", "ONE")

        async def read() -> bool:
            try:
                return await reader.rows([("U", [b"a"])]) == [b"newer"]
            except StoreUnavailable:
                return False

        await eventually_async(read, what="an answer from a primary")
        told = (await reader.reader.read([row])).replication_id
        assert told == first.info("replication")["master_replid"]
        assert len(told) == 40
        assert told != before


async def test_no_more_calls_are_on_their_way_than_may_be(
    open_reader: Open, redis_proxy: Proxy, server: redis.Redis
) -> None:
    """While they are, those who come gather, and are asked for together."""
    reader = open_reader(f"redis://{redis_proxy.address}/0")
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    before = calls(server)
    with redis_proxy.toxic("latency", latency=500):
        waiting = []
        for _ in range(20):
            waiting += [asyncio.create_task(reader.rows([("U", [b"a"])])) for _ in range(10)]
            await asyncio.sleep(0.001)
        assert len(reader.reader._sent) <= _AHEAD + 1  # and a look at the server's role
        assert reader.reader.waiting == 200
        assert await asyncio.gather(*waiting) == [[b"U a"]] * 200
    assert calls(server) - before <= _AHEAD + 2
    assert reader.reader.waiting == 0


async def test_more_keys_than_may_wait_are_refused_at_once(
    open_reader: Open, redis_proxy: Proxy, server: object
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0", timeout=30.0)
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    with redis_proxy.toxic("latency", latency=50):
        held = [asyncio.create_task(reader.rows([("U", [b"a"] * 2_000)])) for _ in range(110)]
        answers = await asyncio.gather(*held, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
        assert 5 <= len(refused) <= 10  # some may have been sent before the last one came
        assert "keys wait to be asked of Redis at" in str(refused[0])
        assert all(answer == [b"U a"] * 2_000 for answer in answers if answer not in refused)
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]


async def test_a_read_too_many_is_refused_as_a_whole_and_one_alone_never(
    open_reader: Open, redis_proxy: Proxy, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.redis_reader._MOST_WAITING", 2_000)
    reader = open_reader(f"redis://{redis_proxy.address}/0", timeout=30.0)
    assert await reader.rows([("U", [b"a"] * 5_000)]) == [b"U a"] * 5_000
    with redis_proxy.toxic("latency", latency=200):
        held = [asyncio.create_task(reader.rows([("U", [b"a"] * 500)])) for _ in range(4)]
        await eventually_here(lambda: reader.reader.waiting == 8, what="reads that wait")
        waiting = reader.reader._waiting_keys
        with pytest.raises(StoreUnavailable, match="keys wait to be asked of Redis"):
            await reader.rows([("U", [b"a"] * 1_500)])
        assert reader.reader._waiting_keys == waiting
        assert await asyncio.gather(*held) == [[b"U a"] * 500] * 4


async def test_what_nobody_wants_any_more_is_not_asked_for(
    open_reader: Open, redis_proxy: Proxy, server: redis.Redis
) -> None:
    reader = open_reader(f"redis://{redis_proxy.address}/0")
    assert await reader.rows([("U", [b"a"])]) == [b"U a"]
    before = calls(server)
    with redis_proxy.toxic("latency", latency=300):
        gone = asyncio.create_task(reader.rows([("U", [b"a"] * 250 * 40)]))
        await eventually_here(lambda: len(reader.reader._sent) >= _AHEAD, what="calls on their way")
        gone.cancel()
        assert await reader.rows([("U", [b"b"])]) == [b"U b"]
    assert calls(server) - before <= _AHEAD + 1
    assert (reader.reader.waiting, reader.reader._waiting_keys) == (0, 0)


async def test_who_asks_joins_no_call_that_has_waited_for_long(
    open_reader: Open, redis_url: str, server: object
) -> None:
    """It would be refused with it, long before its own time is over; the server may be back by then."""
    async with SilentFirst(redis_url) as proxy:
        reader = open_reader(proxy.url, timeout=1.5)
        assert await reader.rows([("U", [b"a"])]) == [b"U a"]
        proxy.silent.set()
        on_their_way = []
        while len(reader.reader._sent) < _AHEAD:
            on_their_way.append(asyncio.create_task(reader.rows([("U", [b"b"])])))
            await asyncio.sleep(0)
        early = asyncio.create_task(reader.rows([("U", [b"c"])]))
        await asyncio.wait([early], timeout=1.2)
        late = asyncio.create_task(reader.rows([("U", [b"d"])]))
        told = await asyncio.gather(*on_their_way, early, return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in told)
        proxy.well.set()
        assert await late == [b"U d"]
        assert reader.reader.waiting == 0


async def test_where_one_part_of_a_read_has_failed_nobody_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RedisReader(RedisLink("redis://127.0.0.1:1/0", 1.0, 1), b"ready", 1.0)
    parts: list[asyncio.Future[Stored]] = []

    def ask(keys: Sequence[bytes]) -> "asyncio.Future[Stored]":
        parts.append(asyncio.get_running_loop().create_future())
        return parts[-1]

    monkeypatch.setattr(reader, "_ask", ask)
    reading = asyncio.ensure_future(reader.read([b"key"] * (3 * _MOST_KEYS)))
    await eventually_here(lambda: len(parts) == 3, what="three parts")
    parts[1].set_exception(StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable, match="gone"):
        await reading
    assert [each.cancelled() for each in parts] == [True, False, True]


async def test_a_read_in_parts_is_of_one_epoch_and_names_a_server_only_where_it_is_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis was rebuilt, or another server took over, between two of them."""
    reader = RedisReader(RedisLink("redis://127.0.0.1:1/0", 1.0, 1), b"ready", 1.0)
    keys = [b"key"] * (2 * _MOST_KEYS)

    def parts(*told: tuple[bytes, str]) -> None:
        each = iter(told)

        def ask(keys: Sequence[bytes]) -> "asyncio.Future[Stored]":
            epoch, server = next(each)
            asked: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
            asked.set_result(Stored(epoch, [None] * len(keys), server))
            return asked

        monkeypatch.setattr(reader, "_ask", ask)

    parts((b"e1", "s1"), (b"e1", "s1"))
    assert (await reader.read(keys)).under == Stored(b"e1", [], "s1").under
    parts((b"e1", "s1"), (b"e1", "s2"))
    mixed = (await reader.read(keys)).under
    assert mixed not in {Stored(b"e1", [], server).under for server in ("s1", "s2")}
    parts((b"e1", "s1"), (b"e2", "s1"))
    with pytest.raises(StoreNotReady):
        await reader.read(keys)
    await reader.close()
