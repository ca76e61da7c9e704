"""Read your writes: who brings a token reads what it stands for, or is told how far behind it is."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

import pytest

from serving.features import Features
from stillwell.errors import Behind, NotDefined, RequestError, StoreNotReady, StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pushing.token import Token
from stillwell.reading import after as after_
from stillwell.reading.after import MOST_TIMEOUT_MS, Marks, after
from stillwell.reading.features import FeatureReader
from stillwell.reading.online import Stored
from tests.pushed import INCARNATION, LAST, SPLIT, World, raw
from tests.served import DEFINITIONS, LIMITS, NOW_US, Served
from tests.waiting import eventually_here


@dataclasses.dataclass(frozen=True)
class Read:
    """What was read: under which epoch and in which server, and how many rows there were."""

    under: bytes
    rows: int


def reading(world: World) -> Callable[[], Awaitable[Read]]:
    async def read() -> Read:
        return Read((await world.store.read([])).under, len(world.rows()))

    return read


def marks_of(world: World) -> Marks:
    return Marks(world.store, world.keys, "test", (LAST, SPLIT))


def asked(*tokens: Token | str | None, timeout_ms: int = 5_000) -> after_.After:
    found = after(" ".join(map(str, tokens)), timeout_ms)
    assert found
    return found


def looks_at(world: World) -> list[None]:
    """Grows with every look at the store from now on."""
    looks: list[None] = []

    def count(operation: str) -> None:
        if operation == "get":
            looks.append(None)

    world.store.faults = count
    return looks


async def test_a_read_waits_until_the_worker_has_applied_what_was_appended() -> None:
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    looks = looks_at(world)
    waiting = asyncio.ensure_future(marks_of(world).read_after(asked(token), reading(world)))
    await eventually_here(lambda: len(looks) >= 3, what="it has looked again and again")
    assert not waiting.done()
    await world.work()
    assert (await asyncio.wait_for(waiting, 5)).rows == 1


async def test_what_a_synchronous_push_has_written_needs_no_worker() -> None:
    world = await World().ready()
    token = (await world.pusher().write(raw("a"))).token
    assert (await marks_of(world).read_after(asked(token, timeout_ms=0), reading(world))).rows == 1


async def test_under_another_epoch_its_token_waits_for_the_worker_too() -> None:
    """Redis was flushed and made anew: the row is not there until the worker comes."""
    world = await World().ready()
    token = (await world.pusher().write(raw("a"))).token
    world.server.flush()
    world.epoch = await world.store.initialise("another")
    with pytest.raises(Behind):
        await marks_of(world).read_after(asked(token, timeout_ms=10), reading(world))
    await world.work()
    assert (await marks_of(world).read_after(asked(token), reading(world))).rows == 1


async def test_behind_a_failover_its_token_waits_for_the_worker_too() -> None:
    """The replica that takes over has the epoch and may lack the row; what it has of the worker's tells."""
    world = await World().ready()
    token = (await world.pusher().write(raw("a"))).token
    world.server.fail_over(lost=1)
    with pytest.raises(Behind):
        await marks_of(world).read_after(asked(token, timeout_ms=10), reading(world))
    await world.work()
    assert (await marks_of(world).read_after(asked(token), reading(world))).rows == 1


async def test_marks_that_another_server_had_are_worth_nothing() -> None:
    """Between the look at the marks and the read a replica takes over that lacks the row, and the marks that say so."""
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    before = len(world.server._writes)
    await world.work()
    reads = 0

    async def read() -> Read:
        nonlocal reads
        reads += 1
        if reads == 1:
            world.server.fail_over(lost=len(world.server._writes) - before)
            found = await reading(world)()
            assert found.rows == 0
            await world.work()
            return found
        return await reading(world)()

    assert (await marks_of(world).read_after(asked(token), read)).rows == 1


async def test_a_mark_of_an_epoch_that_is_no_longer_in_force_says_nothing() -> None:
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    await world.work()
    world.server.write(world.keys.ready, b"another")
    with pytest.raises(Behind, match="Redis has no mark of Last"):
        await marks_of(world).read_after(asked(token, timeout_ms=20), reading(world))


async def test_marks_that_were_seen_under_an_epoch_that_is_no_more_are_worth_nothing() -> None:
    """Between the look at the marks and the read, Redis is made anew: the read is made again, behind the worker."""
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    await world.work()
    epochs = iter(["another"])

    async def read() -> Read:
        for epoch in epochs:
            world.server.flush()
            world.epoch = await world.store.initialise(epoch)
            found = await reading(world)()
            assert found.rows == 0
            await world.work()
            return found
        return await reading(world)()

    assert (await marks_of(world).read_after(asked(token), read)).rows == 1


