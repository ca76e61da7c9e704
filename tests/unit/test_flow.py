"""A flow between its sinks: what it waits for before it links, and what it counts as held."""

import asyncio
import contextlib
import dataclasses
import datetime
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from sinks.archive import PartitionArchive, SpanFiles, UploadedSpan
from stillwell.errors import StoreNotReady, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId, TopicIncarnation
from stillwell.layout.entity_key import entity_key
from stillwell.layout.prediction import Outputs, Record
from stillwell.layout.redis_keys import PredictionsOf
from stillwell.predictions.store import Listing, Readers
from stillwell.predictions.triggers import Triggers
from stillwell.spec import AliasSpec, DefinitionsSpec, EntitySpec, InputSpec, KeySpec, ModelSpec, OutputSpec
from stillwell.testing.hints import MemoryHints
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import INT64, STRING
from streams.flow import Flow, RefreshOnWrite
from streams.metrics import LEFT_TO_READS
from tests.chain_support import NOON
from tests.twin_line import KEYS, SOURCE, VIEW, Worker, World, expected, links, prepared, some_log, stored


@contextlib.asynccontextmanager
async def flowing(worker: Worker) -> AsyncIterator[Flow]:
    """A flow at the beginning of its partition; over at the end."""
    flow = await worker.open()
    running = asyncio.create_task(flow.run())
    async with asyncio.timeout(10):
        yield flow
    running.cancel()
    await asyncio.wait((running,))
    assert flow.ended


async def until(what: Callable[[], bool]) -> None:
    """Let the others run until something is so."""
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0)


def take(flow: Flow, world: World, end: int) -> None:
    """Hand it the log from where it stands."""
    flow.expect(end, 0)
    flow.take(prepared(flow, world.log.read(flow.ledger.position, end - flow.ledger.position)))


async def test_a_link_says_which_redis_acknowledged_its_rows(rng: random.Random) -> None:
    """Epoch and replication id, for people who look into a failover afterwards."""
    world = World(some_log(rng))
    worker = Worker(world, "a")
    await worker.work()
    state = await worker.online.read_state()
    assert {(link.epoch, link.replication_id) for link in links(world)} == {(state.epoch, state.replication_id)}


async def test_what_a_flow_holds_counts_until_it_is_linked_and_no_longer(rng: random.Random) -> None:
    """Fetched, queued, in spans open and closed: memory that back-pressure knows of. At the end there is none."""
    world = World(some_log(rng))
    worker = Worker(world, "a", window_rows=1 << 30)
    worker.online.faults = lambda operation: "refused" if operation == "put" else None
    async with flowing(worker) as flow:
        flow.expect(20, 12_345)
        assert flow.nbytes == 12_345
        batch = prepared(flow, world.log.read(0, 20))
        letters = batch.letters.nbytes if batch.letters else 0
        flow.take(batch)
        assert flow.nbytes == batch.online.nbytes + batch.tables.nbytes + letters
        await until(lambda: 0 < flow.open_bytes == flow.nbytes - batch.online.nbytes)
        flow.close_span()
        await until(lambda: flow.ledger.has_closed_spans)
        assert flow.open_bytes == 0 < flow.closing_bytes
        assert flow.nbytes == flow.closing_bytes + batch.online.nbytes
        worker.online.faults = lambda operation: None
        await flow.flush()
        assert flow.nbytes == 0


async def test_the_oldest_record_without_a_link_tells_how_long_it_waits(rng: random.Random) -> None:
    """Over open and closed spans: while a sink is down the time grows, and with the last link it ends."""
    world = World(some_log(rng))
    worker = Worker(world, "a", window_rows=1)
    async with flowing(worker) as flow:
        assert flow.unlinked_seconds == 0
        worker.online.faults = lambda operation: "refused" if operation == "put" else None
        took = time.monotonic()
        take(flow, world, 10)
        await until(lambda: flow.ledger.has_closed_spans)
        oldest = time.monotonic() - flow.unlinked_seconds
        take(flow, world, 20)
        for _ in range(20):
            await asyncio.sleep(0)
        assert took <= time.monotonic() - flow.unlinked_seconds <= oldest + 0.001, "of the first span, not of the next"
        worker.online.faults = lambda operation: None
        await flow.flush()
        assert flow.unlinked_seconds == 0


