"""Predictions and leases, over every Redis there is and over the twin."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.redis_link import RedisLink
from sinks.redis_predictions import RedisPredictions
from sinks.redis_reader import _MOST_KEYS, RedisReader
from stillwell.errors import FormatError, StoreNotReady, StoreUnavailable
from stillwell.layout.prediction import Failure, Outputs, Record, merged
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import NoHints
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.store import Claim, Listing, PredictionStore, Put, Readers
from stillwell.reading.online import OnlineReader, under
from stillwell.testing.online import MemoryOnlineStore
from stillwell.testing.predictions import MemoryPredictions
from tests.online_support import (
    AnyRedisServer,
    RealServer,
    Server,
    TwinServer,
    assert_nothing_lives_for_ever,
    executables,
    now_us,
)
from tests.predicted import DEFINITIONS, Adding, Race, model
from tests.waiting import eventually_async

EPOCH = b"epoch-1"
OF = PredictionsOf("Delay", "3")
KEPT_MS = 3_600_000
LEASE_MS = 30_000
FRESH = itertools.count(1_000)


@pytest.fixture(params=["twin", *executables()])
def server(request: pytest.FixtureRequest) -> Server:
    """A namespace of this test's own, ready."""
    if request.param == "twin":
        made: Server = TwinServer()
    else:
        start: Callable[[str], AnyRedisServer] = request.getfixturevalue("redis_of")
        made = RealServer(start(request.param).url)
    made.plant(made.keys.ready, EPOCH)
    return made


@pytest.fixture
async def store(server: Server) -> AsyncIterator[PredictionStore]:
    if isinstance(server, RealServer):
        link = RedisLink(server.url, 5.0, 4)
        yield RedisPredictions(link, server.keys)
        await link.close()
    else:
        assert isinstance(server, TwinServer)
        yield MemoryPredictions(server.memory, server.keys)


@pytest.fixture
async def online(server: Server) -> AsyncIterator[OnlineReader]:
    """Reads rows and predictions, as the query service does."""
    if isinstance(server, RealServer):
        reader = RedisReader(RedisLink(server.url, 5.0, 1), server.keys.ready, 5.0)
        yield reader
        await reader.close()
    else:
        assert isinstance(server, TwinServer)
        yield MemoryOnlineStore(server.memory, server.keys)


def outputs(read_at: int, said: bytes = b"out", fingerprint: bytes = b"f" * 16) -> bytes:
    """A record with outputs alone."""
    return Record(Outputs(read_at, fingerprint, read_at + 5, 1_000, b"lyot", said), None).pack()


def failure(read_at: int, reason: str = "down") -> bytes:
    """A record with a failure alone."""
    return Record(None, Failure(read_at, b"f" * 16, read_at + 5, read_at + 9, 1, reason)).pack()


def key_of(server: Server, entity: bytes = b"i1:7") -> bytes:
    (key,) = server.keys.predictions(OF, [entity])
    return key


def claim_of(server: Server, entity: bytes = b"i1:7", fingerprint: bytes = b"f" * 16) -> Claim:
    (lease,) = server.keys.leases(OF, [entity], [fingerprint])
    return Claim(lease, key_of(server, entity))


async def test_the_newest_input_instant_wins_in_whatever_order_completions_arrive(
    server: Server, store: PredictionStore, rng: random.Random
) -> None:
    now = now_us()
    completions = [
        *(outputs(now + at, bytes([at])) for at in (1, 2, 3)),
        outputs(now + 3, b"other of the same instant"),
        *(failure(now + at, f"failed {at}") for at in (2, 3, 5, 6)),
    ]
    expected = merged(outputs(now + 3, b"other of the same instant"), failure(now + 6, "failed 6"))
    for number in range(20):
        key = key_of(server, b"i2:%d" % (10 + number))
        for each in rng.choices(completions, k=5) + rng.sample(completions, k=len(completions)):
            await store.put([(key, each)], KEPT_MS, EPOCH)
        assert server.dump()[key][0] == expected
    assert_nothing_lives_for_ever(server)