async def test_who_waits_in_vain_is_told_how_far_behind_it_is() -> None:
    world = await World().ready()
    pusher, marks = world.pusher(), marks_of(world)
    first = (await pusher.append(raw("a"))).token
    with pytest.raises(Behind, match=r"Redis has no mark of Last, partition \d: does a worker run") as caught:
        await marks.read_after(asked(first, timeout_ms=20), reading(world))
    assert caught.value.lag == 1
    await world.work()
    for _ in range(8):
        last = (await pusher.append(raw("a"))).token
    assert last
    with pytest.raises(
        Behind, match=r"(8|1|2) records? to be taken in \(.*\)\. If it stays so: does a worker run"
    ) as caught:
        await marks.read_after(asked(last, timeout_ms=20), reading(world))
    assert caught.value.offsets["Last"] == dict.fromkeys(last.offsets, caught.value.lag)


async def test_the_mark_of_any_version_that_can_be_read_says_that_rows_are_there() -> None:
    """While definitions are rolled out, workers of another version than the served one take the records in."""
    id = PartitionId("test.push.Last", INCARNATION, 2)
    token = Token("Last", INCARNATION, {2: 7})
    for other in (LAST.version + 1, LAST.version + 8):
        world = await World().ready()
        marks = marks_of(world)
        moved = MarkKey(id, "Last", other)
        await world.store.set_marks([MarkMove(moved, 0, 0)], world.epoch)
        await world.store.set_marks([MarkMove(MarkKey(id, "Last", LAST.version), 5, 5)], world.epoch)
        marks.know([LAST.model_copy(update={"version": other}), SPLIT.model_copy(update={"version": 9})])
        with pytest.raises(Behind) as caught:
            await marks.read_after(asked(token, timeout_ms=0), reading(world))
        assert caught.value.lag == 3
        await world.store.apply([], [MarkMove(moved, 0, 8)], world.epoch)
        await marks.read_after(asked(token, timeout_ms=0), reading(world))
        with pytest.raises(Behind):  # whoever could not read its rows
            await marks_of(world).read_after(asked(token, timeout_ms=0), reading(world))


async def test_of_many_versions_the_latest_and_the_one_that_is_served_are_looked_at() -> None:
    id = PartitionId("test.push.Last", INCARNATION, 2)
    token = Token("Last", INCARNATION, {2: 7})
    for version, counts in ((2, False), (5, False), (6, True), (7, True), (8, True), (LAST.version, True)):
        world = await World().ready()
        marks = marks_of(world)
        marks.know([LAST.model_copy(update={"version": version}) for version in range(2, 9)])
        await world.store.set_marks([MarkMove(MarkKey(id, "Last", version), 8, 8)], world.epoch)
        if counts:
            await marks.read_after(asked(token, timeout_ms=0), reading(world))
        else:
            with pytest.raises(Behind):
                await marks.read_after(asked(token, timeout_ms=0), reading(world))


