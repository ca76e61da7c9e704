"""`verify` names exactly what is wrong: for every kind of damage to a small store, that object and no other."""

import dataclasses
import itertools
import json
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sinks.archive import Archive, PartitionArchive
from stillwell.cli.main import run
from stillwell.errors import NotFound
from stillwell.joined import Joined
from stillwell.layout import chain
from stillwell.layout.chain import ChainObject, Genesis, Link, PartitionId, TopicIncarnation
from stillwell.layout.parquet import BatchTables, batch_tables, read_table, view_schema
from stillwell.pipeline import compile_pipeline
from stillwell.pushing.pipeline import PushPipeline
from stillwell.records import Headers
from stillwell.registry import register
from stillwell.spec import DefinitionsSpec
from stillwell.testing.objects import MemoryStore
from stillwell.types import INT64, STRING
from stillwell.verify import Report, verify
from tests import batches
from tests.batches import column, event, feature, records, topic, view
from tests.chain_support import NOON, Inline, a_link, at_once

ID = PartitionId("t", 1, 0)
OTHER = PartitionId("t", 1, 1)
RECORDS = 5
ENDS = (5, 10, 15, 20)

TOPIC = topic(column("customer", STRING), column("amount", INT64))
VIEW = view(
    TOPIC,
    {"customer": (STRING, pl.col("T.customer"))},
    feature("amount", INT64, pl.col("T.amount")),
    where=pl.col("T.amount") > 0,
)
PIPELINE = compile_pipeline(TOPIC, [VIEW])

Tamper = Callable[[BatchTables], BatchTables]


def tables(id: PartitionId, start: int) -> BatchTables:
    """Five records of a partition: three give rows, one is filtered, one is no JSON."""
    bodies = [*(event(customer=f"c{number}", amount=number) for number in range(RECORDS - 1)), b"no JSON"]
    batch = dataclasses.replace(records(bodies, start=start), partition=id.partition)
    return batches.tables(PIPELINE, batch, NOON)


class Written:
    """A store as workers leave it: two partitions of four links each, and after them a gap."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    @classmethod
    async def make(cls, tamper: Tamper = lambda batch: batch) -> "Written":
        """tamper: what a writer with a fault makes of the second batch of the first partition."""
        store = MemoryStore()
        archive = Archive(Inline(store), at_once, lambda: NOON, "a-test")
        await archive.open_incarnation("t", 1, "an-id", 2, "earliest")
        for id in (ID, OTHER):
            partition = archive.partition(id, [VIEW])
            await partition.begin(0, "an-id")
            await partition.find_end(None)
            for start in (0, *ENDS[:-1]):
                batch = tables(id, start)
                await put(partition, tamper(batch) if (id, start) == (ID, 5) else batch)
            await partition.expire(30)
        return cls(store)

    def link(self, start: int, id: PartitionId = ID) -> Link:
        """A link as it stands."""
        path = id.link_path(start)
        return chain.decode_link(self.store.objects[path], path)

    def genesis(self, id: PartitionId = ID) -> Genesis:
        """Genesis as it stands."""
        return chain.decode_genesis(self.store.objects[id.genesis_path], id.genesis_path)

    def incarnation(self) -> TopicIncarnation:
        """The topic's object as it stands."""
        path = "_chain/t@1/topic.json"
        return chain.decode_topic(self.store.objects[path], path)

    def put(self, value: ChainObject, path: str) -> str:
        """Overwrite an object of the chain, as nobody should; gives its path."""
        self.store.objects[path] = chain.encode(value)
        return path

    def forge(self, start: int, end: int, *, previous: str, raw: chain.DataFile | None = None) -> str:
        """Write a link that no worker made; gives its path."""
        link = msgspec.structs.replace(
            self.link(0), start=start, end=end, previous=previous, nonce="forged", raw=raw, views=()
        )
        link = msgspec.structs.replace(
            link, records=raw.rows if raw else 0, gaps=end - start - (raw.rows if raw else 0)
        )
        return self.put(link, link.path)


async def put(partition: PartitionArchive, batch: BatchTables) -> None:
    """A span of one batch, from open to linked."""
    span = partition.open_span(batch.start)
    span.add(batch)
    assert await partition.link(await partition.upload(span), "epoch", "replication")


