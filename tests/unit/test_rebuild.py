"""A rebuild on the twins: whatever fails on the way, Redis ends with the bytes of all that is linked, or not ready."""

import asyncio
import copy
import dataclasses
import datetime
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import polars as pl
import pytest

from sinks.archive import Archive
from stillwell.definitions.behaviour import canonical, sha256
from stillwell.errors import ChainError, FormatError, NotFound, StoreNotReady, StoreUnavailable
from stillwell.known_views import Version, known_views
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.pipeline import Pipeline, compile_pipeline
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import To, headers_of
from stillwell.rebuild import FILES_AT_A_TIME, Rebuilt, is_ready, plan, rebuild
from stillwell.records import Headers
from stillwell.registry import register
from stillwell.spec import DefinitionsSpec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import INT64, STRING
from tests.batches import NOW_MS, column, event, feature, records, tables, topic, view
from tests.chain_support import NOON, Inline, at_once

T = TypeVar("T")

GRACE = datetime.timedelta(hours=1)
TOPIC = topic(column("customer", STRING), column("amount", INT64))
KEYS = {"customer": (STRING, pl.col("T.customer"))}
AMOUNT = feature("amount", INT64, pl.col("T.amount"))
FIRST = view(TOPIC, KEYS, AMOUNT).model_copy(update={"ttl": datetime.timedelta(days=1)})
SECOND = FIRST.model_copy(update={"version": 2, "features": (AMOUNT, feature("twice", INT64, pl.col("T.amount") * 2))})
OTHER = view(TOPIC, KEYS, AMOUNT, name="W")


def definitions(*views: ViewSpec) -> DefinitionsSpec:
    """Definitions of these views alone."""
    return DefinitionsSpec(entities=(FIRST.entity,), topics=(TOPIC,), views=views)


def noon() -> datetime.datetime:
    """The archive's clock."""
    return NOON


def now() -> int:
    """The server's."""
    return NOW_MS + 1_000


class AtOnce:
    """Threads that are none: work is done here and now."""

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns or raises."""
        await asyncio.sleep(0)
        return work(*arguments)


class Deployment:
    """A store that workers have written, and what Redis held in the end."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.server = MemoryRedis(clock=now)
        self.online = MemoryOnlineStore(self.server)
        self._archive = Archive(Inline(self.store), at_once, noon, "a-test")

    async def open(self, id: PartitionId) -> None:
        """Genesis, and a ready Redis."""
        await self._archive.open_incarnation(id.topic, id.incarnation, f"id{id.incarnation}", 4, "earliest")
        await self._archive.partition(id, []).begin(0, "an-id")
        await self.online.initialise("the-first")

    async def write(self, id: PartitionId, views: Sequence[ViewSpec], amounts: Sequence[int]) -> None:
        """A span of events, as a worker with these views brings it to rest: rows, marks, files, link."""
        bodies = [event(customer=f"c{amount % 7}", amount=amount) for amount in amounts]
        await self._bring(id, compile_pipeline(TOPIC, views), bodies, [()] * len(bodies))

    async def push(self, id: PartitionId, view: ViewSpec, to: Sequence[To]) -> None:
        """The same of pushed rows, each of an entity of its own."""
        at = "2026-01-01T00:00:00Z"
        rows = [
            json.dumps({"customer": f"p{n}", "event_timestamp": at, "amount": n, "twice": n}) for n in range(len(to))
        ]
        headers = [headers_of(transform=False, to=each) for each in to]
        await self._bring(id, PushPipeline("shop", view), [row.encode() for row in rows], headers)

    async def _bring(
        self, id: PartitionId, pipeline: Pipeline | PushPipeline, bodies: Sequence[bytes], headers: Sequence[Headers]
    ) -> None:
        views = pipeline.views
        partition = self._archive.partition(id, views)
        assert await partition.find_end(None)
        batch = records(bodies, start=partition.end, headers=headers)
        batch = dataclasses.replace(batch, topic=id.topic, partition=id.partition)
        span = partition.open_span(partition.end)
        span.add(tables(pipeline, batch, NOON))
        marks = [MarkKey(id, each.name, each.version) for each in views]
        await self.online.set_marks([MarkMove(mark, batch.start, batch.start) for mark in marks], "the-first")
        for each, rows in zip(views, pipeline.run(batch).rows, strict=True):
            await self.online.put(ViewEncoder(each, GRACE).encode(rows.frame, id)[0], "the-first")
        await self.online.apply((), [MarkMove(mark, batch.start, batch.end) for mark in marks], "the-first")
        assert await partition.link(await partition.upload(span), "the-first", "replication")

    async def expire(self, id: PartitionId, offsets: int) -> None:
        """A link over offsets that retention took; a worker that opens the partition raises its marks over them."""
        partition = self._archive.partition(id, [])
        assert await partition.find_end(None)
        end = partition.end
        assert await partition.expire(end + offsets)
        for each in (FIRST, SECOND, OTHER):
            move = MarkMove(MarkKey(id, each.name, each.version), end, end + offsets)
            await self.online.apply((), [move], "the-first")

    async def rebuild(
        self, views: Mapping[Version, ViewSpec], epoch: str = "the-second", store: ObjectStore | None = None
    ) -> Rebuilt:
        """Do it."""
        source = store or self.store
        planned = plan(source, views)
        done = await rebuild(source, self.online, views, planned, GRACE, epoch, AtOnce(), at_once)
        assert done.rows == sum(dataclasses.astuple(done.counts)) + done.superseded + done.offline
        return done


