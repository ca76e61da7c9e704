"""Law 1: what is in Redis depends on the set of events alone, and not on how they came.

Events are delivered shuffled, several times, by two writers at once, in batches cut anywhere; the dump of the server
must equal what twenty lines without stamps, bytes or batches make of the same events. With the comparison taken out of
the script, or any other part that the law needs, the same check must fail.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.redis import RedisOnlineStore, Script
from stillwell.layout.online import EncodedRows
from stillwell.layout.stamp import Stamp, topic_digest
from tests.online_support import (
    EPOCH,
    HOUR_MS,
    VIEW,
    AnyRedisServer,
    OnlineStore,
    RealServer,
    Server,
    Stored,
    TwinServer,
    assert_nothing_lives_for_ever,
    assert_same,
    encoded,
    executables,
    now_us,
)

DAY_US = 86_400_000_000
NOW_US = now_us()
"""The instant that event times are counted from; rows of the last hour live, older ones have expired."""


@dataclasses.dataclass(frozen=True)
class Event:
    """A row on its way, by its coordinates. at: µs after NOW_US."""

    entity: int
    at: int
    sequence: int | None
    timestamp: int
    topic: str
    partition: int
    offset: int
    version: int
    row: int
    text: str

    @property
    def stamp(self) -> Stamp:
        """What orders it."""
        return Stamp(
            NOW_US + self.at, self.sequence, self.timestamp, topic_digest(self.topic), 1,
            self.partition, self.offset, self.version, self.row,
        )  # fmt: skip

    @property
    def key(self) -> bytes:
        """Its entity's key."""
        return b"i%d:%d" % (len(str(self.entity)), self.entity)


def oracle(events: Iterable[Event]) -> dict[bytes, Event]:
    """What must remain: for each entity the newest event that has not expired."""

    def age(event: Event) -> tuple[object, ...]:
        return (
            event.at,
            event.sequence is not None,
            event.sequence or 0,
            event.timestamp,
            hashlib.sha256(event.topic.encode()).digest()[:8],
            event.partition,
            event.offset,
            event.version,
            event.row,
        )

    newest: dict[bytes, Event] = {}
    for event in events:
        if event.at > -DAY_US and (event.key not in newest or age(event) > age(newest[event.key])):
            newest[event.key] = event
    return newest


def _expiry(event: Event) -> int:
    """Event time plus lifetime, at the end of the 64th part of a lifetime in which that falls."""
    exact, step = (NOW_US + event.at) // 1000 + HOUR_MS, HOUR_MS // 64
    return (exact + step - 1) // step * step


def expected_dump(server: Server, events: Sequence[Event]) -> dict[bytes, Stored]:
    """The server's whole content, as the oracle has it."""
    remaining = oracle(events)
    (places,) = (server.keys.rows(VIEW, list(remaining)),)
    values = encoded([event.stamp for event in remaining.values()], [event.text for event in remaining.values()])
    expiries = [_expiry(event) for event in remaining.values()]
    ready: dict[bytes, Stored] = {server.keys.ready: (EPOCH.encode(), None)}
    return ready | dict(zip(places, zip(values, expiries, strict=True), strict=True))


def batches(events: Sequence[Event], rng: random.Random) -> Iterator[EncodedRows]:
    """The events, each at least once and some several times, shuffled and cut anywhere."""
    delivered = [event for event in events for _ in range(rng.choice([1, 1, 2, 3]))]
    rng.shuffle(delivered)
    while delivered:
        cut = rng.choice([1, 2, 49, 50, 51, 120, 700])
        batch, delivered = delivered[:cut], delivered[cut:]
        values = encoded([event.stamp for event in batch], [event.text for event in batch])
        yield EncodedRows(VIEW, batch[0].version, [event.key for event in batch], values, HOUR_MS)


async def deliver(stores: Sequence[OnlineStore], events: Sequence[Event], rng: random.Random) -> None:
    """Each event by one writer or by all, at the same time, each writer in an order of its own."""

    async def write(store: OnlineStore, work: list[EncodedRows]) -> None:
        for rows in work:
            counts = await store.put(rows, EPOCH)
            assert counts.applied + counts.stale + counts.duplicate + counts.expired == len(rows.keys)

    await stores[0].initialise(EPOCH)
    by_whom = [rng.choice([*stores, None]) for _ in events]
    shares = [[event for event, who in zip(events, by_whom, strict=True) if who in (store, None)] for store in stores]
    writers = [
        asyncio.create_task(write(store, list(batches(share, rng))))
        for store, share in zip(stores, shares, strict=True)
    ]
    try:
        await asyncio.gather(*writers)
    finally:
        # Where one has failed the other still writes, and would open a connection after its store is closed.
        for writer in writers:
            writer.cancel()
        await asyncio.wait(writers)


def assert_order_free(server: Server, events: Sequence[Event], seed: int, script: str | None = None) -> None:
    """Deliver by two writers, and compare with the oracle. script: what to use instead of `put_if_newer.lua`."""

    async def run() -> None:
        stores = [server.open(), server.open()]
        if script is not None:
            for store in stores:
                assert isinstance(store, RedisOnlineStore)
                store._put = Script(script)
        try:
            await deliver(stores, events, random.Random(seed))
        finally:
            for store in stores:
                await store.close()

    server.flush()
    asyncio.run(run())
    assert_same(server.dump(), expected_dump(server, events))
    assert_nothing_lives_for_ever(server)


