"""What the online store in Redis does beyond the contract: servers that are unfit, silent, full, gone, or another."""

import asyncio
import contextlib
import os
import random
import re
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import exceptions

from sinks.redis import BYTES_PER_CALL, ROWS_PER_CALL, RedisOnlineStore, _cuts, _require_fit
from sinks.redis_link import COMMANDS, Command, Exchange, RedisLink, Reply
from sinks.redis_predictions import RedisPredictions
from stillwell.errors import FormatError, OutcomeUnknown, SettingsError, StoreError, StoreNotReady, StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import EncodedRows, MarkKey, MarkMove, OnlineServer, PutCounts
from stillwell.layout.prediction import Outputs, Record
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.layout.stamp import STAMP_BYTES
from stillwell.local import free_port
from stillwell.predictions.store import Listing
from stillwell.settings import Settings
from stillwell.testing.online import MemoryOnlineStore
from tests.online_support import (
    EPOCH,
    HOUR_MS,
    VIEW,
    AnyRedisServer,
    RealServer,
    TwinServer,
    assert_same,
    encoded,
    executables,
    locale_that_sorts,
    now_us,
    rows,
    stamp,
    value,
)
from tests.waiting import eventually

StartServer = Callable[..., AnyRedisServer]
Connect = Callable[..., RedisOnlineStore]

KEYS = RedisKeys("test", "failures")
NOW_US = now_us()
ROW = (b"i1:7", value(stamp(NOW_US)))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[StartServer]:
    """own(maxmemory="2mb"): a server of this test's own."""
    running: list[AnyRedisServer] = []

    def start(**config: str) -> AnyRedisServer:
        directives = {name.replace("_", "-"): setting for name, setting in config.items()}
        executable = next(iter(executables().values()))
        running.append(AnyRedisServer(executable, tmp_path / f"redis-{len(running)}", directives))
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
async def store_at() -> AsyncIterator[Connect]:
    """store_at(url, timeout=0.3): a store, closed at the end."""
    opened: list[RedisOnlineStore] = []

    def connect(url: str, timeout: float = 5.0, connections: int = 4) -> RedisOnlineStore:
        opened.append(RedisOnlineStore(RedisLink(url, timeout, connections), KEYS))
        return opened[-1]

    yield connect
    for store in opened:
        await store.close()


@pytest.fixture(scope="module", params=executables())
def shared_url(request: pytest.FixtureRequest, redis_of: Callable[[str], AnyRedisServer]) -> str:
    """The URL of a server of each kind."""
    return redis_of(request.param).url


@pytest.fixture
async def store(shared_url: str) -> AsyncIterator[RedisOnlineStore]:
    """A store that is ready, on a server of each kind."""
    store = RedisOnlineStore(RedisLink(shared_url, 5.0, 4), RealServer(shared_url).keys)
    await store.initialise(EPOCH)
    yield store
    await store.close()


def many_rows(count: int) -> EncodedRows:
    """Rows of so many entities."""
    stamps = [stamp(NOW_US, offset=at) for at in range(count)]
    return EncodedRows(
        VIEW, 1, [b"i%d:%d" % (len(str(at)), at) for at in range(count)], encoded(stamps, [""] * count), HOUR_MS
    )


def settings_for(url: str) -> Settings:
    return Settings(
        project="test",
        namespace="failures",
        definitions="schemas",
        kafka_bootstrap="localhost:9092",
        redis_url=url,  # type: ignore[arg-type]
        offline_url="/tmp/nowhere",
    )


# ---- script, twin and rule are one ----

PUTS = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.builds(
                stamp,
                event_time=st.sampled_from([-2, -1, 0, 1, 2]).map(lambda hours: NOW_US + hours * HOUR_MS * 1000)
                | st.sampled_from([-(2**63), 0, 2**53, 2**63 - 1]),
                sequence=st.none() | st.sampled_from([-(2**63), -1, 0, 2**63 - 1]),
                offset=st.sampled_from([0, 1, 255, 256, 2**63 - 1]),
                version=st.integers(1, 2),
            ),
            st.text(max_size=3),
        ),
        max_size=5,
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(puts=PUTS, lifetime_ms=st.sampled_from([None, 90 * 60_000]))
def test_the_script_answers_and_writes_as_the_rule_of_the_twin_does(
    shared_url: str, puts: list[list[tuple[int, object, str]]], lifetime_ms: int | None
) -> None:
    real, twin = RealServer(shared_url), TwinServer()
    twin.keys = real.keys

    async def run() -> None:
        stores = real.open(), twin.open()
        for each in stores:
            await each.initialise(EPOCH)
        for put in puts:
            given_rows = rows(
                *((b"i1:%d" % entity, value(at, text)) for entity, at, text in put),  # type: ignore[arg-type]
                lifetime_ms=lifetime_ms,
            )
            one, other = [await each.put(given_rows, EPOCH) for each in stores]
            assert one == other
        await stores[0].close()

    asyncio.run(run())
    assert_same(real.dump(), twin.dump())
    real.client.close()