def held(server: MemoryRedis) -> dict[bytes, object]:
    """Rows with their expiries, and marks without their epochs."""
    return {
        key: value[0][:20] if b":m:" in key else value
        for key, value in server.dump().items()
        if not key.endswith((b":ready", b":rebuild"))
    }


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest) -> Deployment:
    """Two partitions, one of them in two incarnations; a view that changed its version; offsets that expired."""
    rng = random.Random(request.config.option.seed)

    async def write() -> Deployment:
        made = Deployment()
        register(made.store, definitions(FIRST, OTHER), GRACE)
        register(made.store, definitions(SECOND, OTHER), GRACE)
        once, again, beside = PartitionId("t", 1, 0), PartitionId("t", 2, 0), PartitionId("t", 1, 1)
        for id in (once, again, beside):
            await made.open(id)
        for number in range(3):
            for id in (once, beside):
                await made.write(id, [FIRST, OTHER], [rng.randrange(100) for _ in range(10 + number)])
        await made.write(beside, [SECOND, OTHER], [rng.randrange(100) for _ in range(10)])
        await made.expire(beside, 5)
        for _ in range(2):
            await made.write(again, [SECOND, OTHER], [rng.randrange(100) for _ in range(10)])
        return made

    return asyncio.run(write())


@pytest.fixture
def deployment(written: Deployment) -> Deployment:
    """The same for every test, to do with as it likes."""
    made = Deployment()
    made.store.objects = dict(written.store.objects)
    made.server = copy.deepcopy(written.server)
    made.online = MemoryOnlineStore(made.server)
    return made


def known(deployment: Deployment, *defined: ViewSpec) -> Mapping[Version, ViewSpec]:
    """What a command finds, whose definitions have these views."""
    return known_views(deployment.store, definitions(*defined))


async def test_all_that_was_there_is_there_again(deployment: Deployment) -> None:
    """Rows of every version and incarnation with their expiries, marks where they stood, under the rebuild's epoch."""
    before = held(deployment.server)
    assert len([key for key in before if b":f:" in key]) == 14
    assert len([key for key in before if b":m:" in key]) == 7
    deployment.server.flush()
    done = await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert held(deployment.server) == before
    assert (await deployment.online.read_state()).epoch == "the-second"
    assert (done.plan.chains, done.plan.files, done.files) == (3, 18, 18)
    assert done.counts.applied >= 14
    assert done.superseded > 0
    assert done.rows == done.plan.rows
    mark = MarkKey(PartitionId("t", 1, 1), "V", 2)
    assert await deployment.online.read_marks([mark]) == [10 + 11 + 12 + 10 + 5]


async def test_rows_for_the_offline_store_alone_are_counted_as_such(deployment: Deployment) -> None:
    id = PartitionId("shop.push.V", 1, 0)
    await deployment.open(id)
    await deployment.push(id, SECOND, [To.OFFLINE, To.BOTH, To.ONLINE])
    done = await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert done.offline == 1


async def test_what_is_registered_needs_no_definitions(deployment: Deployment) -> None:
    before = held(deployment.server)
    deployment.server.flush()
    await deployment.rebuild(known(deployment))
    assert held(deployment.server) == before


async def test_files_are_read_as_they_were_registered_whatever_definitions_say_now(deployment: Deployment) -> None:
    """A worker refuses definitions that have changed without a new version; the rows are what they were."""
    before = held(deployment.server)
    deployment.server.flush()
    changed = SECOND.model_copy(update={"features": (AMOUNT,)})
    await deployment.rebuild(known(deployment, changed, OTHER))
    assert held(deployment.server) == before