def raw_file(written: Written, start: int = 5) -> chain.DataFile:
    """The raw file of a link."""
    raw = written.link(start).raw
    assert raw is not None
    return raw


def view_file(written: Written, start: int = 5) -> chain.DataFile:
    """The view's file of a link."""
    file = written.link(start).views[0].file
    assert file is not None
    return file


Damage = Callable[[Written], tuple[str, str]]
"""Damages the store; gives path and kind of the only finding that there should be."""


def a_missing_raw_file(written: Written) -> tuple[str, str]:
    path = raw_file(written).path
    written.store.delete(path)
    return path, "missing"


def a_missing_file_of_rows(written: Written) -> tuple[str, str]:
    path = view_file(written).path
    written.store.delete(path)
    return path, "missing"


def a_byte_of_a_file(written: Written) -> tuple[str, str]:
    path = view_file(written).path
    data = bytearray(written.store.objects[path])
    data[len(data) // 2] ^= 1
    written.store.objects[path] = bytes(data)
    return path, "altered"


def a_file_of_another_link_with_as_many_rows(written: Written) -> tuple[str, str]:
    path, other = view_file(written, 5), view_file(written, 10)
    assert other.rows == path.rows
    written.store.objects[path.path] = written.store.objects[other.path]
    return path.path, "altered"


def a_file_written_anew_with_one_other_value(written: Written) -> tuple[str, str]:
    path = view_file(written).path
    table = read_table(written.store.objects[path])
    amount = table.schema.get_field_index("amount")
    other = table.set_column(amount, table.schema.field(amount), pa.array([1_000] * table.num_rows))
    sink = pa.BufferOutputStream()
    pq.write_table(other, sink, compression="zstd")
    written.store.objects[path] = sink.getvalue().to_pybytes()
    return path, "altered"


def the_writer_of_a_link(written: Written) -> tuple[str, str]:
    link = written.link(5)
    return written.put(msgspec.structs.replace(link, writer="somebody else"), link.path), "altered"


def the_last_but_one_link(written: Written) -> tuple[str, str]:
    written.store.delete(ID.link_path(20))
    link = written.link(10)
    return written.put(msgspec.structs.replace(link, epoch="another"), link.path), "altered"


def whom_a_link_follows(written: Written) -> tuple[str, str]:
    link = written.link(5)
    return written.put(msgspec.structs.replace(link, previous="0" * 64), link.path), "altered"


def the_counts_of_a_link(written: Written) -> tuple[str, str]:
    link = written.link(5)
    account = msgspec.structs.replace(link.views[0], filtered=0)
    return written.put(msgspec.structs.replace(link, views=(account,)), link.path), "altered"


def the_end_of_a_link(written: Written) -> tuple[str, str]:
    link = written.link(5)
    return written.put(msgspec.structs.replace(link, end=12, gaps=2), link.path), "altered"


def the_end_of_a_link_of_gaps(written: Written) -> tuple[str, str]:
    first, second = written.link(5), written.link(10)
    gaps = msgspec.structs.replace(first, records=0, gaps=5, raw=None, views=())
    path = written.put(gaps, gaps.path)
    # As if it had been so from the start: all that follows is made to fit.
    follows = msgspec.structs.replace(second, previous=chain.digest(chain.encode(gaps)))
    written.put(follows, follows.path)
    for start, before in ((15, follows), (20, None)):
        before = before or written.link(15)
        link = msgspec.structs.replace(written.link(start), previous=chain.digest(chain.encode(before)))
        written.put(link, link.path)
    written.put(msgspec.structs.replace(gaps, end=13, gaps=8), path)
    return path, "altered"


def a_link_that_is_no_json(written: Written) -> tuple[str, str]:
    written.store.objects[ID.link_path(10)] = b"\x00garbage"
    return ID.link_path(10), "altered"


def a_link_in_the_middle(written: Written) -> tuple[str, str]:
    written.store.delete(ID.link_path(10))
    return ID.link_path(10), "missing"


def the_first_link(written: Written) -> tuple[str, str]:
    written.store.delete(ID.link_path(0))
    return ID.link_path(0), "missing"


def a_forged_link_at_the_end_that_follows_nothing(written: Written) -> tuple[str, str]:
    return written.forge(30, 40, previous="0" * 64), "forged"


def a_forged_link_at_the_end_that_follows(written: Written) -> tuple[str, str]:
    """It can be told by its file alone, which is not there: everybody who can write may extend a chain."""
    data = written.store.objects[ID.link_path(20)]
    own = chain.data_path(chain.raw_dataset("t"), NOON.date(), ID, 30, 31, "forged")
    file = msgspec.structs.replace(raw_file(written), path=own, rows=1)
    written.forge(30, 31, previous=chain.digest(data), raw=file)
    return own, "missing"


def a_forged_link_in_the_middle_of_another(written: Written) -> tuple[str, str]:
    return written.forge(7, 9, previous=chain.digest(written.store.objects[ID.link_path(5)])), "forged"


def a_forged_link_beyond_the_end(written: Written) -> tuple[str, str]:
    return written.forge(1_000, 1_010, previous="0" * 64), "forged"


def a_forged_link_before_the_beginning(written: Written) -> tuple[str, str]:
    later = Genesis(created_at=NOON, id=ID, start=15, topic_id="an-id")
    for start in (0, 5, 10):
        written.store.delete(ID.link_path(start))
    link = msgspec.structs.replace(written.link(15), previous=chain.digest(chain.encode(later)))
    written.put(later, later.path)
    written.put(link, link.path)
    last = msgspec.structs.replace(written.link(20), previous=chain.digest(chain.encode(link)))
    written.put(last, last.path)
    written.store.objects[ID.link_path(3)] = b"{}"
    return ID.link_path(3), "forged"


def a_note_in_the_folder_of_a_chain(written: Written) -> tuple[str, str]:
    path = f"{ID.folder}README.txt"
    written.store.create(path, b"do not touch")
    return path, "forged"


def a_note_beside_the_chains(written: Written) -> tuple[str, str]:
    written.store.create("_chain/README.txt", b"do not touch")
    return "_chain/README.txt", "forged"


def the_time_of_genesis(written: Written) -> tuple[str, str]:
    genesis = msgspec.structs.replace(written.genesis(), created_at=NOON.replace(hour=13))
    return written.put(genesis, genesis.path), "altered"


def the_topic_of_genesis(written: Written) -> tuple[str, str]:
    genesis = msgspec.structs.replace(written.genesis(), topic_id="another-id")
    return written.put(genesis, genesis.path), "altered"


def the_start_of_genesis(written: Written) -> tuple[str, str]:
    genesis = msgspec.structs.replace(written.genesis(), start=7)
    return written.put(genesis, genesis.path), "altered"


def the_partition_of_genesis(written: Written) -> tuple[str, str]:
    return written.put(written.genesis(OTHER), ID.genesis_path), "altered"


def a_missing_genesis(written: Written) -> tuple[str, str]:
    written.store.delete(ID.genesis_path)
    return ID.genesis_path, "missing"


def the_whole_chain(written: Written) -> tuple[str, str]:
    for path in written.store.list(ID.folder):
        written.store.delete(path)
    return ID.genesis_path, "missing"


def the_id_of_the_topic(written: Written) -> tuple[str, str]:
    incarnation = msgspec.structs.replace(written.incarnation(), topic_id="another-id")
    return written.put(incarnation, incarnation.path), "altered"


def a_topic_that_is_no_json(written: Written) -> tuple[str, str]:
    written.store.objects["_chain/t@1/topic.json"] = b"{"
    return "_chain/t@1/topic.json", "altered"


def a_missing_topic(written: Written) -> tuple[str, str]:
    written.store.delete("_chain/t@1/topic.json")
    return "_chain/t@1/topic.json", "missing"


def an_incarnation_left_out(written: Written) -> tuple[str, str]:
    incarnation = msgspec.structs.replace(written.incarnation(), incarnation=3)
    written.put(msgspec.structs.replace(incarnation, incarnation=2), "_chain/t@2/topic.json")
    written.put(incarnation, "_chain/t@3/topic.json")
    written.store.delete("_chain/t@2/topic.json")
    return "_chain/t@2/topic.json", "missing"


DAMAGES: tuple[Damage, ...] = (
    a_missing_raw_file,
    a_missing_file_of_rows,
    a_byte_of_a_file,
    a_file_of_another_link_with_as_many_rows,
    a_file_written_anew_with_one_other_value,
    the_writer_of_a_link,
    the_last_but_one_link,
    whom_a_link_follows,
    the_counts_of_a_link,
    the_end_of_a_link,
    the_end_of_a_link_of_gaps,
    a_link_that_is_no_json,
    a_link_in_the_middle,
    the_first_link,
    a_forged_link_at_the_end_that_follows_nothing,
    a_forged_link_at_the_end_that_follows,
    a_forged_link_in_the_middle_of_another,
    a_forged_link_beyond_the_end,
    a_forged_link_before_the_beginning,
    a_note_in_the_folder_of_a_chain,
    a_note_beside_the_chains,
    the_time_of_genesis,
    the_topic_of_genesis,
    the_start_of_genesis,
    the_partition_of_genesis,
    a_missing_genesis,
    the_whole_chain,
    the_id_of_the_topic,
    a_topic_that_is_no_json,
    a_missing_topic,
    an_incarnation_left_out,
)


def named(report: Report) -> list[tuple[str, str]]:
    """Path and kind of each finding."""
    return [(finding.path, finding.kind) for finding in report.findings]


async def test_nothing_is_wrong_with_what_workers_write() -> None:
    report = verify((await Written.make()).store)
    assert named(report) == []
    assert report.is_good
    assert report.unlinked == ()
    (first, _) = report.partitions
    assert (first.start, first.end, first.links, first.records, first.gaps, first.expired) == (0, 30, 5, 20, 0, 10)
    counts = first.views["V", 1]
    assert (counts.rows, counts.offsets_with_rows, counts.filtered, counts.rejected) == (12, 12, 4, 4)


@pytest.mark.parametrize(
    ("topic_id", "start", "told"), [("an-id", 15, [(15, 20)]), ("an-id", 20, []), ("another", 15, [])]
)
async def test_offsets_at_rest_under_two_incarnations_of_one_kafka_topic_are_told(
    topic_id: str, start: int, told: list[tuple[int, int]]
) -> None:
    """Another topic of the name has offsets of its own, and those that retention took are at rest nowhere."""
    written = await Written.make()
    archive = Archive(Inline(written.store), at_once, lambda: NOON, "a-test")
    await archive.open_incarnation("t", 2, topic_id, 2, "earliest")
    partition = archive.partition(PartitionId("t", 2, 0), [VIEW])
    await partition.begin(start, topic_id)
    await partition.find_end(None)
    for at in (start, start + RECORDS):
        await put(partition, tables(partition.id, at))
    report = verify(written.store)
    assert [(each.start, each.end) for each in report.overlaps] == told
    assert all((each.earlier, each.later) == (ID, partition.id) for each in report.overlaps)
    assert report.is_good


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_damage_is_named_and_nothing_else_is(damage: Damage) -> None:
    written = await Written.make()
    expected = damage(written)
    report = verify(written.store)
    assert named(report) == [expected], report.findings


@pytest.mark.parametrize(
    "pair", list(itertools.combinations((a_byte_of_a_file, a_link_in_the_middle, a_missing_topic), 2))
)
async def test_damages_in_different_places_are_all_named_in_one_run(pair: tuple[Damage, Damage]) -> None:
    written = await Written.make()
    expected = sorted(damage(written) for damage in pair)
    assert sorted(named(verify(written.store))) == expected


async def test_links_behind_a_hole_are_read_but_not_counted() -> None:
    written = await Written.make()
    a_link_in_the_middle(written)
    behind = view_file(written, 15).path
    written.store.delete(behind)
    report = verify(written.store)
    assert (behind, "missing") in named(report)
    assert (report.partitions[0].end, report.partitions[0].links) == (10, 2)


def repeated(table: pa.Table) -> pa.Table:
    """A table whose last row is its first once more."""
    return pa.concat_tables([table.slice(0, table.num_rows - 1), table.slice(0, 1)])


def with_column(table: pa.Table, name: str, value: object) -> pa.Table:
    """A table with one value in all rows of a column."""
    field = table.schema.field(name)
    values = pa.array([value] * table.num_rows, field.type.value_type if name == "_topic" else field.type)
    at = table.schema.get_field_index(name)
    return table.set_column(at, field, values.dictionary_encode().cast(field.type) if name == "_topic" else values)


def in_raw(change: Callable[[pa.Table], pa.Table]) -> Tamper:
    """A writer that does this to its raw tables."""
    return lambda batch: dataclasses.replace(batch, raw=change(batch.raw))


def in_rows(change: Callable[[pa.Table], pa.Table]) -> Tamper:
    """A writer that does this to its tables of rows, and counts as if it had not."""
    return lambda batch: dataclasses.replace(
        batch, views=tuple(dataclasses.replace(each, table=change(each.table)) for each in batch.views)
    )


FAULTS: Mapping[str, tuple[Tamper, str]] = {
    "has an offset twice": (in_raw(repeated), "raw"),
    "has a row twice": (in_rows(repeated), "views"),
    "whose _partition is not 0": (in_rows(lambda table: with_column(table, "_partition", 1)), "views"),
    "whose _topic is not t": (in_raw(lambda table: with_column(table, "_topic", "another")), "raw"),
    "has offsets outside of 5→10": (in_rows(lambda table: with_column(table, "_offset", 3)), "views"),
    "offsets that the raw archive does not hold": (in_rows(lambda table: with_column(table, "_offset", 10)), "views"),
    "has rows of other versions than 1": (in_rows(lambda table: with_column(table, "_version", 2)), "views"),
}


@pytest.mark.parametrize("says", FAULTS)
async def test_a_writer_with_a_fault_is_found_out(says: str) -> None:
    """Checksums and chain fit what was written: the rows themselves are counted again."""
    tamper, dataset = FAULTS[says]
    written = await Written.make(tamper)
    file = raw_file(written) if dataset == "raw" else view_file(written)
    findings = verify(written.store).findings
    assert {finding.path for finding in findings} <= {file.path, view_file(written).path}
    assert any(finding.path == file.path and says in finding.error for finding in findings), findings


# Where pushed rows go

PUSHES = PartitionId("shop.push.V", 1, 0)


async def pushed(tamper: Tamper = lambda batch: batch, topic: str = PUSHES.topic) -> MemoryStore:
    """A store with one link of pushed rows: two that say where they go, one that does not, and one that says it in vain
    before it says it."""
    id = msgspec.structs.replace(PUSHES, topic=topic)
    store = MemoryStore()
    archive = Archive(Inline(store), at_once, lambda: NOON, "a-test")
    await archive.open_incarnation(topic, 1, "an-id", 1, "earliest")
    partition = archive.partition(id, [VIEW])
    await partition.begin(0, "an-id")
    await partition.find_end(None)
    body = b'{"customer": "c", "event_timestamp": "2026-01-01T00:00:00Z", "amount": 1}'
    headers: list[Headers] = [
        (("to", b"offline"),),
        (("version", b"1"),),
        (("version", b"1"), ("to", b"online")),
        (("to", b"online"), ("to", b"offline")),
        (("to", b"online"), ("to", None)),
    ]
    batch = dataclasses.replace(records([body] * len(headers), headers=headers, start=0), topic=topic)
    joined = Joined([batch])
    rows = list(joined.rows(PushPipeline("shop", VIEW).run(joined.records)))
    (tables,) = batch_tables([batch], rows, [view_schema(VIEW, pushed=True)], NOON)
    await put(partition, tamper(tables))
    return store


async def test_rows_go_where_their_records_say() -> None:
    store = await pushed()
    assert verify(store).findings == ()
    path = PUSHES.link_path(0)
    link = chain.decode_link(store.objects[path], path)
    table = read_table(store.objects[link.views[0].file.path])  # type: ignore[union-attr]
    both = "online_and_offline"
    assert table.column("_to").to_pylist() == ["offline", both, "online", "offline", both]


def to(*words: str | None) -> Tamper:
    """A writer that has rows go elsewhere."""

    def change(table: pa.Table) -> pa.Table:
        values = pa.array(words, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        at = table.schema.get_field_index("_to")
        return table.set_column(at, "_to", values)

    return in_rows(change)


BOTH = "online_and_offline"
ASTRAY: Mapping[str, Tamper] = {
    "has rows whose _to is not what their records say": to("offline", BOTH, "online", "online", BOTH),
    "has rows whose _to is nowhere": to("offline", BOTH, "online", "offline", "nowhere"),
    "has _to in another type, or without a value": to("offline", BOTH, "online", "offline", None),
    "does not have _to, though its rows were pushed": in_rows(lambda table: table.drop_columns(["_to"])),
}


@pytest.mark.parametrize("says", ASTRAY)
async def test_a_writer_that_sends_pushed_rows_elsewhere_is_found_out(says: str) -> None:
    """What is told to stay offline would come into Redis when it is rebuilt."""
    (finding,) = verify(await pushed(ASTRAY[says])).findings
    assert (finding.kind, says) == ("broken", finding.error)


async def test_a_topic_that_is_called_like_one_for_pushes_but_is_a_views_own_has_no_such_column() -> None:
    """A project may read what is pushed to another's view as a topic of its own."""
    without = ASTRAY["does not have _to, though its rows were pushed"]
    store = await pushed(without)
    own = VIEW.model_copy(update={"source": TOPIC.model_copy(update={"topic": PUSHES.topic})})
    register(store, DefinitionsSpec(topics=(own.source,), views=(own,), entities=(own.entity,)), timedelta(0))
    assert verify(store).findings == ()
    assert verify(await pushed(without, topic="shop.orders")).findings == ()


async def test_the_offset_at_which_a_link_ends_is_the_next_links() -> None:
    """Ends are exclusive: a record there would be at rest twice."""

    def beyond(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("_offset")
        return table.set_column(at, table.schema.field("_offset"), pa.array([5, 6, 7, 8, 10]))

    written = await Written.make(in_raw(beyond))
    (finding,) = (each for each in verify(written.store).findings if each.path == raw_file(written).path)
    assert "has offsets outside of 5→10" in finding.error


def with_last_file(written: Written, table: pa.Table) -> str:
    """Put a table in the place of the last file of rows, and make its link say so; gives the file's path."""
    written.store.delete(ID.link_path(20))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    last, file = written.link(15), view_file(written, 15)
    account = msgspec.structs.replace(
        last.views[0], file=msgspec.structs.replace(file, size=len(data), sha256=chain.digest(data))
    )
    written.put(msgspec.structs.replace(last, views=(account,)), last.path)
    written.store.objects[file.path] = data
    return file.path


@pytest.mark.parametrize("rows", [0, 3])
async def test_a_linked_file_of_other_columns_is_named(rows: int) -> None:
    written = await Written.make()
    path = with_last_file(written, pa.table({"_offset": pa.array([15] * rows, pa.int64())}))
    (finding,) = verify(written.store).findings
    assert (finding.path, finding.kind) == (path, "broken")
    assert "_row" in finding.error


async def test_a_linked_file_without_rows_is_named() -> None:
    written = await Written.make()
    path = with_last_file(written, tables(ID, 15).views[0].table.slice(0, 0))
    (finding,) = verify(written.store).findings
    assert (finding.path, finding.error) == (path, "has no rows, its link says 3")


async def test_forged_links_that_vouch_for_each_other_blame_nobody_else() -> None:
    written = await Written.make()
    first = written.forge(6, 8, previous="0" * 64)
    second = written.forge(8, 9, previous=chain.digest(written.store.objects[first]))
    assert named(verify(written.store)) == [(first, "forged"), (second, "forged")]


async def test_files_that_no_link_names_are_listed_and_are_no_fault() -> None:
    written = await Written.make()
    left = chain.data_path(chain.raw_dataset("t"), NOON.date(), ID, 30, 35, "a-worker-that-died")
    written.store.create(left, b"half a span")
    report = verify(written.store)
    assert report.is_good
    assert report.unlinked == (left,)


async def test_a_link_made_while_the_folder_is_listed_is_no_hole() -> None:
    """A listing of a folder is not of one instant: it may have a link and miss the one before."""
    written = await Written.make()
    everything = written.store.list

    def all_but_one(prefix: str) -> list[str]:
        return [path for path in everything(prefix) if path != ID.link_path(10)]

    written.store.list = all_but_one  # type: ignore[method-assign]
    assert named(verify(written.store)) == []


def gaps(links: int, chains: int) -> MemoryStore:
    """Chains of that many links each, over no records: of 3 KB, since all have accounts of thirty views."""
    store = MemoryStore()
    topic = TopicIncarnation(
        created_at=NOON, topic="t", incarnation=1, topic_id="an-id", partitions=chains, start="earliest"
    )
    store.create(topic.path, chain.encode(topic))
    accounts = tuple(
        chain.ViewAccount(
            view=f"View{number}", version=1, offsets_with_rows=0, filtered=0, rejected=0, rows=0, file=None
        )
        for number in range(30)
    )
    for partition in range(chains):
        id = PartitionId("t", 1, partition)
        before: ChainObject = Genesis(created_at=NOON, id=id, start=0, topic_id="an-id")
        store.create(id.genesis_path, chain.encode(before))
        for start in range(links):
            before = a_link(
                start, start + 1, nonce=f"n{start}", previous=chain.digest(chain.encode(before)), id=id, views=accounts
            )
            store.create(id.link_path(start), chain.encode(before))
    return store


def peak(store: MemoryStore) -> int:
    """How many bytes it takes at most to verify a store."""
    tracemalloc.start()
    assert verify(store).is_good
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_a_link_more_takes_less_than_it_has_bytes_and_a_chain_more_next_to_nothing() -> None:
    """A year of windows of 30 s is a million links to a partition: of those of one chain alone anything is kept.

    Bounds with room, and of several attempts the one that took most, or least, since threads are never twice in the
    same place: who keeps the links takes 7 KB for each, every time.
    """
    peak(gaps(1, 1))  # what is imported or made once
    some = max(peak(gaps(400, 1)) for _ in range(5))
    assert (peak(gaps(1_200, 1)) - some) / 800 < 1_500
    assert (min(peak(gaps(400, 4)) for _ in range(3)) - some) / 1_200 < 500


async def test_a_link_that_is_altered_or_removed_after_it_was_surveyed_is_named() -> None:
    written = await Written.make()
    read, times = written.store.read, dict[str, int]()

    def read_once(path: str) -> bytes:
        times[path] = times.get(path, 0) + 1
        if times[path] == 2 and path == ID.link_path(5):
            raise NotFound(path)
        return read(path) + b" " * (times[path] == 2 and path == ID.link_path(10))

    written.store.read = read_once  # type: ignore[method-assign]
    assert named(verify(written.store)) == [(ID.link_path(5), "missing"), (ID.link_path(10), "altered")]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Settings in the environment; gives the folder that is the offline store."""
    for name, value in {
        "PROJECT": "test",
        "DEFINITIONS": "unused",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OFFLINE_URL": str(tmp_path / "offline"),
    }.items():
        monkeypatch.setenv(f"STILLWELL_{name}", value)
    return tmp_path / "offline/test/prod"


def copied(store: MemoryStore, folder: Path) -> None:
    """Put a store's objects into a folder."""
    for path, data in store.objects.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


async def test_the_command_exits_with_1_and_names_what_is_wrong(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = await Written.make()
    copied(written.store, settings)
    assert run(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["good"] is True

    path, _ = a_byte_of_a_file(written)
    copied(written.store, settings)
    assert run(["verify", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [finding["path"] for finding in printed["findings"]] == [path]
    assert run(["verify"]) == 1
    said = capsys.readouterr()
    assert path in said.err
    assert "1 finding" in said.out


def test_where_there_is_no_chain_at_all_nothing_is_proved(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another project's settings would make every proof a good one."""
    assert run(["verify"]) == 1
    said = capsys.readouterr()
    assert f"there is no chain at all under {settings}, so that nothing is proved" in said.err
    assert "STILLWELL_PROJECT, STILLWELL_NAMESPACE or STILLWELL_OFFLINE_URL" in said.err
    assert said.out == ""
    assert run(["verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["good"] is False