# ---- servers that are unfit ----


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"])
async def test_a_server_that_may_evict_rows_is_refused_with_the_command_that_forbids_it(
    own: StartServer, policy: str
) -> None:
    server = own(maxmemory_policy=policy)
    with pytest.raises(SettingsError, match=f"{policy}.*CONFIG SET maxmemory-policy noeviction"):
        await RedisOnlineStore.open(settings_for(server.url))


async def test_a_fit_server_is_opened_and_not_touched(own: StartServer) -> None:
    server = own()
    store = await RedisOnlineStore.open(settings_for(server.url))
    assert (await store.read_state()).epoch is None
    await store.close()
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(("version", "fit"), [("6.0.16", False), ("5.0.7", False), ("6.2.0", True), ("10.0.1", True)])
def test_versions_before_6_2_are_refused(version: str, fit: bool) -> None:
    server = OnlineServer(role="master", version=version, maxmemory_policy="noeviction")
    if fit:
        _require_fit(server, "redis://here")
    else:
        with pytest.raises(SettingsError, match=f"of version {version}; 6.2 or newer"):
            _require_fit(server, "redis://here")


# ---- servers that do not answer ----


async def test_where_nobody_listens_nothing_was_done(store_at: Connect) -> None:
    store = store_at(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailable, match=r"cannot be reached.*STILLWELL_REDIS_URL"):
        await store.put(rows(ROW), EPOCH)


async def test_a_wrong_password_is_told_and_not_shown(own: StartServer, store_at: Connect) -> None:
    server = own(requirepass="right")
    for url in (f"redis://:wrong-one@127.0.0.1:{server.port}/0", server.url):
        store = store_at(url)
        with pytest.raises(StoreUnavailable, match="correct user and password") as caught:
            await store.read_state()
        assert "wrong-one" not in str(caught.value)


async def test_a_server_that_falls_silent_leaves_the_outcome_unknown_and_a_repeat_settles_it(
    own: StartServer, store_at: Connect
) -> None:
    server = own()
    store = store_at(server.url, timeout=0.3)
    await store.initialise(EPOCH)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="gave no answer"):
            await store.put(rows(ROW), EPOCH)
        assert time.monotonic() - began < 3
    finally:
        os.kill(server.pid, signal.SIGCONT)
    counts = await store.put(rows(ROW), EPOCH)
    assert counts in (PutCounts(1, 0, 0, 0), PutCounts(0, 0, 1, 0))
    assert await store.get(VIEW, [ROW[0]]) == [ROW[1]]


async def test_a_server_that_dies_and_comes_back_empty_is_not_ready(own: StartServer, store_at: Connect) -> None:
    server = own()
    store = store_at(server.url)
    await store.initialise(EPOCH)
    await store.put(rows(ROW), EPOCH)
    server.kill()
    with pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await store.put(rows(ROW), EPOCH)
    server.start()
    with pytest.raises(StoreNotReady):
        await store.put(rows(ROW), EPOCH)


async def test_connections_that_were_closed_while_idle_are_replaced_unseen(own: StartServer, store_at: Connect) -> None:
    server = own()
    store = store_at(server.url)
    await store.initialise(EPOCH)
    with redis.Redis.from_url(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: len(client.client_list()) == 1, what="the store's connection was closed")
    for _ in range(3):
        await asyncio.sleep(0)
    assert await store.put(rows(ROW), EPOCH) == PutCounts(1, 0, 0, 0)


async def test_when_all_connections_are_busy_a_call_waits_and_then_says_so(own: StartServer, store_at: Connect) -> None:
    server = own()
    store = store_at(server.url, timeout=0.3, connections=1)
    await store.initialise(EPOCH)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        outcomes = await asyncio.gather(*(store.put(rows(ROW), EPOCH) for _ in range(3)), return_exceptions=True)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert all(isinstance(each, StoreUnavailable | OutcomeUnknown) for each in outcomes), outcomes


