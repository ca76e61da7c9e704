"""A partition's records come to rest exactly once, whatever ends the writer and wherever."""

import datetime
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.archive import Archive, PartitionArchive, SpanFiles, UploadedSpan
from sinks.compressing import Compressing
from stillwell.errors import ChainError, OutcomeUnknown
from stillwell.layout import chain
from stillwell.layout.chain import DataFile
from stillwell.layout.parquet import frame_of, read_table
from stillwell.storage import ObjectStore
from stillwell.testing.objects import Fault, MemoryStore
from stillwell.verify import verify
from tests import batches
from tests.chain_support import NOON, Inline, a_genesis, at_once
from tests.spans import ID, PIPELINE, an_archive, batch, opened, raw_offsets, uploaded

T = TypeVar("T")


# ---- one span ----


async def test_a_span_becomes_files_and_a_link_that_accounts_for_every_offset() -> None:
    store = MemoryStore()
    archive = await opened(store, begin=10)
    span = await uploaded(archive, batch(10, 15, gaps=[11, 12]), batch(15, 24))
    assert await archive.link(span, "epoch-1", "replication-1")
    assert archive.end == 24
    (link,) = chain.walk(store, ID)[1]
    assert (link.start, link.end, link.records, link.gaps) == (10, 24, 12, 2)
    assert (link.epoch, link.replication_id, link.writer) == ("epoch-1", "replication-1", "a-test")
    accounts = [(of.view, of.offsets_with_rows, of.filtered, of.rejected, of.rows) for of in link.views]
    assert accounts == [("Even", 5, 5, 2, 5), ("Every", 10, 0, 2, 10)]
    even, every = (read_table(chain.read_file(store, account.file)) for account in link.views if account.file)
    assert frame_of(even).get_column("_offset").to_list() == [10, 16, 18, 20, 22]
    assert frame_of(every).get_column("_offset").to_list() == [10, 13, 15, 16, 17, 18, 19, 20, 22, 23]
    assert raw_offsets(store) == [10, *range(13, 24)]
    assert verify(store).is_good


async def test_a_files_entry_tells_its_size_sum_rows_and_event_times() -> None:
    store = MemoryStore()
    archive = await opened(store)
    span = await uploaded(archive, batch(0, 5))
    midnight = int(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp() * 1_000_000)
    assert span.raw is not None
    for file in (span.raw, *(account.file for account in span.views)):
        assert file is not None
        data = store.read(file.path)
        assert (file.size, file.sha256) == (len(data), chain.digest(data))
        assert file.rows == read_table(data).num_rows
        times = (None, None) if file is span.raw else (midnight, midnight)
        assert (file.first_event_time, file.last_event_time) == times


async def test_event_times_span_all_batches_in_whatever_order_they_come() -> None:
    store = MemoryStore()
    archive = await opened(store)
    span = archive.open_span(0)
    for start, at in enumerate(["2026-01-02", "2026-01-03", "2026-01-01"]):
        value = batches.event(amount=start + 1).replace(b"2026-01-01T", at.encode() + b"T")
        made = batches.records([value], start=start, timestamps=[batches.NOW_MS + 3 * 86_400_000])
        span.add(batches.tables(PIPELINE, made, NOON))
    every = (await archive.upload(span)).views[1].file
    assert every is not None
    day = 86_400_000_000
    assert every.first_event_time == batches.NOW_MS * 1_000
    assert every.last_event_time == batches.NOW_MS * 1_000 + 2 * day


async def test_nothing_is_written_for_a_view_without_rows_nor_for_a_span_without_records() -> None:
    store = MemoryStore()
    archive = await opened(store)
    refused = await uploaded(archive, batch(0, 1))  # the record at 0 is no JSON
    assert [(account.rejected, account.rows, account.file) for account in refused.views] == [(1, 0, None)] * 2
    assert await archive.link(refused, "", "")
    gaps = await uploaded(archive, batch(1, 5, gaps=range(1, 5)))
    assert (gaps.records, gaps.raw, list(gaps.paths)) == (0, None, [])
    assert await archive.link(gaps, "", "")
    assert [path for path in store.objects if path.endswith(".parquet")] == list(refused.paths)
    assert verify(store).is_good
    assert (await opened(store)).end == 5


