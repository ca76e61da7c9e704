"""The pages on the chain and its files are true, and enough: their own reader reads what the archive writes."""

import dataclasses
import datetime
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sinks.archive import Archive, PartitionArchive
from stillwell.layout import chain
from stillwell.layout.chain import DataFile, Genesis, Link, PartitionId, TopicIncarnation, ViewAccount
from stillwell.layout.debut import Debut
from stillwell.layout.parquet import RAW_SCHEMA, frame_of, view_schema
from stillwell.pipeline import compile_pipeline
from stillwell.records import Records
from stillwell.row import newest
from stillwell.storage import LocalStore
from stillwell.types import FIELD_TYPES, FLOAT32, STRING
from tests import batches
from tests.chain_support import NOON, Inline, at_once

PAGES = pathlib.Path(__file__).parent.parent.parent / "docs" / "reference"
CHAIN, PARQUET = (PAGES / "chain.md").read_text(), (PAGES / "parquet.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def first_column(page: str, begins: str) -> list[str]:
    """The names in the first column of the first table behind a line that begins so."""
    return [name for row in table(page, begins) for name in re.findall(r"`([^`]+)`", row[0])]


def table(page: str, begins: str) -> Iterator[list[str]]:
    """The rows of the first table behind a line that begins so, without its head."""
    _, behind = re.split(rf"^{re.escape(begins)}.*$", page, maxsplit=1, flags=re.MULTILINE)
    rows = behind[behind.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


# ---- the chain's page ----


@pytest.mark.parametrize(
    ("kind", "begins", "tag"),
    [
        (TopicIncarnation, "## `topic.json`", ["kind"]),
        (Genesis, "## `genesis.json`", ["kind"]),
        (Link, "## Links", ["kind"]),
        (Debut, "## Debuts", ["kind"]),
        (ViewAccount, "An **account**", []),
        (DataFile, "A **file**:", []),
    ],
)
def test_the_page_names_every_field(kind: type[msgspec.Struct], begins: str, tag: list[str]) -> None:
    assert sorted(first_column(CHAIN, begins)) == sorted([*kind.__struct_fields__, *tag])


def canonical(text: str) -> bytes:
    """The bytes that a shown object stands for, as the page says."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_examples_are_what_they_are_shown_as() -> None:
    topic, genesis, link = map(canonical, blocks(CHAIN, "json"))
    folder = "_chain/flights.departures@1"
    assert chain.decode_topic(topic, f"{folder}/topic.json").partitions == 3
    assert chain.decode_genesis(genesis, f"{folder}/0/genesis.json").start == 41_200
    decoded = chain.decode_link(link, f"{folder}/0/00000000000000041200.json")
    assert decoded.previous == chain.digest(genesis)
    assert (decoded.end, decoded.records, decoded.gaps) == (41_205, 4, 1)
    assert [(account.view, account.filtered, account.rejected) for account in decoded.views] == [
        ("AirportDepartures", 1, 1),
        ("RouteDepartures", 0, 1),
    ]


def test_the_page_shows_where_things_are() -> None:
    """Each kind of path, with the page's own words in the place of ours."""
    id = PartitionId("<topic>", 4321, 8765)
    day = datetime.date(2026, 3, 1)
    words = {
        "4321": "<incarnation>",
        "8765": "<partition>",
        "2468": "<version>",
        f"{9:020d}": "<start>",
        day.isoformat(): "<day>",
    }
    made = [
        f"{chain.incarnation_folder('<topic>', 4321)}topic.json",
        id.genesis_path,
        id.link_path(9),
        Debut(created_at=NOON, id=id, view="<view>", version=2468, start=9).path,
        chain.data_path(chain.raw_dataset("<topic>"), day, id, 1, 2, "n").replace("-1-2-n", "-<start>-<end>-<nonce>"),
        chain.data_path(chain.view_dataset("<view>"), day, id, 1, 2, "n").replace("-1-2-n", "-<start>-<end>-<nonce>"),
    ]
    (span,) = re.findall(r"and `<span>` is `([^`]+)`", CHAIN)
    shown = [path.replace("<span>", span) for path in first_column(CHAIN, "## Where the objects are")]
    assert shown == [re.sub("|".join(words), lambda found: words[found[0]], path) for path in made]


Reader = dict[str, Any]


@pytest.fixture(scope="module")
def reader() -> Reader:
    """What the page's own reader defines."""
    (code,) = blocks(CHAIN, "python")
    names: Reader = {}
    exec(compile(code, "chain.md", "exec"), names)
    return names


KEYS = {"origin": (STRING, pl.col("T.origin")), "dest": (STRING, pl.col("T.dest"))}
SOURCE = batches.topic(
    batches.column("origin", STRING), batches.column("dest", STRING), batches.column("delay", FLOAT32, nullable=True)
)
ROUTES = batches.view(
    SOURCE, KEYS, batches.feature("delay", FLOAT32, pl.col("T.delay"), nullable=True), name="RouteDepartures"
)
SLOW = batches.view(SOURCE, KEYS, name="Slow", where=pl.col("T.delay") > 30)
PIPELINE = compile_pipeline(SOURCE, [ROUTES, SLOW])
ID = PartitionId("flights.departures", 1, 0)


@dataclasses.dataclass(frozen=True)
class Archived:
    """A partition at rest in a folder."""

    root: pathlib.Path
    store: LocalStore
    links: list[Link]


@pytest.fixture
async def archived(tmp_path: pathlib.Path) -> Archived:
    """Records, gaps, what cannot be decoded, an expired link, and what crashes and strangers leave behind."""
    store = LocalStore(str(tmp_path))
    clock = batches.NOW_MS / 1000

    def now() -> datetime.datetime:
        nonlocal clock
        clock += 0.4321
        return datetime.datetime.fromtimestamp(clock, datetime.UTC)

    archive = Archive(Inline(store), at_once, now, "wörker-0")
    await archive.open_incarnation(ID.topic, 1, "a-topic-id", 1, "earliest")
    partition = archive.partition(ID, PIPELINE.views)
    await partition.begin(100, "a-topic-id")
    await partition.find_end(None)
    for start, end, missing in ((100, 130, [107, 108]), (130, 131, [130]), (131, 160, [])):
        await _link(partition, start, end, missing)
    assert await partition.expire(200)
    await _link(partition, 200, 240, [239])
    store.create(ID.link_path(117), b"no walk comes here")
    store.create("views/RouteDepartures/dt=2026-01-01/left-behind.parquet", b"by a crash")
    return Archived(tmp_path, store, list(chain.walk(store, ID)[1]))


async def _link(partition: PartitionArchive, start: int, end: int, missing: Sequence[int]) -> None:
    offsets = [offset for offset in range(start, end) if offset not in missing]
    flights = [
        batches.event(origin="EWR", dest=("IAH", "ORD")[offset % 2], delay=(offset * 7) % 60 or None)
        for offset in offsets
    ]
    values = [b"no JSON" if offset % 11 == 0 else flight for offset, flight in zip(offsets, flights, strict=True)]
    made = batches.records(values, timestamps=[batches.NOW_MS + (n * 13) % 5 for n in offsets])
    records = Records(ID.topic, 0, start, end, made.offsets, made.timestamps, made.keys, made.values, made.headers)
    records.offsets[:] = offsets
    span = partition.open_span(start)
    span.add(batches.tables(PIPELINE, records, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)))
    assert await partition.link(await partition.upload(span), "epoch", "replication")


def test_the_pages_reader_walks_as_we_do(reader: Reader, archived: Archived) -> None:
    assert list(reader["incarnations"](archived.root, ID.topic)) == [1]
    found = list(reader["links"](archived.root, ID.topic, 1, 0))
    assert [reader["canonical"](link) for link in found] == [chain.encode(link) for link in archived.links]
    assert [link["end"] for link in found] == [130, 131, 160, 200, 240]
    assert list(reader["links"](archived.root, ID.topic, 1, 9)) == []


@pytest.mark.parametrize("view", ["RouteDepartures", "Slow"])
def test_the_pages_reader_reads_the_rows_that_we_do(reader: Reader, archived: Archived, view: str) -> None:
    links = reader["links"](archived.root, ID.topic, 1, 0)
    found = list(reader["rows"](archived.root, view, 1, links))
    ours = [row for file in files(archived, view) for row in read(archived, file).to_pylist()]
    assert found == ours
    assert len(found) > 30
    identities = [(row["_topic"], row["_partition"], row["_offset"], row["_row"]) for row in found]
    assert identities == sorted(set(identities))
    assert list(reader["rows"](archived.root, view, 2, reader["links"](archived.root, ID.topic, 1, 0))) == []


def files(archived: Archived, view: str) -> list[DataFile]:
    """The linked files of a view."""
    accounts = (account for link in archived.links for account in link.views)
    return [account.file for account in accounts if account.view == view and account.file]


def read(archived: Archived, file: DataFile) -> pa.Table:
    """A linked file's rows, by our own code."""
    return pq.read_table(pa.BufferReader(chain.read_file(archived.store, file)))


def test_the_pages_reader_notices_what_was_altered(reader: Reader, archived: Archived) -> None:
    """Any link but the last, with its sums in order; any file."""
    for link in archived.links[:-1]:
        path = archived.root / link.path
        path.write_bytes(chain.encode(msgspec.structs.replace(link, writer="somebody else")))
        with pytest.raises(ValueError, match="does not follow"):
            list(reader["links"](archived.root, ID.topic, 1, 0))
        path.write_bytes(json.dumps(json.loads(chain.encode(link))).encode())
        with pytest.raises(ValueError, match="no link of format 1"):
            list(reader["links"](archived.root, ID.topic, 1, 0))
        path.write_bytes(chain.encode(link))
    file = archived.root / files(archived, "Slow")[-1].path
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="was altered"):
        list(reader["rows"](archived.root, "Slow", 1, reader["links"](archived.root, ID.topic, 1, 0)))