async def test_many_calls_share_few_connections(store: RedisOnlineStore) -> None:
    now = now_us()
    puts = [rows((b"i3:%d" % at, value(stamp(now, offset=at)))) for at in range(100, 300)]
    counts = await asyncio.gather(*(store.put(put, EPOCH) for put in puts))
    assert counts == [PutCounts(1, 0, 0, 0)] * 200


async def test_a_call_that_is_cancelled_does_not_give_its_replies_to_the_next_one(store: RedisOnlineStore) -> None:
    many = many_rows(8000)
    for pause in (0.0, 0.001, 0.005, 0.01):
        put = asyncio.create_task(store.put(many, EPOCH))
        await asyncio.sleep(pause)
        put.cancel()
        await asyncio.gather(put, return_exceptions=True)
        assert (await store.read_state()).epoch == EPOCH
        assert await store.get(VIEW, [b"s4:none"]) == [None]
    assert (await store.put(many, EPOCH)).stale == 0


async def test_who_is_told_to_end_ends_whatever_is_under_way(store: RedisOnlineStore, shared_url: str) -> None:
    """One who goes on, and asks again and again until he is told to end, goes on for ever."""
    alone = RedisLink(shared_url, 5.0, 1)

    async def ask() -> None:
        await store._link.ask(("PING",))

    async def connect() -> None:
        await (await alone.connect_alone()).disconnect(nowait=True)

    await ask()
    for call in (ask, connect):
        for turns in range(60):
            task = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait([task])
                assert task.cancelled(), f"{call.__name__} goes on after {turns} turns of the loop"
    await alone.close()