async def test_what_the_clock_of_another_server_says_lies_ahead_is_older_than_all_that_this_ones_says(
    server: Server, store: PredictionStore
) -> None:
    """This server took over from one with a clock an hour ahead, and may not take what is computed now for old."""
    now, ahead = now_us() - 1_000_000, now_us() + 3_600_000_000
    key = key_of(server)
    assert (await store.put([(key, outputs(ahead))], KEPT_MS, EPOCH)).stored == [True]
    assert (await store.put([(key, failure(now))], KEPT_MS, EPOCH)).stored == [True]
    assert server.dump()[key][0] == merged(outputs(ahead), failure(now), now)
    assert Record.unpack(server.dump()[key][0]).failure is not None
    assert (await store.put([(key, failure(ahead))], KEPT_MS, EPOCH)).stored == [False]
    assert (await store.put([(key, outputs(now + 1))], KEPT_MS, EPOCH)).stored == [True]
    assert server.dump()[key][0] == outputs(now + 1)
    assert (await store.put([(key, outputs(ahead)), (key, failure(ahead + 1))], KEPT_MS, EPOCH)).stored == [
        False,
        False,
    ]
    alone = key_of(server, b"i1:8")
    assert (await store.put([(alone, failure(ahead)), (alone, outputs(ahead))], KEPT_MS, EPOCH)).stored == [True, True]
    assert (await store.put([(alone, outputs(ahead - 1)), (alone, failure(ahead + 1))], KEPT_MS, EPOCH)).stored == [
        False,
        True,
    ]


async def test_a_record_says_whether_it_changed_anything(server: Server, store: PredictionStore) -> None:
    now, key = now_us(), key_of(server)
    assert (await store.put([(key, outputs(now))], KEPT_MS, EPOCH)).stored == [True]
    assert (await store.put([(key, outputs(now))], KEPT_MS, EPOCH)).stored == [False]
    assert (await store.put([(key, outputs(now - 1)), (key, outputs(now + 1))], KEPT_MS, EPOCH)).stored == [False, True]
    assert (await store.put([(key, failure(now))], KEPT_MS, EPOCH)).stored == [False]
    assert (await store.put([(key, failure(now + 2))], KEPT_MS, EPOCH)).stored == [True]
    assert Record.unpack(server.dump()[key][0]) == Record(
        Record.unpack(outputs(now + 1)).outputs, Record.unpack(failure(now + 2)).failure
    )


async def test_a_record_lives_from_the_instant_of_its_outputs_inputs(server: Server, store: PredictionStore) -> None:
    now = now_us()
    keys = [key_of(server, b"i1:%d" % number) for number in range(3)]
    await store.put([(keys[0], outputs(now)), (keys[1], failure(now)), (keys[2], outputs(now))], KEPT_MS, EPOCH)
    await store.put([(keys[2], failure(now + 60_000_000))], KEPT_MS, EPOCH)
    expiries = [server.dump()[key][1] for key in keys]
    assert all(at is not None and abs(at - (now // 1_000 + KEPT_MS)) <= 3 for at in expiries)
    assert (await store.put([(keys[0], outputs(now - KEPT_MS * 1_001))], KEPT_MS, EPOCH)).stored == [False]
    fresh = key_of(server, b"i1:9")
    assert (await store.put([(fresh, outputs(now - KEPT_MS * 1_001))], KEPT_MS, EPOCH)).stored == [False]
    assert fresh not in server.dump()


PARTS = st.tuples(st.integers(0, 4), st.sampled_from([b"", b"\0", b"a", b"b\0c", b"\xff"]))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.none() | PARTS, st.none() | PARTS).filter(any), min_size=1, max_size=6))
async def test_the_script_follows_the_rule(
    server: Server, store: PredictionStore, given_parts: Sequence[tuple[tuple[int, bytes] | None, ...]]
) -> None:
    base, key = now_us(), key_of(server, b"i4:%d" % next(FRESH))
    expected = None
    for said, failed in given_parts:
        record = Record(
            Outputs(base + said[0], b"f" * 16, 0, 0, b"lyot", said[1]) if said else None,
            Failure(base + failed[0], b"f" * 16, 0, 0, 1, failed[1].decode("latin-1")) if failed else None,
        ).pack()
        expected = merged(expected, record)
        await store.put([(key, record)], KEPT_MS, EPOCH)
        assert server.dump()[key][0] == expected