async def test_files_lie_under_the_day_on_which_their_span_was_opened() -> None:
    """A span that is opened before midnight and linked after it is one span."""
    store = MemoryStore()
    await opened(store)
    clock = iter([datetime.datetime(2026, 3, 1, 23, 59, tzinfo=datetime.UTC), NOON + datetime.timedelta(days=1)])
    archive = PartitionArchive(Inline(store), at_once, ID, PIPELINE.views, lambda: next(clock), "a-test", Compressing())
    await archive.find_end(None)
    span = await uploaded(archive, batch(0, 5))
    assert all("/dt=2026-03-01/" in path for path in span.paths)
    assert await archive.link(span, "", "")
    (link,) = chain.walk(store, ID)[1]
    assert (link.opened_at.day, link.created_at.day) == (1, 2)


def test_a_span_takes_only_the_batch_that_continues_it() -> None:
    span = SpanFiles(ID, 10, PIPELINE.views, NOON)
    span.add(batch(10, 15))
    for start in (10, 14, 16):
        with pytest.raises(ValueError, match=f"a batch from {start} does not continue a span that ends at 15"):
            span.add(batch(start, 20))
    assert (span.start, span.end, span.records) == (10, 15, 5)


async def test_two_spans_of_the_same_offsets_never_share_a_file() -> None:
    """So that removing one's files is harmless to the other."""
    store = MemoryStore()
    archive = await opened(store)
    first, second = await uploaded(archive, batch(0, 5)), await uploaded(archive, batch(0, 5))
    assert first.nonce != second.nonce
    assert not set(first.paths) & set(second.paths)


async def test_a_span_tells_the_memory_that_it_takes() -> None:
    """Back-pressure counts it; it must neither vanish while rows wait, nor after the files were written."""
    store = MemoryStore()
    archive = await opened(store)
    span = archive.open_span(0)
    assert span.nbytes == 0
    seen = []
    for start in range(0, 50, 5):
        span.add(batch(start, start + 5))
        seen.append(span.nbytes)
    assert seen == sorted(set(seen))
    assert seen[0] == batch(0, 5).nbytes, "what the window is measured by: the raw archive and all views together"
    done = await archive.upload(span)
    assert span.nbytes == sum(len(store.read(path)) for path in done.paths)


# ---- the way to it ----


async def test_before_the_walk_nobody_knows_the_end() -> None:
    archive = an_archive(MemoryStore())
    with pytest.raises(RuntimeError, match="not known before find_end"):
        _ = archive.end
    assert await archive.find_end(None) is None
    with pytest.raises(RuntimeError, match="not known before find_end"):
        await archive.expire(5)


async def test_whoever_begins_first_decides_where() -> None:
    store = MemoryStore()
    one, two = an_archive(store), an_archive(store)
    await one.begin(3, "a-topic-id")
    await two.begin(7, "a-topic-id")
    for archive in (one, two):
        assert await archive.find_end(None) == (a_genesis(3, ID), None)
        assert archive.end == 3


async def test_an_expired_link_covers_what_retention_took() -> None:
    store = MemoryStore()
    archive = await opened(store)
    assert await archive.link(await uploaded(archive, batch(0, 5)), "", "")
    assert await archive.expire(12)
    assert await archive.link(await uploaded(archive, batch(12, 15)), "", "")
    links = list(chain.walk(store, ID)[1])
    assert [(link.start, link.end, link.expired, link.records) for link in links] == [
        (0, 5, False, 5),
        (5, 12, True, 0),
        (12, 15, False, 3),
    ]
    assert verify(store).is_good


async def test_a_topic_that_was_made_anew_gets_the_next_incarnation() -> None:
    """Its first proposer decides; others are given what is in force."""
    store = MemoryStore()
    archive = Archive(Inline(store), at_once, lambda: NOON, "a-test")
    assert await archive.incarnation("t") is None
    first = await archive.open_incarnation("t", 1, "id-1", 4, "latest")
    assert await archive.open_incarnation("t", 1, "id-2", 5, "earliest") == first
    second = await archive.open_incarnation("t", 2, "id-2", 5, "earliest")
    assert await archive.incarnation("t") == second
    assert (second.topic_id, second.partitions, second.start) == ("id-2", 5, "earliest")