async def test_marks_are_raised_only_by_the_server_that_wrote_the_rows(
    own: StartServer, store_at: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection ends with its server. One that ends behind the rows takes the marks with it, also where another
    server, or the same one, would take them over a new connection."""
    server = own()
    store = store_at(server.url)
    await store.initialise(EPOCH)
    mark = MarkKey(PartitionId("departures", 1, 0), VIEW, 1)
    await store.set_marks([MarkMove(mark, 5, 5)], EPOCH)
    put_rows = store._put_rows

    async def put_rows_and_lose_the_server(*arguments: Any) -> list[PutCounts]:
        counts = await put_rows(*arguments)
        with redis.Redis.from_url(server.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        return counts

    monkeypatch.setattr(store, "_put_rows", put_rows_and_lose_the_server)
    with pytest.raises(OutcomeUnknown):
        await store.apply([rows(ROW)], [MarkMove(mark, 5, 9)], EPOCH)
    monkeypatch.undo()
    assert await store.get(VIEW, [ROW[0]]) == [ROW[1]]
    assert await store.read_marks([mark]) == [5]


@pytest.mark.parametrize(
    ("nbytes", "most", "connections"),
    [
        pytest.param(100, 6, 1, id="together"),
        pytest.param(100, 2, 3, id="so many rows at once"),
        pytest.param(64 * 1024, 2 * 25, 3, id="so many bytes at once"),
    ],
)
async def test_what_is_applied_at_one_moment_goes_over_one_connection(
    store: RedisOnlineStore, monkeypatch: pytest.MonkeyPatch, nbytes: int, most: int, connections: int
) -> None:
    """A reader waits for each connection that writes. Of a large row the weight is that of 25 small ones."""
    taken = 0
    connection = store._link.connection

    def counted() -> contextlib.AbstractAsyncContextManager[Exchange]:
        nonlocal taken
        taken += 1
        return connection()

    monkeypatch.setattr(store._link, "connection", counted)
    monkeypatch.setattr(store._applies, "_most", most)
    given = [rows((b"i9:%d" % each, value(stamp(now_us()), "x" * nbytes))) for each in range(6)]
    applied = await asyncio.gather(*(store.apply([each], (), EPOCH) for each in given))
    assert taken == connections
    assert [each.counts for each in applied] == [[PutCounts(1, 0, 0, 0)]] * 6


# ---- servers that refuse ----


async def test_a_server_that_has_forgotten_the_scripts_is_given_them_again(
    store: RedisOnlineStore, shared_url: str
) -> None:
    with redis.Redis.from_url(shared_url) as client:
        client.script_flush()
        many = many_rows(3000)
        assert await store.put(many, EPOCH) == PutCounts(3000, 0, 0, 0)
        client.script_flush()
        assert (await store.apply((), [], EPOCH)).positions == []


async def test_scripts_that_are_forgotten_half_way_through_a_stream_are_given_again(
    store: RedisOnlineStore, shared_url: str
) -> None:
    """By then the first calls are answered: what comes behind them is made again, and nothing is told as done."""
    many = many_rows(36 * ROWS_PER_CALL)
    forgotten = False
    await store.put(rows(ROW), EPOCH)  # from here on the server knows the script
    with redis.Redis.from_url(shared_url) as client:
        async with store._link.connection() as exchange:

            async def forgetting(batches: Iterable[Sequence[Command]]) -> list[Reply]:
                return await exchange(forget(batches))

            def forget(batches: Iterable[Sequence[Command]]) -> Iterator[Sequence[Command]]:
                nonlocal forgotten
                for number, batch in enumerate(batches):
                    if number == 2 and not forgotten:  # the replies to the first batch have come
                        forgotten = client.script_flush()
                    yield batch

            (counts,) = await store._put_rows(forgetting, [(many, EPOCH)])
    assert forgotten
    assert counts.applied + counts.duplicate == len(many.keys)
    assert await store.get(VIEW, many.keys) == many.values


async def test_a_stream_of_calls_that_cannot_be_made_leaves_no_replies_to_the_next_one(shared_url: str) -> None:
    """Its first batch is sent by then. The one connection is closed, or its replies would be taken for others'."""
    link = RedisLink(shared_url, 5.0, 1)

    def batches() -> Iterator[Sequence[Command]]:
        yield [("BLPOP", "nothing", "0.1")]  # replies after the next one has got the connection
        raise MemoryError

    with pytest.raises(MemoryError):
        async with link.connection() as exchange:
            await exchange(batches())
    assert await link.ask(("ECHO", "second")) == [b"second"]
    await link.close()


async def test_a_server_that_forgets_a_script_that_it_was_just_given_is_asked_again_later(
    store: RedisOnlineStore, shared_url: str
) -> None:
    """Twice within two round trips is a restart, or somebody at its console; no reason to end a worker."""
    with redis.Redis.from_url(shared_url) as client:
        async with store._link.connection() as exchange:

            async def forgetting(batches: Iterable[Sequence[Command]]) -> list[Reply]:
                return await exchange(forget(batches))

            def forget(batches: Iterable[Sequence[Command]]) -> Iterator[Sequence[Command]]:
                for batch in batches:
                    client.script_flush()
                    yield batch

            with pytest.raises(StoreUnavailable, match="it had just been given"):
                await store._put_rows(forgetting, [(many_rows(36 * ROWS_PER_CALL), EPOCH)])


async def test_a_full_server_is_unavailable_and_says_how_to_mend_it(own: StartServer, store_at: Connect) -> None:
    server = own(maxmemory="3mb")
    store = store_at(server.url)
    await store.initialise(EPOCH)
    now = now_us()
    puts = [store.put(rows((b"i3:%d" % at, value(stamp(now), "x" * 100_000))), EPOCH) for at in range(100, 200)]
    # Each is waited for: one that still waited for a connection would open it behind the store's end.
    refused = [each for each in await asyncio.gather(*puts, return_exceptions=True) if isinstance(each, Exception)]
    assert refused
    for each in refused:
        assert isinstance(each, StoreUnavailable)
        assert re.search(r"OOM.*memory is full: raise maxmemory", str(each))


async def test_a_replica_is_unavailable_for_writing_and_tells_what_it_is(own: StartServer, store_at: Connect) -> None:
    primary = own()
    replica = own(repl_diskless_sync_delay="0")
    on_primary, on_replica = store_at(primary.url), store_at(replica.url)
    await on_primary.initialise(EPOCH)
    await on_primary.put(rows(ROW), EPOCH)
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", primary.port)
        eventually(lambda: client.get(KEYS.ready) == EPOCH.encode(), what="the replica has the ready key")
    assert (await on_replica.read_server()).role == "slave"
    with pytest.raises(StoreUnavailable, match=r"READONLY.*it is a replica"):
        await on_replica.put(rows((b"i1:8", ROW[1])), EPOCH)


async def test_a_failover_changes_the_replication_id(own: StartServer, store_at: Connect) -> None:
    primary = own()
    replica = own(repl_diskless_sync_delay="0")
    on_primary, on_replica = store_at(primary.url), store_at(replica.url)
    await on_primary.initialise(EPOCH)
    with redis.Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", primary.port)
        eventually(lambda: client.get(KEYS.ready) == EPOCH.encode(), what="the replica has the ready key")
        before = (await on_replica.read_state()).replication_id
        assert before == (await on_primary.read_state()).replication_id
        client.replicaof("NO", "ONE")
    after = await on_replica.read_state()
    assert (await on_replica.read_server()).role == "master"
    assert after.epoch == EPOCH
    assert after.replication_id != before


async def test_a_key_of_another_type_is_named_and_left_alone(store: RedisOnlineStore, shared_url: str) -> None:
    (key,) = store._keys.rows(VIEW, [ROW[0]])
    with redis.Redis.from_url(shared_url) as client:
        client.hset(key, "somebody", "else")
        client.expire(key, 60)
        with pytest.raises(FormatError, match="WRONGTYPE"):
            await store.put(rows(ROW), EPOCH)
        assert client.hgetall(key) == {b"somebody": b"else"}


class Restricted:
    """A user of a server who may do what we say that he must be allowed, in database 1, and nothing else."""

    def __init__(self, url: str) -> None:
        self.keys = RedisKeys("test", f"n{uuid.uuid4().hex[:10]}")
        self.admin = redis.Redis.from_url(url.replace("/0", "/1"))
        self._url = re.sub("//(.*)/0", r"//restricted:hunter2@\1/1", url)

    def allow(self, commands: Iterable[str], keys: str | None = None) -> None:
        """These commands, on these keys."""
        self.admin.acl_setuser(
            "restricted",
            enabled=True,
            passwords=["+hunter2"],
            keys=[keys or f"{self.keys.prefix.decode()}*"],
            commands=[f"+{command}" for command in commands],
            reset=True,
        )

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[RedisOnlineStore]:
        """A store of this user's, on a server that knows no script."""
        self.admin.script_flush()
        store = RedisOnlineStore(RedisLink(self._url, 5.0, 1), self.keys)
        yield store
        await store.close()

    async def do_everything(self) -> None:
        """What a worker, a reader and a rebuild do."""
        mark = MarkKey(PartitionId("departures", 1, 0), VIEW, 1)
        async with self.store() as store:
            await store.read_server()
            await store.initialise(EPOCH)
            await self._write(store, mark)
            await store.read_state()
            await store.get(VIEW, [ROW[0]])
            rebuilding = await store.begin_rebuild("epoch-2")
            await self._write(rebuilding, mark, "epoch-2")
            await rebuilding.finish_rebuild("epoch-2")
        await self._predict()
        self.admin.delete(*self.admin.keys(self.keys.prefix + b"*"))

    async def _predict(self) -> None:
        """A prediction that reads a row through an alias, and who reads that row."""
        link = RedisLink(self._url, 5.0, 1)
        store, of = RedisPredictions(link, self.keys), PredictionsOf("Delay", "3")
        try:
            (record,), (place,) = self.keys.predictions(of, [b"i1:1"]), self.keys.readers(of, VIEW, [ROW[0]])
            written = Record(Outputs(now_us(), b"f" * 16, now_us(), 0, b"lyot", b""), None).pack()
            await store.put([(record, written)], 60_000, b"epoch-2", [Listing(b"i1:1", [place])], 9)
            assert (await store.readers([place], 9, 9, b"epoch-2")).keys == [[b"i1:1"]]
        finally:
            await link.close()

    async def _write(self, store: RedisOnlineStore, mark: MarkKey, epoch: str = EPOCH) -> None:
        """Rows that are new, others in their place, others that are longer; and marks."""
        await store.set_marks([MarkMove(mark, 5, 5)], epoch)
        for offset, text in enumerate(("", "", "longer")):
            row = value(stamp(NOW_US, offset=offset), text)
            await store.put(rows((ROW[0], row), (b"i1:8", row)), epoch)
        await store.apply([], [MarkMove(mark, 5, 9)], epoch)
        assert await store.read_marks([mark]) == [9]

    async def probe(self) -> None:
        """What `doctor` does."""
        async with self.store() as store:
            await store.read_server()
            await store.probe()


@pytest.fixture
def restricted(shared_url: str) -> Iterator[Restricted]:
    """Such a user, on a server of each kind."""
    restricted = Restricted(shared_url)
    yield restricted
    restricted.admin.acl_deluser("restricted")
    restricted.admin.delete(restricted.keys.ready, *restricted.admin.keys(restricted.keys.prefix + b"*"))
    restricted.admin.close()


async def test_the_commands_that_we_say_a_user_must_be_allowed_are_enough(restricted: Restricted) -> None:
    restricted.allow(COMMANDS)
    await restricted.do_everything()
    await restricted.probe()


@pytest.mark.parametrize("missing", COMMANDS)
async def test_each_of_them_is_necessary_and_found_missing_by_doctor_too(restricted: Restricted, missing: str) -> None:
    restricted.allow(command for command in COMMANDS if command != missing)
    for doing in (restricted.do_everything, restricted.probe):
        with pytest.raises(StoreUnavailable, match=rf"allow the user .* all of .*\+{re.escape(missing)}( |$)"):
            await doing()


async def test_keys_that_a_user_may_not_touch_are_told_alike(restricted: Restricted) -> None:
    restricted.allow(COMMANDS, restricted.keys.ready.decode())
    for doing in (restricted.do_everything, restricted.probe):
        with pytest.raises(StoreUnavailable, match=r"allow the user .* ~<project>:<namespace>:"):
            await doing()


async def test_the_right_that_a_command_of_people_needs_is_told_and_not_asked_of_workers(
    restricted: Restricted,
) -> None:
    """SCAN tells the names of all keys of a server."""
    restricted.allow(COMMANDS)
    link = RedisLink(restricted._url, 5.0, 1)
    with pytest.raises(StoreUnavailable, match=r"`stillwell predictions refresh --all` alone, \+scan$"):
        await link.ask(("SCAN", "0"))
    await link.close()


async def test_a_transaction_that_cannot_be_ended_is_refused_alike_when_it_is_repeated(restricted: Restricted) -> None:
    """It ends with its connection: on the same one it would be refused for standing within itself."""
    restricted.allow(command for command in COMMANDS if command != "exec")
    async with restricted.store() as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="allow the user"):
                await store.begin_rebuild("epoch-2")