async def test_of_many_who_claim_at_once_one_holds(server: Server, store: PredictionStore) -> None:
    claim = claim_of(server)
    answers = await asyncio.gather(
        *(store.claim([claim], b"owner-%d" % number, LEASE_MS, EPOCH) for number in range(20))
    )
    assert [each.held for (each,) in answers].count(True) == 1
    assert_nothing_lives_for_ever(server)


async def test_other_inputs_have_a_lease_of_their_own(server: Server, store: PredictionStore) -> None:
    claims = [claim_of(server), claim_of(server, fingerprint=b"g" * 16), claim_of(server, b"i1:8")]
    assert [each.held for each in await store.claim(claims, b"one", LEASE_MS, EPOCH)] == [True] * 3
    assert [each.held for each in await store.claim(claims, b"other", LEASE_MS, EPOCH)] == [False] * 3
    assert [each.held for each in await store.claim(claims, b"one", LEASE_MS, EPOCH)] == [True] * 3


async def test_who_claims_late_sees_what_the_other_one_wrote(server: Server, store: PredictionStore) -> None:
    claims, now = [claim_of(server, b"i1:%d" % number) for number in range(3)], now_us()
    assert [each.record for each in await store.claim(claims, b"one", LEASE_MS, EPOCH)] == [None] * 3
    await store.put([(claims[1].record, outputs(now))], KEPT_MS, EPOCH)
    await store.release([each.lease for each in claims], b"one", EPOCH)
    assert await store.claim(claims, b"other", LEASE_MS, EPOCH) == [
        (True, None), (True, outputs(now)), (True, None)
    ]  # fmt: skip


