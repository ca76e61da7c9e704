"""The page on what is in Redis is true, and enough: its own reader reads what Stillwell writes."""

import dataclasses
import datetime
import itertools
import pathlib
import re
import types
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.redis_link import COMMANDS
from stillwell.layout import redis_keys, stamp, value
from stillwell.layout.chain import PartitionId
from stillwell.layout.entity_key import MAX_KEY_BYTES, entity_key
from stillwell.layout.online import LIFETIME_STEPS, MarkKey, MarkMove
from stillwell.layout.prediction import MAX_REASON_BYTES, Failure, Outputs, Record
from stillwell.layout.stamp import STAMP_BYTES, Stamp, topic_digest
from stillwell.layout.value import RowLayout
from stillwell.predictions.freshness import KEPT_FOR
from stillwell.spec import FeatureSpec, KeySpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import BOOL, FIELD_TYPES, FLOAT32, MAX_SIZE, STRING, FieldType, list_of, vector_of
from stillwell.wire import column, stored_values
from tests.online_support import EPOCH, LAYOUT, VIEW, now_us, rows
from tests.online_support import stamp as stamp_at
from tests.online_support import value as value_of

PAGE = (pathlib.Path(__file__).parent.parent.parent / "docs" / "reference" / "redis-layout.md").read_text()
EXAMPLE = RowLayout(
    "RouteDepartures",
    [
        FeatureSpec(name=name, type=kind, nullable=True, expression=None)
        for name, kind in (("delay", FLOAT32), ("carrier", STRING), ("cancelled", BOOL))
    ],
)


@pytest.fixture(scope="module")
def reader() -> types.SimpleNamespace:
    """The functions of the page's reader."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    defined: dict[str, object] = {}
    exec(code, defined)
    return types.SimpleNamespace(**defined)


class Client:
    """What the page's reader needs of redis-py, over the twin."""

    def __init__(self, server: MemoryRedis) -> None:
        self.server = server

    def mget(self, keys: list[bytes | str]) -> list[bytes | None]:
        return [self.server.read(key.encode() if isinstance(key, str) else key) for key in keys]


def block_behind(words: str) -> str:
    """The first block without language behind these words."""
    (found,) = re.findall(r"^```\n(.*?)^```$", PAGE[PAGE.index(words) :], re.MULTILINE | re.DOTALL)[:1]
    return str(found)


def table_under(heading: str, columns: int) -> list[list[str]]:
    """The rows of the first table of so many columns behind a heading."""
    found = re.findall(rf"^\|(?:[^|\n]*\|){{{columns}}}$", PAGE[PAGE.index(f"\n{heading}\n") :], re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found]


def test_the_map_is_the_one_in_the_code() -> None:
    drawn = "".join(f"    {line}\n" if line else "\n" for line in block_behind("<!-- map").splitlines())
    assert drawn in (redis_keys.__doc__ or "")


def test_the_rights_are_those_that_the_tests_of_the_store_find_enough_and_necessary() -> None:
    _, *commands = block_behind("### What a user must be allowed").partition("*")[2].split("+")
    assert [command.strip() for command in commands] == list(COMMANDS)


def test_the_header_is_where_the_page_says() -> None:
    at = {row[2]: row[0] for row in table_under("## Rows", 4)}
    assert at["stamp"] == str(value.STAMP_AT)
    assert at["length of the whole value"] == str(value.LENGTH_AT)
    assert at["kind"] == str(value.KIND_AT)
    assert at["layout id"] == str(value.LAYOUT_AT)
    assert at["null bitmap"] == str(value.HEADER_BYTES)


def test_the_slots_are_as_wide_as_the_page_says() -> None:
    said = {row[0]: row[1] for row in table_under("## Rows", 3) if row[0] in FIELD_TYPES}
    assert said == {name: str(kind.width or 4) for name, kind in FIELD_TYPES.items()}