async def test_a_probe_leaves_nothing_and_what_it_leaves_when_it_is_refused_expires(restricted: Restricted) -> None:
    """Also where nothing is ready."""
    restricted.allow(COMMANDS)
    await restricted.probe()
    assert restricted.admin.keys(restricted.keys.prefix + b"*") == []
    restricted.allow(command for command in COMMANDS if command != "del")
    with pytest.raises(StoreUnavailable):
        await restricted.probe()
    left = restricted.admin.keys(restricted.keys.prefix + b"*")
    assert len(left) == 4
    assert all(0 < restricted.admin.pttl(key) <= 61_000 for key in left)


@pytest.mark.parametrize(
    ("error", "kind", "phrase"),
    [
        (exceptions.BusyLoadingError("Redis is loading", status_code="LOADING"), StoreUnavailable, "it still loads"),
        (exceptions.ClusterDownError("Hash slot not served", status_code="CLUSTERDOWN"), StoreUnavailable, "cluster"),
        (exceptions.OutOfMemoryError("command not allowed", status_code="OOM"), StoreUnavailable, "raise maxmemory"),
        (exceptions.ReadOnlyError("can't write", status_code="READONLY"), StoreUnavailable, "it is a replica"),
        (exceptions.ResponseError("MISCONF Redis is configured to save"), StoreUnavailable, "cannot save"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas"), StoreUnavailable, "fewer replicas"),
        (
            # As Redis 6.2 wraps what went wrong inside of a script.
            exceptions.ResponseError("Error running script (call to f_ab): @user_script:9: -OOM command not allowed"),
            StoreUnavailable,
            "raise maxmemory",
        ),
        (exceptions.ResponseError("NOTREADY the ready key is missing"), StoreNotReady, "stillwell rebuild"),
        (exceptions.ResponseError("ERR something nobody foresaw"), StoreError, "something nobody foresaw"),
    ],
)
async def test_each_refusal_is_told_by_its_meaning(error: Exception, kind: type[Exception], phrase: str) -> None:
    link = RedisLink("redis://:secret@127.0.0.1:1/0", 1.0, 1)
    meant = link.refusal(error)
    assert type(meant) is kind
    assert phrase in str(meant)
    assert "secret" not in str(meant)
    await link.close()


# ---- the locale of the server ----


def test_the_servers_sort_as_people_do(shared_url: str) -> None:
    """Or the tests of who is newer would not show that this makes no difference."""
    if not locale_that_sorts():
        pytest.skip("there is no localedef, or no source of a locale: install Debian's `locales`, or glibc's")
    with redis.Redis.from_url(shared_url) as client:
        assert client.eval("return tostring('a' < 'B')", 0) == b"true"


async def test_the_newer_row_is_kept_whatever_the_locale_of_the_server(
    store: RedisOnlineStore, rng: random.Random
) -> None:
    """Stamps that differ in one byte, of any field."""
    pairs = [sorted(_differing(rng)) for _ in range(500)]
    keys = [b"i%d:%d" % (len(str(at)), at) for at in range(len(pairs))]
    put = await store.put(EncodedRows(VIEW, 1, keys, [newer for _, newer in pairs], None), EPOCH)
    assert put.applied == len(pairs)
    put = await store.put(EncodedRows(VIEW, 1, keys, [older for older, _ in pairs], None), EPOCH)
    assert put.stale == len(pairs)
    other = [b"other " + key for key in keys]
    for values in zip(*pairs, strict=True):
        put = await store.put(EncodedRows(VIEW, 1, other, list(values), None), EPOCH)
        assert put.applied == len(pairs)
    assert await store.get(VIEW, keys) == await store.get(VIEW, other) == [newer for _, newer in pairs]


def _differing(rng: random.Random) -> tuple[bytes, bytes]:
    """Two rows, by their bytes."""
    one = bytearray(
        value(stamp(NOW_US, offset=rng.randrange(2**40), sequence=rng.choice([None, rng.randrange(2**40)])))
    )
    other, at = bytearray(one), rng.randrange(1, 1 + STAMP_BYTES)
    other[at] = rng.choice([byte for byte in range(256) if byte != one[at]])
    return bytes(one), bytes(other)


# ---- how a put is cut into calls ----


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 100, BYTES_PER_CALL - 1, BYTES_PER_CALL, BYTES_PER_CALL + 1]), max_size=130))
def test_every_row_is_in_exactly_one_call_and_no_call_is_too_long(lengths: list[int]) -> None:
    values = [bytes(length) for length in lengths]
    cuts = list(_cuts(values))
    assert [at for begin, end in cuts for at in range(begin, end)] == list(range(len(values)))
    for begin, end in cuts:
        assert 0 < end - begin <= ROWS_PER_CALL
        assert end - begin == 1 or sum(lengths[begin:end]) <= BYTES_PER_CALL