async def test_a_lease_is_renewed_and_given_up_by_its_owner_alone(server: Server, store: PredictionStore) -> None:
    claims = [claim_of(server, b"i1:%d" % number) for number in range(3)]
    leases = [each.lease for each in claims]
    await store.claim(claims[:2], b"one", 200, EPOCH)
    await store.claim(claims[2:], b"other", LEASE_MS, EPOCH)
    assert await store.renew(leases, b"one", LEASE_MS, EPOCH) == [True, True, False]
    expiries = [server.dump()[lease][1] for lease in leases]
    assert all(at is not None and at > now_us() // 1_000 + LEASE_MS // 2 for at in expiries)
    await store.release(leases, b"one", EPOCH)
    assert {key for key in server.dump() if b":l:" in key} == {leases[2]}


async def test_the_lease_of_who_died_is_taken_over(server: Server, store: PredictionStore) -> None:
    claim = claim_of(server)
    await store.claim([claim], b"dead", 100, EPOCH)

    async def taken() -> bool:
        ((held, _),) = await store.claim([claim], b"heir", LEASE_MS, EPOCH)
        return held

    await eventually_async(taken, what="the lease was free")
    assert await store.renew([claim.lease], b"dead", LEASE_MS, EPOCH) == [False]


async def test_more_than_a_call_takes_go_in_several(server: Server, store: PredictionStore) -> None:
    now = now_us()
    claims = [claim_of(server, b"i4:%d" % number) for number in range(1_000, 1_120)]
    assert all(each.held for each in await store.claim(claims, b"one", LEASE_MS, EPOCH))
    records = [(each.record, outputs(now, b"%d" % number)) for number, each in enumerate(claims)]
    assert (await store.put(records, KEPT_MS, EPOCH)).stored == [True] * 120
    assert await store.renew([each.lease for each in claims], b"one", LEASE_MS, EPOCH) == [True] * 120
    await store.release([each.lease for each in claims], b"one", EPOCH)
    read = await store.read_at([key for key, _ in records])
    assert (read.epoch, read.values) == (EPOCH, [record for _, record in records])
    assert [each.held for each in await store.claim(claims, b"other", LEASE_MS, EPOCH)] == [True] * 120


async def test_the_stores_own_time_is_told_with_what_it_holds(server: Server, store: PredictionStore) -> None:
    before = now_us()
    read = await store.read_at([])
    assert before - 3_000 <= read.at_us <= now_us() + 3_000
    assert read.values == []


async def test_a_store_that_is_not_ready_or_of_another_epoch_refuses_everything(
    server: Server, store: PredictionStore
) -> None:
    claim = claim_of(server)
    for number, epoch in enumerate((b"epoch-2", EPOCH)):
        if number:
            server.evict(server.keys.ready)
            with pytest.raises(StoreNotReady):
                await store.read_at([claim.record])
        for call in (
            store.claim([claim], b"one", LEASE_MS, epoch),
            store.renew([claim.lease], b"one", LEASE_MS, epoch),
            store.release([claim.lease], b"one", epoch),
            store.put([(claim.record, outputs(now_us()))], KEPT_MS, epoch),
            store.readers([place_of(server)], 1, 1, epoch),
        ):
            with pytest.raises(StoreNotReady):
                await call
    assert claim.record not in server.dump()


async def test_what_is_no_record_is_refused_and_left(server: Server, store: PredictionStore) -> None:
    key = key_of(server)
    for odd in (b"\2" + outputs(now_us())[1:], b"\1\0\0\0\xff", b""):
        with pytest.raises(FormatError):
            await store.put([(key, odd)], KEPT_MS, EPOCH)
    server.plant(key, b"something else")
    with pytest.raises(FormatError):
        await store.put([(key, outputs(now_us()))], KEPT_MS, EPOCH)
    assert server.dump()[key][0] == b"something else"


def place_of(server: Server, read: bytes = b"s3:JFK", view: str = "Weather") -> bytes:
    (place,) = server.keys.readers(OF, view, [read])
    return place


async def list_one(
    server: Server, store: PredictionStore, entity: bytes, places: Sequence[bytes], read_at: int, most: int
) -> Put:
    """Write the prediction of an entity, which reads these rows."""
    record = (key_of(server, entity), outputs(read_at))
    return await store.put([record], KEPT_MS, EPOCH, [Listing(entity, places)], most)


async def test_who_reads_a_row_is_listed_with_its_prediction_and_looked_up_by_the_row(
    server: Server, store: PredictionStore
) -> None:
    now = now_us()
    jfk, lax, sfo = (place_of(server, read) for read in (b"s3:JFK", b"s3:LAX", b"s3:SFO"))
    routes = {b"i1:1": [jfk, lax], b"i1:2": [jfk, sfo], b"i1:3": [lax, lax]}
    for number, (entity, places) in enumerate(routes.items()):
        assert await list_one(server, store, entity, places, now + number * 1_000, 9) == Put([True], [True], 0)
    assert await store.readers([jfk, lax, sfo], 9, 9, EPOCH) == Readers(
        [[b"i1:2", b"i1:1"], [b"i1:3", b"i1:1"], [b"i1:2"]], 0
    )
    assert await store.readers([place_of(server, b"s3:OAK")], 9, 9, EPOCH) == Readers([[]], 0)
    assert await store.readers([], 9, 9, EPOCH) == Readers([], 0)
    # Once more is no news, be it older, the same or newer than what is there.
    for at in (now, now + 1, now - 1):
        assert (await list_one(server, store, b"i1:1", [jfk, lax], at, 9)).listed == [False]
    assert_nothing_lives_for_ever(server)
    expiries = [server.dump()[place][1] for place in (jfk, lax, sfo)]
    assert all(
        at is not None and abs(at - (now // 1_000 + later + KEPT_MS)) <= 3
        for at, later in zip(expiries, (1, 2, 1), strict=True)
    )


async def test_a_row_has_a_bounded_number_of_readers_the_newest(
    server: Server, store: PredictionStore, rng: random.Random
) -> None:
    now, place = now_us(), place_of(server)
    entities = [b"i2:%d" % number for number in range(10, 30)]
    written = [(entity, now + number * 1_000) for number, entity in enumerate(entities)]
    rng.shuffle(written)
    puts = [await list_one(server, store, entity, [place], at, 5) for entity, at in written]
    assert sum(put.dropped for put in puts) == 15
    assert await store.readers([place], 9, 9, EPOCH) == Readers([entities[:-6:-1]], 0)
    # What is computed anew comes in again, and another one goes.
    assert await list_one(server, store, entities[0], [place], now + 99_000, 5) == Put([True], [True], 1)
    assert (await store.readers([place], 9, 9, EPOCH)).keys == [[entities[0], *entities[:-5:-1]]]


async def test_no_more_readers_are_told_than_are_asked_for_and_how_many_more_there_are(
    server: Server, store: PredictionStore
) -> None:
    now, places = now_us(), [place_of(server, b"s4:%04d" % number) for number in range(120)]
    for number, place in enumerate(places[:4]):
        for entity in (b"i1:1", b"i1:2", b"i1:3"):
            await list_one(server, store, entity, [place], now + number, 9)
    read = await store.readers(places, 2, 5, EPOCH)
    assert ([len(each) for each in read.keys[:4]], read.left) == ([2, 2, 1, 0], 7)
    assert read.keys[4:] == [[]] * 116
    assert await store.readers(places[110:], 2, 5, EPOCH) == Readers([[]] * 10, 0)


async def test_more_readers_than_a_call_takes_come_in_several(
    server: Server, store: PredictionStore, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.redis_predictions._READERS_PER_CALL", 3)
    now, places = now_us(), [place_of(server, b"s4:%04d" % number) for number in range(60)]
    newest: dict[bytes, list[bytes]] = {place: [] for place in places}
    for number in range(40):
        place, entity = rng.choice([*places[:5], places[50], places[59]]), b"i2:%d" % (10 + number)
        await list_one(server, store, entity, [place], now + number * 1_000, 99)
        newest[place].insert(0, entity)
    everybody = Readers(list(newest.values()), 0)
    assert await store.readers(places, 99, 99, EPOCH) == everybody
    for each, most in ((1, 99), (2, 7), (3, 9), (4, 6), (99, 20), (99, 0), (5, 40)):
        expected, room = [], most
        for place in places:
            expected.append(newest[place][: min(each, room)])
            room -= len(expected[-1])
        told = sum(map(len, expected))
        assert await store.readers(places, each, most, EPOCH) == Readers(expected, 40 - told)


async def test_who_has_expired_is_listed_no_longer(server: Server, store: PredictionStore) -> None:
    place = place_of(server)
    for entity, read_at in ((b"i1:1", now_us() - KEPT_MS * 1_000 + 300_000), (b"i1:2", now_us())):
        await list_one(server, store, entity, [place], read_at, 9)

    async def gone() -> bool:
        return (await store.readers([place], 9, 9, EPOCH)).keys == [[b"i1:2"]]

    await eventually_async(gone, what="the one that expired is left out")
    dead = await list_one(server, store, b"i1:3", [place], now_us() - KEPT_MS * 1_001, 9)
    assert dead == Put([False], [False], 0)
    assert await store.readers([place], 9, 9, EPOCH) == Readers([[b"i1:2"]], 0)
    assert (await list_one(server, store, b"i1:4", [place], now_us(), 1)).dropped == 1


def test_no_two_predictions_and_leases_share_a_key() -> None:
    keys = RedisKeys("test", "test")
    entities, models, digests = [b"i1:1", b"i1:11"], [PredictionsOf("M", "1"), PredictionsOf("M", "1.1")], [b"d", b"e"]
    made = [
        *(key for of in models for key in keys.predictions(of, entities)),
        *(key for of in models for digest in digests for key in keys.predictions(of, entities, [digest] * 2)),
        *(key for of in models for print in (b"f" * 16, b"g" * 16) for key in keys.leases(of, entities, [print] * 2)),
        *itertools.chain.from_iterable(keys.leases(of, entities, [b"f" * 16] * 2, digests) for of in models),
        *(key for of in models for view in ("V", "M") for key in keys.readers(of, view, entities)),
    ]
    assert len(set(made)) == len(made)
    with pytest.raises(ValueError, match="version"):
        keys.predictions(PredictionsOf("M", "1:2"), entities)
    with pytest.raises(ValueError, match="model"):
        keys.predictions(PredictionsOf("M:2", "1"), entities)


async def test_a_primary_that_was_demoted_is_not_read(server: Server, store: PredictionStore, tmp_path: Path) -> None:
    """Its rows may be behind, and a refresh that finds a prediction fresh there is forgotten. So may its lists be."""
    assert (await store.read_at([b"nothing"])).values == [None]
    if isinstance(server, TwinServer):
        before = (await store.read_at([b"nothing"])).under
        server.memory.fail_over()
        assert (await store.read_at([b"nothing"])).under != before
        server.memory.role = "slave"
        with pytest.raises(StoreUnavailable, match="it is a replica"):
            await store.read_at([b"nothing"])
        with pytest.raises(StoreUnavailable, match="it is a replica"):
            await store.readers([place_of(server)], 1, 1, EPOCH)
        return
    own = AnyRedisServer(next(iter(executables().values())), tmp_path)
    own.start()
    link = RedisLink(own.url, 5.0, 1)
    predictions = RedisPredictions(link, server.keys)
    try:
        with redis.Redis.from_url(own.url) as client:
            client.set(server.keys.ready, EPOCH)
            before = (await predictions.read_at([b"nothing"])).under
            assert before == under(EPOCH, client.info("replication")["master_replid"])
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreUnavailable, match=r"READONLY.*it is a replica"):
                await predictions.read_at([b"nothing"])
            with pytest.raises(StoreUnavailable, match=r"READONLY.*it is a replica"):
                await predictions.readers([place_of(server)], 1, 1, EPOCH)
            client.execute_command("REPLICAOF", "NO", "ONE")
            assert (await predictions.read_at([b"nothing"])).under not in (before, b"")
    finally:
        await link.close()
        own.stop()


@pytest.mark.parametrize(
    ("entities", "least"), [(3, 1), (_MOST_KEYS // 2 + 15, _MOST_KEYS // 2 + 1)], ids=["in one go", "in parts"]
)
async def test_whatever_order_completions_have_fresh_is_the_model_over_the_inputs_that_stand_beside_it(
    server: Server, store: PredictionStore, online: OnlineReader, rng: random.Random, entities: int, least: int
) -> None:
    """Also where a read takes more keys than a call may have, a prediction and a row for each entity: what it finds is
    of several instants."""
    writer, spec, adding = server.open(), model(), Adding()
    inputs = ModelInputs(spec, DEFINITIONS)

    def engine(lease_ms: int) -> Engine:
        return Engine(spec, inputs, adding, store, server.keys, chance=rng.random, lease_ms=lease_ms)

    readers = [
        ModelReader(engine(LEASE_MS), online, server.keys, NoHints(), now_us, chance=rng.random) for _ in range(2)
    ]
    times = itertools.count(now_us(), 1_000)
    race = Race(range(entities), lambda rows: writer.put(rows, EPOCH.decode()), lambda: next(times), rng)
    adding.before = race.dawdle
    await race.begin()
    async with asyncio.timeout(60):
        await race.run(readers, [engine(1) for _ in range(3)], 60, least)
    assert race.fresh > 20
    adding.before = None
    await race.settle(readers[0])
    for reader in readers:
        await reader.close()
    await writer.close()