async def test_a_rebuild_over_newer_rows_leaves_them(deployment: Deployment) -> None:
    """What workers put before they died, and nobody linked: it comes again, and is a duplicate then."""
    id = PartitionId("t", 2, 0)
    late = records([event(customer="c1", amount=1_000)], start=500)
    rows = compile_pipeline(TOPIC, [SECOND]).run(late).rows[0]
    await deployment.online.put(ViewEncoder(SECOND, GRACE).encode(rows.frame, id)[0], "the-first")
    before = held(deployment.server)
    done = await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert done.counts.applied == 0
    assert held(deployment.server) == before


class Faults:
    """One fault at the n-th call, and none after it; counts the calls."""

    def __init__(self, at: int, fault: str) -> None:
        self.calls = 0
        self._at = at
        self._fault = fault

    def __call__(self, *call: str) -> Any:
        self.calls += 1
        return self._fault if self.calls - 1 == self._at else None


@pytest.mark.parametrize("fault", ["refused", "lost answer", "lost call", "half done"])
async def test_a_fault_of_redis_at_any_call_is_asked_again(fault: str, deployment: Deployment) -> None:
    before = held(deployment.server)
    views = known(deployment, SECOND, OTHER)
    for at in itertools.count():
        deployment.server.flush()
        faults = Faults(at, fault)
        deployment.online = MemoryOnlineStore(deployment.server, faults=faults)
        done = await deployment.rebuild(views, f"epoch {at}")
        assert held(deployment.server) == before
        assert done.rows == done.plan.rows
        if faults.calls <= at:
            break
    assert at > 18


async def test_a_fault_of_the_store_after_the_plan_is_asked_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it, nothing was touched, and the command is simply given again. No link is taken twice, or left out."""
    monkeypatch.setattr("stillwell.rebuild._LINKS_AT_A_TIME", 2)
    before = held(deployment.server)
    views = known(deployment, SECOND, OTHER)
    clean = Faults(-1, "")
    deployment.store.faults = clean
    plan(deployment.store, views)
    of_the_plan = clean.calls
    for at in itertools.count():
        deployment.server.flush()
        deployment.store.faults = faults = Faults(at, "refused")
        if at < of_the_plan:
            with pytest.raises(StoreUnavailable):
                await deployment.rebuild(views)
            assert deployment.server.dump() == {}
            continue
        done = await deployment.rebuild(views, f"epoch {at}")
        assert held(deployment.server) == before
        assert done.rows == done.plan.rows
        if faults.calls <= at:
            break


class Death:
    """Kills whoever makes the n-th call."""

    def __init__(self, at: int) -> None:
        self._faults = Faults(at, "dies")

    def __call__(self, operation: str) -> None:
        if self._faults(operation):
            raise KeyError("killed")


async def test_a_rebuild_that_dies_leaves_redis_not_ready_and_the_next_one_ends_it(deployment: Deployment) -> None:
    before = held(deployment.server)
    views = known(deployment, SECOND, OTHER)
    clean = Faults(-1, "")
    deployment.online.faults = clean
    await deployment.rebuild(views, "a clean one")
    for at in range(1, clean.calls):
        deployment.server.flush()
        deployment.online = MemoryOnlineStore(deployment.server, faults=Death(at))
        with pytest.raises(KeyError):
            await deployment.rebuild(views, "dead")
        assert (await MemoryOnlineStore(deployment.server).read_state()).epoch is None
        deployment.online = MemoryOnlineStore(deployment.server)
        await deployment.rebuild(views, "alive")
        assert held(deployment.server) == before


async def test_a_store_that_forgets_during_the_rebuild_does_not_become_ready(deployment: Deployment) -> None:
    calls = iter(range(1_000))

    def forget(operation: str) -> None:
        if next(calls) == 9:
            deployment.server.flush()

    deployment.online = MemoryOnlineStore(deployment.server, faults=forget)
    with pytest.raises(StoreNotReady):
        await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert (await MemoryOnlineStore(deployment.server).read_state()).epoch is None


async def test_a_server_that_takes_over_during_the_rebuild_does_not_become_ready(deployment: Deployment) -> None:
    """It has the rebuild's key, and lacks the last of the rows that the first one had taken."""
    puts = itertools.count()

    def fail_over(operation: str) -> None:
        if operation == "put" and next(puts) == 3:
            deployment.server.fail_over(lost=1)

    views = known(deployment, SECOND, OTHER)
    deployment.server.flush()
    deployment.online = MemoryOnlineStore(deployment.server, faults=fail_over)
    with pytest.raises(StoreNotReady, match="run `stillwell rebuild` again"):
        await deployment.rebuild(views)
    assert (await MemoryOnlineStore(deployment.server).read_state()).epoch is None