# ---- the twin's faults ----


@pytest.mark.parametrize(
    ("fault", "raised", "stored"),
    [("refused", StoreUnavailable, 0), ("lost call", OutcomeUnknown, 0), ("lost answer", OutcomeUnknown, 4),
     ("half done", OutcomeUnknown, 2)],
)  # fmt: skip
async def test_a_fault_of_the_twin_has_its_effect_once_and_a_repeat_mends_it(
    fault: str, raised: type[Exception], stored: int
) -> None:
    server = TwinServer()
    store: MemoryOnlineStore = server.open()
    await store.initialise(EPOCH)
    plan = [fault]
    store.faults = lambda operation: plan.pop() if plan and operation == "put" else None  # type: ignore[return-value,assignment]
    now = now_us()
    put: EncodedRows = rows(*((b"i1:%d" % at, value(stamp(now))) for at in range(4)))
    with pytest.raises(raised):
        await store.put(put, EPOCH)
    assert len(server.dump()) == 1 + stored
    assert await store.put(put, EPOCH) == PutCounts(4 - stored, 0, stored, 0)


async def test_the_twin_fails_over_to_a_server_that_lacks_the_last_writes() -> None:
    server = TwinServer()
    store = server.open()
    await store.initialise(EPOCH)
    before = (await store.read_state()).replication_id
    older, newer = value(stamp(now_us())), value(stamp(now_us() + 1))
    await store.put(rows((b"i1:7", older)), EPOCH)
    await store.put(rows((b"i1:7", newer), (b"i1:8", newer)), EPOCH)
    server.memory.fail_over(lost=2)
    assert (await store.read_state()).replication_id != before
    assert await store.get(VIEW, [b"i1:7", b"i1:8"]) == [older, None]