def test_the_tags_are_those_of_the_types() -> None:
    said = {
        name: re.sub("`", "", row[0]) for row in table_under("### Entity keys", 4)[2:] for name in row[1].split(", ")
        if name in FIELD_TYPES
    }  # fmt: skip
    assert said == {name: kind.key_tag for name, kind in FIELD_TYPES.items() if kind.key_tag}


def test_the_limits_are_those_that_the_page_says() -> None:
    assert f"at most {MAX_KEY_BYTES} bytes" in PAGE
    assert f"at most {value.MAX_FEATURES:,} features" in PAGE
    assert (value.MAX_VALUE_BYTES, "at most 1 MiB" in PAGE) == (1 << 20, True)
    assert f"at most {MAX_SIZE:,} elements" in PAGE
    assert f"a {LIFETIME_STEPS}th of TTL + grace" in PAGE


def test_the_example_is_what_is_written() -> None:
    shown = "".join(re.sub(r"  .*", "", line) for line in block_behind("### An example").splitlines())
    frame = pl.DataFrame(
        {"delay": [None], "carrier": ["UA"], "cancelled": [True]}, schema_overrides={"delay": pl.Float32}
    )
    at = Stamp(1_700_000_000_000_000, None, 0, topic_digest("departures"), 1, 0, 0, 1, 0)
    packed = np.frombuffer(at.pack(), np.uint8).reshape(1, STAMP_BYTES)
    assert value.encode(EXAMPLE, frame, packed) == [bytes.fromhex(shown)]
    assert f"`{EXAMPLE.id.hex()}`" in PAGE
    assert f"`{EXAMPLE.description}`".replace("\n", "⏎") in PAGE
    keys = [KeySpec(name=name, type=STRING) for name in ("dest", "origin")]
    entity = entity_key(keys, {"dest": "LAX", "origin": "JFK"})
    (key,) = redis_keys.RedisKeys("flights", "prod").rows("RouteDepartures", [entity])
    assert f"`{key.decode()}`" in PAGE


VALUES: Mapping[str, st.SearchStrategy[object]] = {
    "Bool": st.booleans(),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "Float32": st.floats(width=32, allow_nan=False),
    "Float64": st.floats(allow_nan=False),
    "String": st.text(max_size=9),
    "Bytes": st.binary(max_size=9),
    "Timestamp": st.datetimes(timezones=st.just(datetime.UTC)),
}
SCALARS = st.sampled_from(sorted(FIELD_TYPES)).map(FIELD_TYPES.__getitem__)
TYPES = SCALARS | SCALARS.map(list_of) | st.builds(vector_of, SCALARS, st.integers(1, 3))


def values_of(kind: FieldType) -> st.SearchStrategy[object]:
    """Of a single value, or lists of them."""
    if kind.element is None:
        return VALUES[kind.name]
    return st.lists(VALUES[kind.element.name], min_size=kind.size or 0, max_size=kind.size or 3)


ROWS = st.lists(TYPES, min_size=1, max_size=18).flatmap(
    lambda types: st.tuples(st.just(types), st.tuples(*(st.none() | values_of(kind) for kind in types)))
)


@settings(deadline=None, max_examples=100)
@given(row=ROWS, at=st.integers(-(2**63), 2**63 - 1), sequence=st.none() | st.integers(-(2**63) + 1, 2**63 - 1))
def test_the_pages_reader_reads_every_row(
    reader: types.SimpleNamespace, row: tuple[list[FieldType], tuple[object, ...]], at: int, sequence: int | None
) -> None:
    kinds, put = row
    layout = RowLayout(
        "View",
        [FeatureSpec(name=f"f{n}", type=kind, nullable=True, expression=None) for n, kind in enumerate(kinds)],
    )
    columns = zip(layout.features, put, strict=True)
    frame = pl.DataFrame([column(each.type, [value]).alias(each.name) for each, value in columns])
    stamped = Stamp(at, sequence, -1, topic_digest("departures"), 1, 2, 3, 4, 5)
    packed = np.frombuffer(stamped.pack(), np.uint8).reshape(1, STAMP_BYTES)
    (written,) = value.encode(layout, frame, packed)
    values, read_stamp = reader.read_row(written, "View", [(each.name, each.type.name) for each in layout.features])
    assert values == {each.name: stored_values(each.type, frame.get_column(each.name))[0] for each in layout.features}
    assert read_stamp == {name: getattr(stamped, name) for name in Stamp.__slots__}