async def test_a_read_that_waits_for_long_looks_for_versions_that_nobody_has_told_it_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A newer worker has begun behind it, and registered what it writes."""
    monkeypatch.setattr(after_, "_LONG", 0.02)
    world = await World().ready()
    marks = marks_of(world)
    id = PartitionId("test.push.Last", INCARNATION, 2)
    newer = LAST.model_copy(update={"version": 2})
    await world.store.set_marks([MarkMove(MarkKey(id, "Last", 2), 8, 8)], world.epoch)
    token = Token("Last", INCARNATION, {2: 7})
    with pytest.raises(Behind):
        await marks.read_after(asked(token, timeout_ms=100), reading(world))
    marks.late = lambda: marks.know([newer])
    await marks.read_after(asked(token), reading(world))


async def test_a_mark_stands_behind_the_last_record_that_it_covers() -> None:
    """One that stands at the offset itself has not passed it."""
    world = await World().ready()
    id = PartitionId("test.push.Last", INCARNATION, 2)
    mark = MarkKey(id, "Last", LAST.version)
    token = Token("Last", INCARNATION, {2: 7})
    await world.store.set_marks([MarkMove(mark, 7, 7)], world.epoch)
    with pytest.raises(Behind, match="1 of partition 2"):
        await marks_of(world).read_after(asked(token, timeout_ms=20), reading(world))
    await world.store.apply([], [MarkMove(mark, 7, 8)], world.epoch)
    await marks_of(world).read_after(asked(token), reading(world))
    older = dataclasses.replace(token, incarnation=INCARNATION - 1)
    with pytest.raises(Behind):
        await marks_of(world).read_after(asked(token, older, timeout_ms=20), reading(world))


async def test_all_who_wait_share_their_looks() -> None:
    world = await World().ready()
    marks = marks_of(world)
    tokens = [(await world.pusher().append(raw(f"c{number}"))).token for number in range(200)]
    looks = looks_at(world)
    waiting = [asyncio.ensure_future(marks.read_after(asked(token), reading(world))) for token in tokens]
    await eventually_here(lambda: marks.waiting == 200 and looks, what="all wait", pause_s=0)
    world.store.faults = lambda operation: None
    await world.work()
    await asyncio.gather(*waiting)
    assert len(looks) <= 2


async def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_, "_MOST_WAITING", 3)
    world = await World().ready()
    marks = marks_of(world)
    token = (await world.pusher().append(raw("a"))).token
    waiting = [asyncio.ensure_future(marks.read_after(asked(token), reading(world))) for _ in range(3)]
    await eventually_here(lambda: marks.waiting == 3, what="three wait", pause_s=0)
    with pytest.raises(StoreUnavailable, match="3 reads wait for pushes already"):
        await marks.read_after(asked(token), reading(world))
    await world.work()
    await asyncio.gather(*waiting)
    await marks.read_after(asked(token), reading(world))


async def test_a_store_that_fails_is_told_to_all_and_asked_again_by_the_next() -> None:
    world = await World().ready()
    marks = marks_of(world)
    token = (await world.pusher().append(raw("a"))).token
    world.store.faults = lambda operation: "refused"
    with pytest.raises(StoreUnavailable, match="refused by the test"):
        await marks.read_after(asked(token), reading(world))
    world.store.faults = lambda operation: None
    world.server.flush()
    with pytest.raises(StoreNotReady):
        await marks.read_after(asked(token), reading(world))
    await world.ready()
    await world.work()
    await marks.read_after(asked(token), reading(world))


async def test_who_went_away_is_not_waited_for() -> None:
    world = await World().ready()
    marks = marks_of(world)
    token = (await world.pusher().append(raw("a"))).token
    gone = asyncio.ensure_future(marks.read_after(asked(token), reading(world)))
    await eventually_here(lambda: marks._looking, what="it is looked for")
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await eventually_here(lambda: marks._looking is None, what="nobody looks")


async def test_the_end_of_the_service_is_told() -> None:
    world = await World().ready()
    marks = marks_of(world)
    token = (await world.pusher().append(raw("a"))).token
    waiting = asyncio.ensure_future(marks.read_after(asked(token), reading(world)))
    await eventually_here(lambda: marks.waiting == 1, what="it waits")
    await marks.close()
    with pytest.raises(StoreUnavailable, match="the query service ends"):
        await waiting


async def test_a_token_of_no_view_is_told() -> None:
    with pytest.raises(NotDefined, match=r"after: there is no view 'Lost'"):
        await marks_of(World()).read_after(asked("Lost@1:0-1"), reading(World()))


@pytest.mark.parametrize(
    ("text", "timeout_ms", "says"),
    [
        ("nonsense", 5, "must be a token"),
        (" ".join(["Last@1:0-1"] * 17), 5, "at most 16"),
        ("", -1, "timeout_ms: must be from 0"),
        ("Last@1:0-1", MOST_TIMEOUT_MS + 1, "timeout_ms: must be from 0 to 60000"),
    ],
)
def test_what_cannot_be_waited_for_is_told(text: str, timeout_ms: int, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        after(text, timeout_ms)


def test_nothing_to_wait_for_is_nothing() -> None:
    assert after("", None) is None
    assert after("  ", 5) is None


async def test_with_no_time_to_wait_what_is_there_is_read_and_what_is_not_is_counted_truly() -> None:
    world = await World().ready()
    pusher, marks = world.pusher(), marks_of(world)
    first = (await pusher.append(raw("a"))).token
    await world.work()
    assert (await marks.read_after(asked(first, timeout_ms=0), reading(world))).rows == 1
    for _ in range(40):
        last = (await pusher.append(raw("a"))).token
    await world.work()
    last = (await pusher.append(raw("a"))).token
    with pytest.raises(Behind) as caught:
        await marks.read_after(asked(last, timeout_ms=0), reading(world))
    assert caught.value.lag == 1


async def test_tokens_of_more_partitions_than_are_ever_looked_at_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be told to ask again in a moment would be for nothing."""
    monkeypatch.setattr(after_, "_MOST_PARTITIONS", 3)
    world = await World().ready()
    token = Token("Last", INCARNATION, dict.fromkeys(range(4), 0))
    with pytest.raises(RequestError, match="after: names 4 partitions; at most 3 are allowed"):
        await marks_of(world).read_after(asked(token), reading(world))