async def test_a_flush_waits_for_what_was_fetched_and_not_taken_yet(rng: random.Random) -> None:
    """A partition that is given away while a batch is in the agent's hands takes that batch along."""
    world = World(some_log(rng))
    async with flowing(Worker(world, "a")) as flow:
        flow.expect(20, 0)
        flushing = asyncio.create_task(flow.flush())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not flushing.done()
        flow.take(prepared(flow, world.log.read(0, 20)))
        await flushing
        assert links(world)[-1].end == 20


async def test_an_open_span_is_closed_by_its_age_though_nothing_more_comes(rng: random.Random) -> None:
    """A quiet topic's rows come to rest too."""
    world = World(some_log(rng))
    async with flowing(Worker(world, "a", window_rows=1 << 30, window_age=0.01)) as flow:
        take(flow, world, 20)
        async with asyncio.timeout(5):
            while flow.ledger.linked < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("window_rows", "window_age", "flushed", "at_leisure"),
    [(1 << 30, 0.01, False, True), (20, 1e9, False, False), (1 << 30, 1e9, True, False)],
    ids=["of-age", "full", "flushed"],
)
async def test_files_take_their_time_only_where_nobody_waits_for_them(
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    window_rows: int,
    window_age: float,
    flushed: bool,
    at_leisure: bool,
) -> None:
    """Rests spare the batches that come meanwhile; neither a rebalance nor a full memory has time for them."""
    asked = []
    upload = PartitionArchive.upload

    async def recording(self: PartitionArchive, span: SpanFiles, at_leisure: bool = False) -> UploadedSpan:
        asked.append(at_leisure)
        return await upload(self, span, at_leisure)

    monkeypatch.setattr(PartitionArchive, "upload", recording)
    world = World(some_log(rng))
    async with flowing(Worker(world, "a", window_rows=window_rows, window_age=window_age)) as flow:
        take(flow, world, 40)
        if flushed:
            await flow.flush()
        async with asyncio.timeout(5):
            while flow.ledger.linked < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    assert asked == [at_leisure]


async def test_nothing_more_is_linked_of_an_incarnation_once_the_next_one_is_open(rng: random.Random) -> None:
    """A topic was adopted that is the same one in Kafka: what comes after is at rest once, under the new one."""
    world = World(some_log(rng))
    async with flowing(Worker(world, "a", window_rows=1 << 30)) as flow:
        take(flow, world, 20)
        await flow.flush()
        opened = TopicIncarnation(
            created_at=NOON, topic="t", incarnation=2, topic_id="id-1", partitions=1, start="earliest"
        )
        world.store.create(opened.path, chain.encode(opened))
        take(flow, world, 40)
        await flow.flush()
        assert flow.ended
    assert links(world)[-1].end == 20
    await Worker(world, "b").work()
    anew = list(chain.walk(world.store, PartitionId("t", 2, 0))[1])
    assert [anew[0].start, anew[-1].end] == [0, 40]
    assert links(world)[-1].end == 20


async def test_nothing_is_linked_before_the_dead_letter_topic_has_acknowledged_its_rejects(rng: random.Random) -> None:
    """However long it takes: files and rows are ready, and the link waits."""

    def refuse() -> None:
        raise StoreUnavailable("refused by the test")

    world = World(some_log(rng))
    world.dead_letters.faults = refuse
    async with flowing(Worker(world, "a")) as flow:
        take(flow, world, 40)
        flow.close_span()
        for _ in range(200):
            await asyncio.sleep(0)
        assert stored(world) == expected(world.log)
        assert any(path.startswith("views/") for path in world.store.objects)
        assert links(world) == []
        world.dead_letters.faults = lambda: None
        await flow.flush()
        assert world.log.values.index(b"{") in world.dead_letters.offsets
        assert links(world)[-1].end == 40


MODEL = ModelSpec(
    name="Model",
    version="1",
    entity=VIEW.entity,
    inputs=(InputSpec(name="number", reference="Last:number", type=INT64),),
    outputs=(OutputSpec(name="out", type=INT64),),
    server=lambda columns: columns,
    policy="cached",
    max_staleness=datetime.timedelta(minutes=1),
    refresh_on_write=("Last",),
)
PAIR = EntitySpec(name="Pair", keys=(KeySpec(name="a", type=STRING), KeySpec(name="b", type=STRING)))
ALIASES = tuple(
    AliasSpec(name=name, view=VIEW, entity=PAIR, keys={"customer": key}) for name, key in (("A", "a"), ("B", "b"))
)
OF_PAIRS = MODEL.model_copy(
    update={
        "name": "OfPairs",
        "entity": PAIR,
        "inputs": tuple(InputSpec(name=name, reference=f"{name}:number", type=INT64) for name in ("A", "B")),
        "refresh_on_write": ("A", "B"),
        "max_fan_out": 3,
    }
)