async def test_the_pages_reader_finds_rows_and_marks_and_says_when_redis_is_not_ready(
    reader: types.SimpleNamespace,
) -> None:
    server = MemoryRedis()
    store = MemoryOnlineStore(server, redis_keys.RedisKeys("flights", "prod"))
    features = [(each.name, each.type.name) for each in LAYOUT.features]
    with pytest.raises(RuntimeError, match="not ready"):
        reader.read_rows(Client(server), "flights", "prod", VIEW, features, [b"s3:JFK"])
    await store.initialise(EPOCH)
    at = stamp_at(now_us(), offset=7)
    entity = reader.entity_key(("s", b"JFK"), ("i", b"-7"))
    await store.put(rows((entity, value_of(at, "late"))), EPOCH)
    read = reader.read_rows(Client(server), "flights", "prod", VIEW, features, [entity, b"s3:LAX"])
    assert read == [({"number": 7, "text": "late"}, reader.read_stamp(at.pack())), None]
    mark = MarkKey(PartitionId("departures", 1, 0), VIEW, 1)
    await store.set_marks([MarkMove(mark, 2**62, 2**62)], EPOCH)
    stored = server.read(redis_keys.RedisKeys("flights", "prod").mark(mark))
    assert reader.read_mark(stored) == (2**62, EPOCH)


def test_the_pages_reader_refuses_what_it_does_not_know(reader: types.SimpleNamespace) -> None:
    good = value_of(stamp_at(0))
    features = [(each.name, each.type.name) for each in LAYOUT.features]
    for wrong in (b"\x02" + good[1:], good[:57] + b"\x02" + good[58:], good[:-1], good + b"x"):
        with pytest.raises(ValueError, match="no whole row of format 1"):
            reader.read_row(wrong, VIEW, features)
    with pytest.raises(ValueError, match="another layout"):
        reader.read_row(good, VIEW, features[::-1])


def test_the_stamp_is_laid_out_as_the_page_says() -> None:
    said = [(int(row[0]), int(row[1])) for row in table_under("### The stamp", 4)[2:] if row[0].isdigit()]
    columns = stamp._COLUMNS
    offsets = [columns.fields[name][1] for name in columns.names] if columns.fields and columns.names else []
    assert said == [(offset, end - offset) for offset, end in itertools.pairwise([*offsets, STAMP_BYTES])]


def test_predictions_are_laid_out_as_the_page_says() -> None:
    heads: dict[str, Outputs | Failure] = {
        "| at | bytes | of the outputs' part |": Outputs(1, b"2" * 16, 3, 4, b"5555", b"6"),
        "| at | bytes | of the failure's part |": Failure(1, b"2" * 16, 3, 4, 5, "6"),
    }
    for head, part in heads.items():
        rows = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
        packed = part.pack()
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        found = [packed[int(at) :][: int(width) if width.isdigit() else None] for at, width, _ in cells]
        values = [getattr(part, field.name) for field in dataclasses.fields(part)]
        assert b"".join(found) == packed
        assert [
            int.from_bytes(each) if isinstance(value, int) else each.decode() if isinstance(value, str) else each
            for each, value in zip(found, values, strict=True)
        ] == values
    assert Record(Outputs(1, b"2" * 16, 3, 4, b"5555", b"6"), None).pack()[:5] == bytes([1, 0, 0, 0, 41])
    assert f"at most {MAX_REASON_BYTES} bytes" in PAGE
    assert (KEPT_FOR, "ten times the model's `max_staleness`" in " ".join(PAGE.split())) == (10, True)