# ---- the files' page ----


def as_said(name: str, kind: pa.DataType, nullable: bool) -> tuple[str, str, bool]:
    """A column as the page puts it."""
    words: dict[str, str] = {
        "timestamp[us, tz=UTC]": "timestamp",
        "dictionary<values=string, indices=int8, ordered=0>": "text",
        "large_binary": "bytes",
        "binary": "bytes",
    }
    said = "list of (`name` text, `value` bytes)" if name == "headers" else words.get(str(kind), str(kind))
    return name, said, nullable


def columns(begins: str) -> list[tuple[str, str, bool]]:
    """The columns that the page names, with type and whether they may be null."""
    rows = (row for row in table(PARQUET, begins) if row[0].startswith("`"))
    return [(row[0].strip("`"), row[1], row[2] != "never") for row in rows]


def test_the_page_names_every_column_of_a_views_file() -> None:
    own = [field for field in view_schema(ROUTES, pushed=True) if field.name not in ("origin", "dest", "delay")]
    assert columns("## A view's file") == [as_said(field.name, field.type, field.nullable) for field in own]
    first = [row[0] for row in table(PARQUET, "## A view's file")][:4]
    assert first == [
        "the entity's keys, sorted by name",
        "`event_timestamp`",
        "the features, as defined",
        "`_sequence`",
    ]
    assert view_schema(ROUTES).names[:5] == ["origin", "dest", "event_timestamp", "delay", "_sequence"]


def test_the_page_names_every_column_of_a_raw_file() -> None:
    assert columns("## A raw file") == [as_said(field.name, field.type, field.nullable) for field in RAW_SCHEMA]


def test_the_page_names_every_type() -> None:
    said = {row[0].strip("`"): row[2].strip("`") for row in table(PARQUET, "## Types")}
    assert {name: said[name] for name in FIELD_TYPES} == {name: str(kind.arrow) for name, kind in FIELD_TYPES.items()}


def test_the_query_on_the_page_finds_the_newest_rows(reader: Reader, archived: Archived) -> None:
    (code,) = blocks(PARQUET, "python")
    names = reader | {"root": str(archived.root)}
    exec(compile(code, "parquet.md", "exec"), names)
    everything = pl.concat(frame_of(read(archived, file)) for file in files(archived, "RouteDepartures"))
    latest = newest(everything, ("origin", "dest")).sort("origin", "dest")
    told = ["origin", "dest", "delay"]
    assert names["latest"].select(told).rows() == latest.select(told).rows()
    assert latest.height == 2