async def test_of_two_rebuilds_the_later_one_wins(deployment: Deployment) -> None:
    views = known(deployment, SECOND, OTHER)
    before = held(deployment.server)
    deployment.server.flush()
    first, second = await asyncio.gather(
        deployment.rebuild(views, "one"), deployment.rebuild(views, "two"), return_exceptions=True
    )
    assert isinstance(first, StoreNotReady)
    assert isinstance(second, Rebuilt)
    assert held(deployment.server) == before


async def test_a_version_that_nobody_knows_is_refused_before_anything_is_touched(deployment: Deployment) -> None:
    for path in deployment.store.list("_registry/"):
        deployment.store.delete(path)
    before = deployment.server.dump()
    with pytest.raises(FormatError, match=r"V version 1, but neither the definitions nor the registry"):
        await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert deployment.server.dump() == before


async def test_a_damaged_chain_is_refused_before_anything_is_touched(deployment: Deployment) -> None:
    id = PartitionId("t", 1, 0)
    first = chain.walk(deployment.store, id)[0].start
    deployment.store.objects[id.link_path(first)] += b" "
    before = deployment.server.dump()
    with pytest.raises(ChainError):
        await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert deployment.server.dump() == before


async def test_a_chain_without_its_genesis_is_refused_before_anything_is_touched(deployment: Deployment) -> None:
    """Whose links nobody can follow: the message says what to restore, and what names the rest."""
    id = PartitionId("t", 1, 0)
    deployment.store.delete(id.genesis_path)
    before = deployment.server.dump()
    with pytest.raises(ChainError, match=rf"{id.genesis_path}: is missing.*Restore it from a backup.*stillwell verify"):
        await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert deployment.server.dump() == before


async def test_a_store_without_chains_is_refused(deployment: Deployment) -> None:
    """It is more likely the wrong one; and an empty Redis over it needs no rebuild."""
    deployment.store.objects = {}
    with pytest.raises(NotFound, match=r"there are no chains.*STILLWELL_OFFLINE_URL"):
        await deployment.rebuild(known(deployment, SECOND, OTHER))


async def test_readiness_is_asked_until_the_store_answers(deployment: Deployment) -> None:
    deployment.online.faults = Faults(0, "refused")
    assert await is_ready(deployment.online, at_once)
    deployment.server.flush()
    assert not await is_ready(deployment.online, at_once)


async def test_a_damaged_file_leaves_redis_not_ready(deployment: Deployment) -> None:
    path = deployment.store.list("views/V/")[0]
    deployment.store.objects[path] += b" "
    with pytest.raises(ChainError, match="altered"):
        await deployment.rebuild(known(deployment, SECOND, OTHER))
    assert (await deployment.online.read_state()).epoch is None


async def test_few_files_are_held_at_a_time(deployment: Deployment) -> None:
    """However many there are: rows of one file are put before others are read."""
    read = put = most = 0

    class Counting(MemoryStore):
        def read(self, path: str) -> bytes:
            nonlocal read, most
            read += path.startswith("views/")
            most = max(most, read - put)
            return super().read(path)

    def count(operation: str) -> None:
        nonlocal put
        put += operation == "put"

    store = Counting()
    store.objects = deployment.store.objects
    deployment.online = MemoryOnlineStore(deployment.server, faults=count)
    await deployment.rebuild(known(deployment, SECOND, OTHER), store=store)
    assert put == 18
    assert 1 < most <= FILES_AT_A_TIME


async def test_progress_is_told_file_by_file(deployment: Deployment) -> None:
    told: list[tuple[int, int]] = []
    views = known(deployment, SECOND, OTHER)
    await rebuild(
        deployment.store,
        deployment.online,
        views,
        plan(deployment.store, views),
        GRACE,
        "an-epoch",
        AtOnce(),
        at_once,
        lambda done, of: told.append((done, of)),
    )
    assert told == [(number, 18) for number in range(1, 19)]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data.replace(b'"amount"', b'"price"')])
async def test_a_registered_version_that_was_altered_is_refused(
    change: Callable[[bytes], bytes], deployment: Deployment
) -> None:
    path = "_registry/V/1.json"
    deployment.store.objects[path] = change(deployment.store.objects[path])
    with pytest.raises(FormatError, match=path):
        known(deployment, SECOND, OTHER)


async def test_a_version_with_a_type_that_only_a_later_stillwell_knows_is_refused(deployment: Deployment) -> None:
    path = "_registry/V/1.json"
    document = json.loads(deployment.store.objects[path])
    document["features"][0]["type"] = "Decimal"
    document["digest"] = sha256({name: document[name] for name in document if name not in ("source_digest", "digest")})
    deployment.store.objects[path] = canonical(document)
    with pytest.raises(FormatError, match="version 1 of view V is registered with fields of the type Decimal"):
        known(deployment, SECOND, OTHER)