def many_events(seed: int, count: int, entities: int) -> list[Event]:
    """Events as an unkind world sends them: equal times, late ones, expired ones, two versions, several rows each."""
    rng = random.Random(seed)
    offsets: dict[tuple[str, int], int] = {}
    events: list[Event] = []
    while len(events) < count:
        topic, partition = rng.choice(["departures", "arrivals"]), rng.randrange(3)
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + rng.randint(1, 3)
        at = rng.choice([0, 0, 1, 255, 256, 1_000_000, rng.randrange(10**9), -2 * DAY_US])
        sequence, timestamp = rng.choice([None, None, -1, 0, 7]), rng.choice([0, 1, 2])
        for version in rng.sample([1, 2], rng.randint(1, 2)):
            for row in range(rng.choice([1, 1, 1, 3])):
                text = f"{topic}/{partition}/{offset}/{version}/{row}" + "x" * rng.choice([0, 0, 40])
                entity = rng.randrange(entities)
                events.append(Event(entity, at, sequence, timestamp, topic, partition, offset, version, row, text))
    return events


FEW_EVENTS = st.lists(
    st.builds(
        Event,
        entity=st.integers(0, 2),
        at=st.sampled_from([0, 1, 256, -2 * DAY_US]),
        sequence=st.sampled_from([None, 0, 1]),
        timestamp=st.integers(0, 1),
        topic=st.sampled_from(["departures", "arrivals"]),
        partition=st.integers(0, 1),
        offset=st.integers(0, 3),
        version=st.integers(1, 2),
        row=st.integers(0, 1),
        text=st.just(""),
    ),
    unique_by=lambda event: (event.topic, event.partition, event.offset, event.version, event.row),
    max_size=40,
)


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Server]:
    """A server of this module's own: it is flushed again and again."""
    if name == "twin":
        yield TwinServer()
        return
    server = AnyRedisServer(executables()[name], folder)
    server.start()
    opened = RealServer(server.url)
    yield opened
    opened.client.close()
    server.stop()


@pytest.fixture(params=["twin", *executables()], scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each kind."""
    with running(request.param, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real one."""
    with running(next(iter(executables())), tmp_path_factory.mktemp("redis")) as server:
        yield server


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=FEW_EVENTS, seed=st.integers(0, 2**32))
def test_few_events_in_every_order_leave_the_same_bytes(server: Server, events: list[Event], seed: int) -> None:
    assert_order_free(server, events, seed)


@pytest.mark.parametrize("entities", [1, 40, 5000])
def test_thousands_of_events_in_any_order_leave_the_same_bytes(
    server: Server, entities: int, rng: random.Random
) -> None:
    seed = rng.randrange(2**32)
    assert_order_free(server, many_events(seed, 3000, entities), seed)


# ---- what the law needs of the script: without any of these, the check above must fail ----

_OLDER = "high < stored_high or (high == stored_high and low < stored_low)"

MUTANTS = {
    "no comparison: the last to come wins": (f"elseif {_OLDER} then", "elseif false then"),
    "the first to come wins": (f"elseif {_OLDER} then", "elseif true then"),
    "only event times are compared": ("elseif not is_later(value, head) then", "elseif false then"),
    "of one event time the first to come wins": ("elseif not is_later(value, head) then", "elseif true then"),
    "event time alone makes a duplicate": (
        "sub(head, 1, STAMPED_BYTES) == sub(value, 1, STAMPED_BYTES)",
        "sub(head, 2, 9) == sub(value, 2, 9)",
    ),
    "the stamp is compared without its last fields": ("for i = 1, #of_one do", "for i = 1, #of_one - 3 do"),
    "a key that comes twice in a call is not compared with its first": ("if waiting[key] then", "if false then"),
    "keys that are there are taken for new": ("call('EXISTS', unpack(keys, 2)) == 0", "true"),
    "a key that came before is taken for new": ("all_new = false", "all_new = all_new"),
    "rows never expire": ("call('PEXPIREAT', rows[2 * i - 1], expiries[i])", ""),
    "rows expire with the batch's last": ("rows[2 * i - 1], expiries[i]", "rows[2 * i - 1], expiries[#expiries]"),
    "the text of an expiry is never renewed": ("if expires ~= last then", "if not last then"),
    "an expiry is kept that has changed": (
        "in_place = stored_time / 1000 + lifetime >= expires - step + 1",
        "in_place = true",
    ),
    "an expiry is kept that is one step old": (">= expires - step + 1", ">= expires - 2 * step + 1"),
    "a shorter value is written over a longer one": ("and read('>I4', head, LENGTH_AT) == length then", "then"),
    "event times are read by half": ("4294967296 + low\n    local end_of_life", "4294967296\n    local end_of_life"),
    "lives are not rounded up": ("+ -end_of_life % step", ""),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_this_the_law_is_broken_and_the_check_says_so(redis_server: Server, name: str) -> None:
    script = Script.load("put_if_newer").text
    whole, cut = MUTANTS[name]
    assert script.count(whole) == 1, "the mutant no longer fits the script"
    with pytest.raises(AssertionError):
        _look_for_a_difference(redis_server, script.replace(whole, cut))


def _look_for_a_difference(server: Server, script: str) -> None:
    """Few events for many entities and many for few, and many small beginnings, where whole calls are of new keys."""
    for seed in range(5):
        for entities in (3, 40, 150, 600):
            assert_order_free(server, many_events(seed, 600, entities), seed, script)
    for seed in range(40):
        assert_order_free(server, many_events(seed, 60, 12), seed, script)


def test_the_script_itself_passes_where_its_mutants_fail(redis_server: Server) -> None:
    _look_for_a_difference(redis_server, Script.load("put_if_newer").text)