async def test_whether_anything_was_ever_linked_is_known() -> None:
    store = MemoryStore()
    archive = Archive(Inline(store), at_once, lambda: NOON, "a-test")
    partition = await opened(store)
    assert not await archive.has_links()
    assert await partition.expire(5)
    assert await archive.has_links()
    store.faults = lambda operation, path: "refused"
    assert await archive.has_links(), "links are never removed, so that nobody needs to look again"


async def test_a_version_has_its_debut_once_at_the_end_of_the_chain() -> None:
    """Whoever asks later, or had found another end, is told the same."""
    store = MemoryStore()
    first, second = await opened(store), await opened(store)
    assert await first.link(await uploaded(first, batch(0, 5)), "", "")
    assert await first.debut("Every", 1) == 5
    assert await first.debut("Every", 2) == 5
    assert await first.link(await uploaded(first, batch(5, 9)), "", "")
    assert await first.debut("Every", 1) == 5
    assert await second.debut("Every", 2) == 5
    assert await second.debut("Some", 1) == 0
    assert verify(store).is_good


@pytest.mark.parametrize("fault", ["lost answer", "lost call", "refused"])
async def test_a_debut_whose_creation_is_in_doubt_is_read_back(fault: Fault) -> None:
    store = MemoryStore()
    archive = await opened(store)
    faults: list[Fault | None] = [fault, None]
    store.faults = lambda operation, path: faults.pop(0) if faults and path.startswith("_debuts/") else None
    assert await archive.debut("Every", 1) == 0
    assert not faults


@pytest.mark.parametrize("damage", [b"{}", b"not json", None])
async def test_a_damaged_debut_is_refused(damage: bytes | None) -> None:
    """None: another one's bytes."""
    store = MemoryStore()
    archive = await opened(store)
    await archive.debut("Every", 1)
    await archive.debut("Every", 2)
    (one, other) = (path for path in store.objects if path.startswith("_debuts/"))
    store.objects[one] = store.objects[other] if damage is None else damage
    with pytest.raises(ChainError, match=one):
        await archive.debut("Every", 1)


async def test_rows_of_linked_files_are_read_again() -> None:
    """To be written to Redis anew, after a failover."""
    store = MemoryStore()
    archive = await opened(store)
    for start in (0, 10, 20):
        assert await archive.link(await uploaded(archive, batch(start, start + 10)), "", "")
    links = [link async for link in archive.links_from_end()]
    assert [link.start for link in links] == [20, 10, 0]
    file = links[1].views[1].file
    assert file is not None
    assert (await archive.read_rows(file)).column("_offset").to_pylist() == [10, 11, 12, 13, 15, 16, 17, 18, 19]
    store.objects[file.path] += b"x"
    with pytest.raises(ChainError, match="has been altered"):
        await archive.read_rows(file)
    with pytest.raises(ChainError, match="is linked, but missing"):
        await archive.read_rows(DataFile(path="views/Every/gone", size=0, sha256="", rows=0))


# ---- whatever ends it, wherever ----


class Killed(BaseException):
    """The process is no more."""


class Mortal(Inline):
    """A store that takes so many calls, carries the next one out or not, and then the process is killed."""

    def __init__(self, store: ObjectStore, calls: int, *, carried_out: bool) -> None:
        super().__init__(store)
        self._left = calls
        self._carried_out = carried_out

    async def call(self, work: Callable[[ObjectStore], T]) -> T:
        """What it gives, while the process lives."""
        self._left -= 1
        if self._left >= 0:
            return work(self.store)
        if self._carried_out:
            work(self.store)
        raise Killed


async def work_to_the_end(objects: Inline) -> None:
    """Walk, begin if nobody has, link the log [0, 12) in spans of five, the first two prepared ahead."""
    topic = Archive(objects, at_once, lambda: NOON, "a-test")
    await topic.open_incarnation("t", 1, "a-topic-id", 1, "earliest")
    archive = topic.partition(ID, PIPELINE.views)
    while await archive.find_end(None) is None:
        await archive.begin(0, "a-topic-id")
    while archive.end < 12:
        starts = range(archive.end, 12, 5)[:2]
        spans = [await uploaded(archive, batch(start, min(start + 5, 12))) for start in starts]
        for span in spans:
            assert await archive.link(span, "", "")