def with_hints(worker: Worker, *models: ModelSpec) -> MemoryHints:
    """Have each write to the worker's view ask for a refresh; gives where it asks."""
    definitions = DefinitionsSpec(
        entities=(VIEW.entity, PAIR), topics=(SOURCE,), views=(VIEW,), aliases=ALIASES, models=models or (MODEL,)
    )
    hints = MemoryHints()
    refreshing = RefreshOnWrite(
        Triggers(definitions, KEYS), MemoryPredictions(worker.world.server, KEYS), hints, worker.sinks.retry_online
    )
    worker.sinks = dataclasses.replace(worker.sinks, refresh=refreshing)
    worker._opening._sinks = worker.sinks
    return hints


async def test_nothing_is_linked_before_the_refresh_topic_has_acknowledged_what_its_rows_trigger(
    rng: random.Random,
) -> None:
    def refuse() -> None:
        raise StoreUnavailable("refused by the test")

    world = World(some_log(rng))
    worker = Worker(world, "a")
    hints = with_hints(worker)
    hints.faults = refuse
    async with flowing(worker) as flow:
        take(flow, world, 40)
        flow.close_span()
        for _ in range(200):
            await asyncio.sleep(0)
        assert stored(world) == expected(world.log)
        assert links(world) == []
        assert hints.hints == []
        hints.faults = lambda: None
        await flow.flush()
        assert links(world)[-1].end == 40
        assert {hint.values["customer"] for hint in hints.hints} == set(expected(world.log))
        assert len(hints.hints) == len(expected(world.log))
        assert flow.nbytes == 0


async def test_hints_come_only_when_redis_has_the_rows(rng: random.Random) -> None:
    """Who looked before would find everything fresh, and forget."""
    world = World(some_log(rng))
    worker = Worker(world, "a")
    hints = with_hints(worker)
    worker.online.faults = lambda operation: "refused" if operation == "put" else None
    async with flowing(worker) as flow:
        take(flow, world, 40)
        for _ in range(200):
            await asyncio.sleep(0)
        assert hints.hints == []
        worker.online.faults = lambda operation: None
        await flow.flush()
        assert hints.hints != []


async def test_rows_that_are_duplicates_ask_for_refreshes_too(rng: random.Random) -> None:
    """Who wrote them first may have died before it could ask."""
    world = World(some_log(rng))
    dead = Worker(world, "a", window_rows=1 << 30)
    never_asked = with_hints(dead)
    never_asked.faults = lambda: (_ for _ in ()).throw(StoreUnavailable("refused by the test"))
    async with flowing(dead) as flow:
        take(flow, world, 40)
        await until(lambda: stored(world) == expected(world.log))
    heir = Worker(world, "b")
    hints = with_hints(heir)
    await heir.work()
    assert {hint.values["customer"] for hint in hints.hints} == set(expected(world.log))


async def test_rows_that_are_applied_again_after_a_failover_ask_for_refreshes_before_their_marks_are_raised(
    rng: random.Random,
) -> None:
    """The predictions that knew them are lost with them, and those who wait for the next write would wait for ever."""
    world = World(some_log(rng))
    first = Worker(world, "a")
    with_hints(first)
    await first.work()
    world.server.fail_over(lost=10_000)
    world.server.write(KEYS.ready, chain_epoch(world))
    assert stored(world) == {}
    heir = Worker(world, "b")
    hints = with_hints(heir)
    hints.faults = lambda: (_ for _ in ()).throw(StoreUnavailable("refused by the test"))
    opening = asyncio.create_task(heir.open())
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert not opening.done()
    assert stored(world) != {}
    marks = [value for key, (value, _) in world.server.dump().items() if b":m:" in key]
    assert [mark[:20] for mark in marks] == [b"0" * 20]
    hints.faults = lambda: None
    await asyncio.wait_for(opening, 5)
    assert stored(world) == expected(world.log)
    assert {hint.values["customer"] for hint in hints.hints} == set(expected(world.log))


def chain_epoch(world: World) -> bytes:
    """The epoch under which the last link was made."""
    return links(world)[-1].epoch.encode()