async def test_who_waits_for_many_marks_looks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_, "_PAUSE_PER_KEY", 1.0)
    world = await World().ready()
    looks = looks_at(world)
    with pytest.raises(Behind):
        await marks_of(world).read_after(asked(Token("Last", INCARNATION, {7: 0}), timeout_ms=50), reading(world))
    assert len(looks) == 1


async def test_every_token_of_several_is_waited_for() -> None:
    """One that says its rows are there speaks for none of the others, whichever comes first."""
    world = await World().ready()
    there = (await world.pusher().write(raw("a"))).token
    assert there
    appended = (await world.pusher().append(raw("b"))).token
    elsewhere = [dataclasses.replace(there, epoch=f"another-{number:012}") for number in range(10)]
    for other in (appended, *elsewhere):
        for tokens in ((there, other), (other, there)):
            with pytest.raises(Behind):
                await marks_of(world).read_after(asked(*tokens, timeout_ms=0), reading(world))
    await world.work()
    assert (await marks_of(world).read_after(asked(there, appended, *elsewhere), reading(world))).rows == 2


async def test_of_two_tokens_of_one_partition_the_later_record_is_waited_for() -> None:
    world = await World().ready()
    mark = MarkKey(PartitionId("test.push.Last", INCARNATION, 2), "Last", LAST.version)
    first, second = (Token("Last", INCARNATION, {2: offset}) for offset in (6, 7))
    await world.store.set_marks([MarkMove(mark, 7, 7)], world.epoch)
    await marks_of(world).read_after(asked(first, timeout_ms=0), reading(world))
    for tokens in ((first, second), (second, first)):
        with pytest.raises(Behind):
            await marks_of(world).read_after(asked(*tokens, timeout_ms=0), reading(world))


async def test_what_nobody_knows_the_server_of_is_not_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks, and then rows, were read in parts, and of each another server has answered one."""
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    await world.work()
    read, read_rows, reads = world.store.read, reading(world), 0

    async def of_several(keys: Sequence[bytes]) -> Stored:
        stored = await read(keys)
        return stored._replace(replication_id="") if reads < 2 else stored

    async def rows() -> Read:
        nonlocal reads
        reads += 1
        return await read_rows()

    monkeypatch.setattr(world.store, "read", of_several)
    assert (await marks_of(world).read_after(asked(token), rows)).under.startswith(b"epoch-")


async def test_who_reads_from_another_server_than_marks_are_of_is_not_kept_for_ever() -> None:
    """A primary that is cut off answers one connection of a process, and its successor the other, until somebody sees
    it."""
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    await world.work()

    async def of_another() -> Read:
        return Read(b"", 1)

    async with asyncio.timeout(1):
        with pytest.raises(StoreUnavailable, match="different servers"):
            await marks_of(world).read_after(asked(token, timeout_ms=10), of_another)


async def test_who_cannot_wait_says_so_and_does_not_read_at_once(served: Served) -> None:
    """What was read at once might lack what the token stands for, and nobody would see that it does."""
    await served.put({"id": 1, "name": "a"})
    features = Features(DEFINITIONS, FeatureReader(served.store, RedisKeys("test", "test"), lambda: NOW_US), LIMITS)
    plan = features.plan(["Users:name"])
    assert await features.find_after(plan, {"id": [1]}, None)
    with pytest.raises(RequestError, match="reads wait for no pushes here"):
        await features.find_after(plan, {"id": [1]}, asked("Users@1:0-0"))


@pytest.mark.parametrize("broken", ["the store", "a mark"])
async def test_a_mistake_of_ours_is_told_to_who_waits_and_holds_nobody(broken: str) -> None:
    world = await World().ready()
    token = (await world.pusher().append(raw("a"))).token
    assert token
    (partition,) = token.offsets
    place = PartitionId("test.push.Last", INCARNATION, partition)

    def fault(operation: str) -> None:
        raise ZeroDivisionError("our mistake")

    if broken == "the store":
        world.store.faults = fault
    else:
        world.server.write(world.keys.mark(MarkKey(place, "Last", 1)), b"x" * 20 + b":" + world.epoch.encode())
    async with asyncio.timeout(5):
        with pytest.raises((ZeroDivisionError, ValueError)):
            await marks_of(world).read_after(asked(token), reading(world))