@pytest.mark.parametrize("carried_out", [False, True])
async def test_killed_at_any_call_its_heir_ends_with_every_record_once(carried_out: bool) -> None:
    """And what is there in between is in order too: a reader sees a shorter chain, never a wrong one."""
    kills = 0
    while True:
        store = MemoryStore()
        try:
            await work_to_the_end(Mortal(store, kills, carried_out=carried_out))
            break
        except Killed:
            kills += 1
        assert verify(store).is_good
        await work_to_the_end(Inline(store))
        assert raw_offsets(store) == list(range(12))
        assert verify(store).is_good
    assert kills > 15


async def test_files_whose_creation_is_in_doubt_are_created_again_to_the_byte() -> None:
    """With a lost answer at every call there is."""
    store = MemoryStore()
    heard: set[str] = set()

    def lose_each_first_answer(operation: str, path: str) -> str | None:
        if operation != "create" or path in heard:
            return None
        heard.add(path)
        return "lost answer" if len(heard) % 2 else "lost call"

    store.faults = lose_each_first_answer  # type: ignore[assignment]
    await work_to_the_end(Inline(store))
    assert len(heard) > 10
    assert raw_offsets(store) == list(range(12))
    assert verify(store).is_good


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    closes=st.sets(st.integers(0, 11)),
    takeovers=st.sets(st.integers(0, 11)),
)
async def test_writers_that_replace_each_other_at_any_moment_lose_and_double_nothing(
    lengths: list[int], closes: set[int], takeovers: set[int]
) -> None:
    """Each takeover leaves a zombie with a span in hand. It wakes up in the end, and is told that it lost."""
    store = MemoryStore()
    log_end = sum(lengths)
    zombies: list[tuple[PartitionArchive, UploadedSpan]] = []
    archive, number = await opened(store, "writer 0"), 0
    span = archive.open_span(archive.end)
    while archive.end < log_end:
        end = min(span.end + lengths[number % len(lengths)], log_end)
        span.add(batch(span.end, end))
        done = number in closes or end == log_end
        if number in takeovers:
            zombies.append((archive, await archive.upload(span)))
            archive = await opened(store, f"writer {number}")
            span = archive.open_span(archive.end)
        elif done:
            assert await archive.link(await archive.upload(span), "", "")
            span = archive.open_span(archive.end)
        number += 1
    for zombie, in_hand in zombies:
        assert not await zombie.link(in_hand, "", "")
    assert raw_offsets(store) == list(range(log_end))
    report = verify(store)
    assert report.is_good
    assert not report.unlinked


async def test_a_span_prepared_ahead_falls_with_its_predecessor() -> None:
    """Its start is not where the chain ends; the archive refuses, whatever its caller thinks."""
    store = MemoryStore()
    slow, fast = await opened(store, "slow"), await opened(store, "fast")
    spans = [await uploaded(slow, batch(start, start + 5)) for start in (0, 5)]
    assert await fast.link(await uploaded(fast, batch(0, 7)), "", "")
    assert not await slow.link(spans[0], "", "")
    with pytest.raises(ValueError, match="link 5→10 does not begin at the chain's end 0"):
        await slow.link(spans[1], "", "")
    assert [link.end for link in chain.walk(store, ID)[1]] == [7]


async def test_a_writer_whose_create_is_in_doubt_removes_nothing_when_it_is_cut_short() -> None:
    """Its link may be on the chain, or still arrive; the files stay for whoever finds out."""
    store = MemoryStore()
    archive = await opened(store)
    span = await uploaded(archive, batch(0, 5))

    async def cut_short(call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except OutcomeUnknown as error:
            raise Killed from error

    doubtful = PartitionArchive(Inline(store), cut_short, ID, PIPELINE.views, lambda: NOON, "a-test", Compressing())
    await doubtful.find_end(None)
    store.faults = lambda operation, path: "lost call" if operation == "create" else None
    with pytest.raises(Killed) as killed:
        await doubtful.link(span, "", "")
    assert isinstance(killed.value.__cause__, OutcomeUnknown)
    assert set(span.paths) <= set(store.objects)