async def predict(world: World, *pairs: tuple[str, str], most: int = 3) -> None:
    """Keep a prediction of each pair of customers, as who computes it does."""
    of, store, read_at = PredictionsOf("OfPairs", "1"), MemoryPredictions(world.server, KEYS), world.server.clock()
    for number, (a, b) in enumerate(pairs):
        entity = entity_key(PAIR.keys, {"a": a, "b": b})
        places = [
            place
            for customer in (a, b)
            for place in KEYS.readers(of, "Last", [entity_key(VIEW.entity.keys, {"customer": customer})])
        ]
        (record,) = KEYS.predictions(of, [entity])
        written = Record(Outputs(read_at * 1_000 + number * 1_000, b"f" * 16, 0, 0, b"lyot", b""), None).pack()
        await store.put([(record, written)], 60_000, epoch_of(world), [Listing(entity, places)], most)


def epoch_of(world: World) -> bytes:
    found = world.server.read(KEYS.ready)
    assert found is not None
    return found


async def test_a_write_to_a_view_asks_for_those_who_read_it_through_an_alias_and_no_more_than_are_allowed(
    rng: random.Random,
) -> None:
    """And the link waits for them as for all others, though the row be a duplicate."""
    world = World(some_log(rng))
    dead = Worker(world, "a", window_rows=1 << 30)
    with_hints(dead, OF_PAIRS).faults = lambda: (_ for _ in ()).throw(StoreUnavailable("refused by the test"))
    async with flowing(dead) as flow:
        take(flow, world, 40)
        await until(lambda: stored(world) == expected(world.log))
    first, second, *_ = expected(world.log)
    mine = [(first, f"x{number}") for number in range(5)]
    await predict(world, *mine, ("x0", second), ("x1", "x2"), (first, first))
    heir = Worker(world, "b", window_rows=1 << 30)
    hints = with_hints(heir, OF_PAIRS, MODEL)

    def refuse() -> None:
        raise StoreUnavailable("refused by the test")

    hints.faults = refuse
    async with flowing(heir) as flow:
        take(flow, world, 40)
        flow.close_span()
        for _ in range(400):
            await asyncio.sleep(0)
        assert links(world) == []
        hints.faults = lambda: None
        await flow.flush()
        assert flow.nbytes == 0
    asked = [tuple(hint.values.values()) for hint in hints.hints if hint.model == "OfPairs"]
    assert sorted(asked) == sorted([*mine[-2:], (first, first), ("x0", second)])
    assert {hint.values["customer"] for hint in hints.hints if hint.model == "Model"} == set(expected(world.log))


async def test_a_batch_asks_for_a_bounded_number_of_readers_and_the_rest_are_counted(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.flow.MOST_READERS", 4)
    world = World(some_log(rng))
    worker = Worker(world, "a", window_rows=1 << 30)
    hints = with_hints(worker, OF_PAIRS)
    async with flowing(worker) as flow:
        written = sorted(expected(world.log))
        await predict(world, *((customer, f"x{number}") for customer in written for number in range(3)))
        take(flow, world, 40)
        await flow.flush()
    assert len(hints.hints) == 4
    assert worker.metrics.get(LEFT_TO_READS, "OfPairs") == 3 * len(written) - 4


async def test_who_reads_a_row_is_not_asked_of_a_redis_that_may_have_forgotten_it(rng: random.Random) -> None:
    """Its lists would be empty, and the refreshes lost: the flow ends, and what it held is done again."""
    world = World(some_log(rng))
    worker = Worker(world, "a")
    hints = with_hints(worker, OF_PAIRS)
    flow = await worker.open()
    lists = MemoryPredictions(world.server, KEYS)

    class Forgetful:
        async def readers(self, places: Sequence[bytes], each: int, most: int, epoch: bytes) -> Readers:
            world.server.evict(KEYS.ready)
            return await lists.readers(places, each, most, epoch)

    assert worker.sinks.refresh is not None
    refresh = dataclasses.replace(worker.sinks.refresh, readers=Forgetful())
    flow._sinks = dataclasses.replace(worker.sinks, refresh=refresh)
    running = asyncio.create_task(flow.run())
    take(flow, world, 40)
    with pytest.raises(StoreNotReady):
        await running
    assert (hints.hints, links(world)) == ([], [])


async def test_a_flow_ends_where_redis_is_no_longer_ready_though_nothing_is_written(rng: random.Random) -> None:
    """A `FLUSHALL` behind the last link, in a topic that has gone quiet: the next look tells, not the next event."""
    world = World(some_log(rng))
    worker = Worker(world, "a")
    flow = await worker.open()
    running = asyncio.create_task(flow.run())
    take(flow, world, 40)
    await flow.flush()
    world.server.flush()
    await flow.check_online()
    with pytest.raises(StoreNotReady):
        await asyncio.wait_for(running, 5)
