"""One contract, kept by every Redis there is and by the twin in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from stillwell.errors import FormatError, StoreNotReady
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import Answer, MarkKey, MarkMove, PutCounts
from stillwell.layout.value import decode
from tests.online_support import (
    CLOCK_SLACK_MS,
    EPOCH,
    FOR_EVER_VIEW,
    HOUR_MS,
    LAYOUT,
    VIEW,
    AnyRedisServer,
    OnlineStore,
    RealServer,
    Server,
    TwinServer,
    assert_nothing_lives_for_ever,
    executables,
    now_us,
    rows,
    stamp,
    value,
)

HOUR_US = HOUR_MS * 1000
NOON_US = now_us() // (24 * HOUR_US) * 24 * HOUR_US + 12 * HOUR_US
MARK = MarkKey(PartitionId("departures", 1, 0), VIEW, 1)
OTHER_MARK = MarkKey(PartitionId("departures", 1, 7), VIEW, 2)


@pytest.fixture(params=["twin", *executables()])
def server(request: pytest.FixtureRequest, redis_of: Callable[[str], AnyRedisServer]) -> Iterator[Server]:
    """A server of each kind, on which nothing may be left that lives for ever and should not."""
    server: Server = TwinServer() if request.param == "twin" else RealServer(redis_of(request.param).url)
    yield server
    assert_nothing_lives_for_ever(server)


@pytest.fixture
async def empty(server: Server) -> AsyncIterator[OnlineStore]:
    """A store that nobody has made ready."""
    store = server.open()
    yield store
    await store.close()


@pytest.fixture
async def store(empty: OnlineStore) -> OnlineStore:
    """A store that is ready, and holds nothing."""
    assert await empty.initialise(EPOCH) == EPOCH
    return empty


def move(start: int, end: int, mark: MarkKey = MARK) -> MarkMove:
    return MarkMove(mark, start, end)


# ---- ready, or not ----


async def test_an_empty_store_says_that_it_is_not_ready(empty: OnlineStore) -> None:
    assert (await empty.read_state()).epoch is None


async def test_a_store_that_is_not_ready_neither_reads_nor_writes(empty: OnlineStore, server: Server) -> None:
    row = (b"i1:7", value(stamp(now_us())))
    for call in (
        empty.put(rows(row), EPOCH),
        empty.get(VIEW, [b"i1:7"]),
        empty.set_marks([move(0, 0)], EPOCH),
        empty.apply((), [move(0, 9)], EPOCH),
        empty.read_marks([MARK]),
    ):
        with pytest.raises(StoreNotReady, match="stillwell rebuild"):
            await call
    assert server.dump() == {}


async def test_the_first_to_initialise_sets_the_epoch_and_the_others_are_told(empty: OnlineStore) -> None:
    assert await empty.initialise("first") == "first"
    assert await empty.initialise("second") == "first"
    assert (await empty.read_state()).epoch == "first"


async def test_of_many_who_initialise_at_once_all_hear_of_one_epoch(server: Server) -> None:
    stores = [server.open() for _ in range(5)]
    told = await asyncio.gather(*(each.initialise(f"epoch-{at}") for at, each in enumerate(stores)))
    for each in stores:
        await each.close()
    assert len(set(told)) == 1


async def test_a_writer_of_another_epoch_changes_nothing(store: OnlineStore, server: Server) -> None:
    await store.set_marks([move(3, 3)], EPOCH)
    before = server.dump()
    with pytest.raises(StoreNotReady):
        await store.put(rows((b"i1:7", value(stamp(now_us())))), "an older epoch")
    with pytest.raises(StoreNotReady):
        await store.apply((), [move(3, 9)], "an older epoch")
    with pytest.raises(StoreNotReady):
        await store.set_marks([move(3, 9, OTHER_MARK)], "an older epoch")
    assert server.dump() == before


async def test_a_store_that_was_flushed_is_not_ready(store: OnlineStore, server: Server) -> None:
    await store.put(rows((b"i1:7", value(stamp(now_us())))), EPOCH)
    server.flush()
    assert (await store.read_state()).epoch is None
    with pytest.raises(StoreNotReady):
        await store.get(VIEW, [b"i1:7"])


async def test_a_store_that_lost_its_ready_key_is_not_ready(store: OnlineStore, server: Server) -> None:
    await store.put(rows((b"i1:7", value(stamp(now_us())))), EPOCH)
    server.evict(server.keys.ready)
    with pytest.raises(StoreNotReady):
        await store.get(VIEW, [b"i1:7"])


# ---- rows ----


async def test_a_row_is_read_back_as_it_was_put_and_what_was_never_put_is_none(store: OnlineStore) -> None:
    given = value(stamp(now_us(), offset=5), "häßlich")
    assert await store.put(rows((b"s3:JFK", given)), EPOCH) == PutCounts(1, 0, 0, 0)
    assert await store.get(VIEW, [b"s3:LAX", b"s3:JFK", b"s3:LAX"]) == [None, given, None]
    assert decode(LAYOUT, given).values == {"number": 5, "text": "häßlich"}


async def test_a_newer_row_takes_the_place_of_an_older_one_whatever_their_lengths(store: OnlineStore) -> None:
    now = now_us()
    for age, text in enumerate(["short", "much longer than the one before", "", "again"]):
        newer = value(stamp(now + age), text)
        assert await store.put(rows((b"i1:7", newer)), EPOCH) == PutCounts(1, 0, 0, 0)
        assert await store.get(VIEW, [b"i1:7"]) == [newer]


async def test_an_older_row_is_stale_and_the_same_is_a_duplicate(store: OnlineStore) -> None:
    now = now_us()
    stored = value(stamp(now, offset=5))
    await store.put(rows((b"i1:7", stored)), EPOCH)
    assert await store.put(rows((b"i1:7", value(stamp(now - 1, offset=9)))), EPOCH) == PutCounts(0, 1, 0, 0)
    assert await store.put(rows((b"i1:7", value(stamp(now, offset=4)))), EPOCH) == PutCounts(0, 1, 0, 0)
    assert await store.put(rows((b"i1:7", stored)), EPOCH) == PutCounts(0, 0, 1, 0)
    assert await store.get(VIEW, [b"i1:7"]) == [stored]


async def test_every_field_of_the_stamp_decides_where_those_before_it_are_equal(store: OnlineStore) -> None:
    now = now_us()
    rising = [
        stamp(now, offset=9, version=9, row=9),
        stamp(now, sequence=-(2**62), offset=0),
        stamp(now, sequence=0),
        stamp(now, sequence=1, offset=0),
        stamp(now, sequence=1, offset=2**40),
        stamp(now, sequence=1, offset=2**40, version=2),
        stamp(now, sequence=1, offset=2**40, version=2, row=1),
        stamp(now + 1, offset=0),
    ]
    for at in rising:
        assert await store.put(rows((b"i1:7", value(at))), EPOCH) == PutCounts(1, 0, 0, 0), at
    for at in rising[:-1]:
        assert await store.put(rows((b"i1:7", value(at))), EPOCH) == PutCounts(0, 1, 0, 0), at


async def test_a_key_that_comes_twice_in_one_put_is_judged_twice(store: OnlineStore) -> None:
    now = now_us()
    old, new = value(stamp(now)), value(stamp(now + 1))
    put = rows((b"i1:1", new), (b"i1:1", old), (b"i1:1", new), (b"i1:2", old), (b"i1:2", new))
    assert await store.put(put, EPOCH) == PutCounts(3, 1, 1, 0)
    assert await store.get(VIEW, [b"i1:1", b"i1:2"]) == [new, new]


async def test_keys_that_come_again_among_new_ones_are_judged_against_what_came_before(store: OnlineStore) -> None:
    now = now_us()
    old, new = value(stamp(now)), value(stamp(now + 1))
    put = rows((b"i1:1", new), (b"i1:2", old), (b"i1:2", new), (b"i1:1", old), (b"i1:3", old), (b"i1:1", new))
    assert await store.put(put, EPOCH) == PutCounts(4, 1, 1, 0)
    assert await store.get(VIEW, [b"i1:1", b"i1:2", b"i1:3"]) == [new, new, old]


async def test_a_call_may_hold_keys_that_are_there_behind_ones_that_are_new(store: OnlineStore) -> None:
    now = now_us()
    old, new = value(stamp(now)), value(stamp(now + 1))
    await store.put(rows((b"i1:2", new)), EPOCH)
    assert await store.put(rows((b"i1:1", old), (b"i1:2", old)), EPOCH) == PutCounts(1, 1, 0, 0)
    assert await store.get(VIEW, [b"i1:1", b"i1:2"]) == [old, new]


async def test_what_became_of_each_row_is_told_in_their_order(store: OnlineStore) -> None:
    """Of several views in one stream, over more rows than go into one call."""
    now = now_us()
    old, new, dead = value(stamp(now)), value(stamp(now + 1)), value(stamp(0))
    await store.put(rows((b"i1:1", new), (b"i1:2", old)), EPOCH)
    many = [(b"i%d:%d" % (len(str(at)), at), old) for at in range(1, 251)]
    told = await store.put_each(
        [rows(*many, (b"i1:2", new), (b"i3:251", dead)), rows((b"i1:1", old), view="Arrivals"), rows()], EPOCH
    )
    judged, others, none = told.answers
    assert told.replication_id == (await store.read_state()).replication_id
    assert judged == [Answer.STALE, Answer.DUPLICATE, *[Answer.APPLIED] * 249, Answer.EXPIRED]
    assert others == [Answer.APPLIED]
    assert none == []
    with pytest.raises(StoreNotReady):
        await store.put_each([rows((b"i1:1", old))], "an older epoch")


async def test_views_do_not_share_rows(store: OnlineStore) -> None:
    await store.put(rows((b"i1:7", value(stamp(now_us()))), view="Arrivals"), EPOCH)
    assert await store.get(VIEW, [b"i1:7"]) == [None]


async def test_a_put_of_nothing_does_nothing(store: OnlineStore) -> None:
    assert await store.put(rows(), EPOCH) == PutCounts(0, 0, 0, 0)


async def test_thousands_of_rows_and_rows_of_a_megabyte_arrive_whole(store: OnlineStore) -> None:
    now = now_us()
    many = [(b"i%d:%d" % (len(str(at)), at), value(stamp(now, offset=at), "x" * (at % 90))) for at in range(3001)]
    assert await store.put(rows(*many), EPOCH) == PutCounts(3001, 0, 0, 0)
    assert await store.get(VIEW, [key for key, _ in many]) == [given for _, given in many]
    large = [(b"s1:%c" % name, value(stamp(now), "y" * 1_000_000)) for name in b"abcd"]
    assert await store.put(rows(*large), EPOCH) == PutCounts(4, 0, 0, 0)
    assert await store.get(VIEW, [key for key, _ in large]) == [given for _, given in large]


async def test_any_bytes_may_be_in_a_key(store: OnlineStore) -> None:
    keys = [b"x3:\0{}", b"x4:}{:\r", b"x2:\n\xff", b"s0:", b"x5:*?[a]"]
    given = [value(stamp(now_us(), offset=at)) for at in range(len(keys))]
    await store.put(rows(*zip(keys, given, strict=True)), EPOCH)
    assert await store.get(VIEW, keys) == given


# ---- lifetimes ----


async def expiry_after(store: OnlineStore, server: Server, event_time: int, lifetime_ms: int) -> int:
    """When the row expires that is put with this event time."""
    await store.put(rows((b"i1:7", value(stamp(event_time))), lifetime_ms=lifetime_ms), EPOCH)
    _, expires = server.dump()[server.keys.rows(VIEW, [b"i1:7"])[0]]
    assert expires is not None
    return expires


@pytest.mark.parametrize("lifetime_ms", [60_000, 3_600_000, 7 * 24 * 3_600_000, 86_399_999])
async def test_a_row_expires_at_its_event_time_plus_its_lifetime_rounded_up_by_a_64th_at_most(
    store: OnlineStore, server: Server, lifetime_ms: int
) -> None:
    event_time = now_us() - 17_000_123
    expires = await expiry_after(store, server, event_time, lifetime_ms)
    exact = event_time // 1000 + lifetime_ms
    assert exact - CLOCK_SLACK_MS <= expires <= exact + lifetime_ms // 64 + CLOCK_SLACK_MS
    assert (expires + CLOCK_SLACK_MS) % (lifetime_ms // 64) <= 2 * CLOCK_SLACK_MS


async def test_newer_rows_expire_later_however_small_the_steps_of_their_event_times(
    store: OnlineStore, server: Server
) -> None:
    """Most are written over the one before them without a word on its expiry; a step later they must not be."""
    event_time = now_us()
    last = 0
    for later in range(0, 200_000_000, 7_000_000):
        expires = await expiry_after(store, server, event_time + later, HOUR_MS)
        exact = (event_time + later) // 1000 + HOUR_MS
        assert exact - CLOCK_SLACK_MS <= expires <= exact + HOUR_MS // 64 + CLOCK_SLACK_MS
        assert expires >= last - 2 * CLOCK_SLACK_MS
        last = expires


async def test_a_life_that_ends_with_a_step_is_not_longer_and_the_next_millisecond_is_in_the_next_step(
    store: OnlineStore, server: Server
) -> None:
    """The boundary: rounding up leaves a whole number of steps as it is, and a row is written over the one before it
    without a word on its expiry only within a step."""
    step = HOUR_MS // 64
    event_time = (now_us() // 1000 // step * step) * 1000
    assert HOUR_MS % step == 0
    at_the_end = await expiry_after(store, server, event_time, HOUR_MS)
    assert abs(at_the_end - (event_time // 1000 + HOUR_MS)) <= CLOCK_SLACK_MS
    just_behind = await expiry_after(store, server, event_time + 1000, HOUR_MS)
    assert abs(just_behind - (at_the_end + step)) <= 2 * CLOCK_SLACK_MS


async def test_a_row_of_another_length_within_the_same_step_keeps_the_expiry(
    store: OnlineStore, server: Server
) -> None:
    first = await expiry_after(store, server, NOON_US, 1_000 * HOUR_MS)
    longer = value(stamp(NOON_US + 1), "longer")
    await store.put(rows((b"i1:7", longer), lifetime_ms=1_000 * HOUR_MS), EPOCH)
    stored, expires = server.dump()[server.keys.rows(VIEW, [b"i1:7"])[0]]
    assert stored == longer
    assert expires is not None
    assert abs(expires - first) <= CLOCK_SLACK_MS


async def test_a_row_without_lifetime_never_expires(store: OnlineStore, server: Server) -> None:
    old = value(stamp(-(2**62)))
    assert await store.put(rows((b"i1:7", old), lifetime_ms=None, view=FOR_EVER_VIEW), EPOCH) == PutCounts(1, 0, 0, 0)
    assert server.dump()[server.keys.rows(FOR_EVER_VIEW, [b"i1:7"])[0]] == (old, None)


@pytest.mark.parametrize("event_time", [-(2**63), -1, 0, 1])
async def test_a_row_past_its_lifetime_is_expired_and_not_stored(
    store: OnlineStore, server: Server, event_time: int
) -> None:
    assert await store.put(rows((b"i1:7", value(stamp(event_time)))), EPOCH) == PutCounts(0, 0, 0, 1)
    assert set(server.dump()) == {server.keys.ready}


async def test_expired_is_judged_last(store: OnlineStore) -> None:
    """Against a row that is still there, one past its life is stale, or the duplicate that it is."""
    now = now_us()
    fresh, dead = value(stamp(now)), value(stamp(now - 2 * HOUR_US))
    await store.put(rows((b"i1:7", fresh)), EPOCH)
    assert await store.put(rows((b"i1:7", dead)), EPOCH) == PutCounts(0, 1, 0, 0)
    assert await store.put(rows((b"i1:7", fresh), lifetime_ms=0), EPOCH) == PutCounts(0, 0, 1, 0)
    assert await store.put(rows((b"i1:7", value(stamp(now + 1))), lifetime_ms=0), EPOCH) == PutCounts(0, 0, 0, 1)


async def test_the_most_distant_event_time_can_be_stored(store: OnlineStore) -> None:
    last = value(stamp(2**63 - 1))
    assert await store.put(rows((b"i1:7", last)), EPOCH) == PutCounts(1, 0, 0, 0)
    assert await store.get(VIEW, [b"i1:7"]) == [last]


# ---- what is no row of this version is never overwritten ----


@pytest.mark.parametrize("planted", [b"\x02" + value(stamp(0))[1:], b"something else", b"\x01", b"\x01too short"])
async def test_a_stored_value_of_another_format_stops_the_put(
    store: OnlineStore, server: Server, planted: bytes
) -> None:
    (key,) = server.keys.rows(FOR_EVER_VIEW, [b"i1:7"])
    server.plant(key, planted)
    with pytest.raises(FormatError, match=r"upgrade.* namespace"):
        await store.put(rows((b"i1:7", value(stamp(now_us()))), view=FOR_EVER_VIEW), EPOCH)
    assert server.dump()[key] == (planted, None)


async def test_a_given_value_of_another_format_is_refused(store: OnlineStore, server: Server) -> None:
    with pytest.raises(FormatError):
        await store.put(rows((b"i1:7", b"\x02" + value(stamp(now_us()))[1:])), EPOCH)
    assert set(server.dump()) == {server.keys.ready}


# ---- applied marks ----


async def test_a_mark_that_was_never_set_is_none_and_cannot_be_raised(store: OnlineStore) -> None:
    assert await store.read_marks([MARK, OTHER_MARK]) == [None, None]
    assert (await store.apply((), [move(0, 9)], EPOCH)).positions == [None]
    assert await store.read_marks([MARK]) == [None]


async def test_a_mark_is_created_once_and_not_moved_by_setting_it_again(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5)], EPOCH)
    await store.set_marks([move(2, 2), move(8, 8, OTHER_MARK)], EPOCH)
    assert await store.read_marks([OTHER_MARK, MARK]) == [8, 5]


async def test_a_mark_is_raised_only_from_within_the_move(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5)], EPOCH)
    assert (await store.apply((), [move(6, 9)], EPOCH)).positions == [5], "a gap must not be closed over"
    assert (await store.apply((), [move(5, 9)], EPOCH)).positions == [9]
    assert (await store.apply((), [move(5, 9)], EPOCH)).positions == [9], "a repeat changes nothing"
    assert (await store.apply((), [move(3, 8)], EPOCH)).positions == [9], "a zombie changes nothing"
    assert (await store.apply((), [move(7, 12)], EPOCH)).positions == [12], "spans may overlap"
    assert await store.read_marks([MARK]) == [12]


async def test_several_marks_move_in_one_call_each_by_its_own_rule(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5), move(100, 100, OTHER_MARK)], EPOCH)
    assert (await store.apply((), [move(5, 9), move(101, 200, OTHER_MARK)], EPOCH)).positions == [9, 100]


async def test_positions_beyond_what_a_double_holds_are_kept_exactly(store: OnlineStore) -> None:
    start = 2**53
    await store.set_marks([move(start, start)], EPOCH)
    assert (await store.apply((), [move(start + 1, start + 5)], EPOCH)).positions == [start]
    assert (await store.apply((), [move(start, start + 1)], EPOCH)).positions == [start + 1]
    assert (await store.apply((), [move(start + 1, 2**63 - 1)], EPOCH)).positions == [2**63 - 1]


async def test_rows_are_written_with_the_marks_that_say_so(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5), move(5, 5, OTHER_MARK)], EPOCH)
    new, old = value(stamp(now_us())), value(stamp(now_us() - HOUR_US // 2))
    given = [rows((b"i1:7", new), (b"i1:7", old)), rows((b"i1:8", old), view="Arrivals")]
    applied = await store.apply(given, [move(5, 9), move(5, 9, OTHER_MARK)], EPOCH)
    assert applied.counts == [PutCounts(1, 1, 0, 0), PutCounts(1, 0, 0, 0)]
    assert applied.positions == [9, 9]
    assert await store.get(VIEW, [b"i1:7"]) == [new]
    assert await store.get("Arrivals", [b"i1:8"]) == [old]
    assert await store.read_marks([MARK, OTHER_MARK]) == [9, 9]


async def test_marks_stay_where_they_are_when_not_all_rows_are_written(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5)], EPOCH)
    good, foreign = value(stamp(now_us())), b"\x02" + value(stamp(now_us()))[1:]
    for given in (
        [rows((b"i1:7", good), (b"i1:8", foreign))],
        [rows((b"i1:8", foreign)), rows((b"i1:9", good), view="Arrivals")],
    ):
        with pytest.raises(FormatError):
            await store.apply(given, [move(5, 9)], EPOCH)
        assert await store.read_marks([MARK]) == [5]


async def test_of_several_applied_at_one_moment_each_hears_of_its_own(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5), move(100, 100, OTHER_MARK)], EPOCH)
    new, old = value(stamp(now_us())), value(stamp(now_us() - HOUR_US // 2))
    of_two = [rows((b"i1:7", new)), rows((b"i1:7", old), (b"i1:8", old), view="Arrivals")]
    applied = await asyncio.gather(
        store.apply(of_two, [move(5, 9)], EPOCH),
        store.apply((), [], EPOCH),
        store.apply([rows((b"i1:7", old), (b"i1:9", new))], [move(100, 101, OTHER_MARK)], EPOCH),
    )
    assert [each.counts for each in applied] == [
        [PutCounts(1, 0, 0, 0), PutCounts(2, 0, 0, 0)],
        [],
        [PutCounts(1, 1, 0, 0)],
    ]
    assert [each.positions for each in applied] == [[9], [], [101]]
    assert await store.get(VIEW, [b"i1:7", b"i1:8", b"i1:9"]) == [new, None, new]
    assert await store.get("Arrivals", [b"i1:7", b"i1:8"]) == [old, old]
    assert await store.read_marks([MARK, OTHER_MARK]) == [9, 101]


async def test_of_several_applied_at_one_moment_only_those_are_refused_whose_fault_it_is(store: OnlineStore) -> None:
    await store.set_marks([move(5, 5), move(100, 100, OTHER_MARK)], EPOCH)
    good, foreign = value(stamp(now_us())), b"\x02" + value(stamp(now_us()))[1:]
    refused, of_another_epoch, applied = await asyncio.gather(
        store.apply([rows((b"i1:8", foreign))], [move(5, 9)], EPOCH),
        store.apply([rows((b"i1:6", good))], [move(5, 9)], "an older epoch"),
        store.apply([rows((b"i1:7", good))], [move(100, 101, OTHER_MARK)], EPOCH),
        return_exceptions=True,
    )
    assert isinstance(refused, FormatError)
    assert isinstance(of_another_epoch, StoreNotReady)
    assert not isinstance(applied, BaseException)
    assert applied.positions == [101]
    assert await store.get(VIEW, [b"i1:6", b"i1:7", b"i1:8"]) == [None, good, None]
    assert await store.read_marks([MARK, OTHER_MARK]) == [5, 101]


# ---- rebuild ----


async def test_while_a_rebuild_is_under_way_nobody_else_reads_or_writes(store: OnlineStore) -> None:
    row = (b"i1:7", value(stamp(now_us())))
    rebuilding = await store.begin_rebuild("epoch-2")
    assert (await store.read_state()).epoch is None
    with pytest.raises(StoreNotReady):
        await store.put(rows(row), EPOCH)
    with pytest.raises(StoreNotReady):
        await store.put(rows(row), "epoch-2")
    with pytest.raises(StoreNotReady):
        await store.get(VIEW, [b"i1:7"])
    assert await rebuilding.put(rows(row), "epoch-2") == PutCounts(1, 0, 0, 0)
    await rebuilding.finish_rebuild("epoch-2")
    assert await store.get(VIEW, [b"i1:7"]) == [row[1]]


async def test_a_finished_rebuild_brings_its_epoch_and_its_marks_into_force(store: OnlineStore) -> None:
    await store.set_marks([move(50, 50), move(60, 60, OTHER_MARK)], EPOCH)
    rebuilding = await store.begin_rebuild("epoch-2")
    await rebuilding.set_marks([move(40, 40)], "epoch-2")
    assert (await rebuilding.apply((), [move(40, 45)], "epoch-2")).positions == [45]
    await rebuilding.finish_rebuild("epoch-2")
    await rebuilding.finish_rebuild("epoch-2")
    assert (await store.read_state()).epoch == "epoch-2"
    assert await store.read_marks([MARK, OTHER_MARK]) == [45, None], "marks of an older epoch count for nothing"
    with pytest.raises(StoreNotReady):
        await store.apply((), [move(45, 99)], EPOCH)


async def test_a_rebuild_that_the_store_forgot_cannot_be_finished(store: OnlineStore, server: Server) -> None:
    rebuilding = await store.begin_rebuild("epoch-2")
    server.flush()
    with pytest.raises(StoreNotReady):
        await rebuilding.put(rows((b"i1:7", value(stamp(now_us())))), "epoch-2")
    with pytest.raises(StoreNotReady):
        await rebuilding.finish_rebuild("epoch-2")


async def test_a_mark_of_another_epoch_is_neither_read_nor_raised(store: OnlineStore) -> None:
    """What it proves was lost with its epoch; a rebuild sets those anew that its files prove."""
    await store.set_marks([move(10, 10)], EPOCH)
    gate = await store.begin_rebuild("epoch-2")
    await gate.finish_rebuild("epoch-2")
    assert await store.read_marks([MARK]) == [None]
    assert (await store.apply([], [move(10, 20)], "epoch-2")).positions == [None]
    assert await store.read_marks([MARK]) == [None]


async def test_of_two_rebuilds_the_later_one_counts(store: OnlineStore) -> None:
    first = await store.begin_rebuild("epoch-2")
    second = await store.begin_rebuild("epoch-3")
    with pytest.raises(StoreNotReady):
        await first.set_marks([move(0, 0)], "epoch-2")
    with pytest.raises(StoreNotReady):
        await first.finish_rebuild("epoch-2")
    await second.finish_rebuild("epoch-3")
    assert (await store.read_state()).epoch == "epoch-3"


# ---- what the store says of itself ----


async def test_the_store_tells_which_server_answers(store: OnlineStore) -> None:
    state = await store.read_state()
    assert len(state.replication_id) == 40
    assert (await store.read_state()) == state
    server = await store.read_server()
    assert (server.role, server.maxmemory_policy) == ("master", "noeviction")
    assert int(server.version.split(".")[0]) >= 6
