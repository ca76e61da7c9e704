"""Stamps: 52 bytes whose order is the order of rows, packed one by one or by the column."""

import datetime
import hashlib
import struct

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.layout.chain import PartitionId
from stillwell.layout.stamp import ABSENT_SEQUENCE, STAMP_BYTES, Order, Stamp, judge, stamps, topic_digest
from stillwell.row import newest

I64 = st.integers(-(2**63), 2**63 - 1)
NEAR = st.sampled_from([-(2**63), -1, 0, 1, 255, 256, 2**53, 2**53 + 1, 2**63 - 1])
SIGNED = NEAR | I64


def of_one(frame: pl.DataFrame, source: PartitionId, version: int) -> npt.NDArray[np.uint8]:
    """The stamps of one partition's batch."""
    return stamps(frame, np.array([0, frame.height]), [source], version)


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.sampled_from([0, 1, 255, 256, 2**bits - 1]) | st.integers(0, 2**bits - 1)


STAMPS = st.builds(
    Stamp,
    event_time=SIGNED,
    sequence=st.none() | SIGNED.filter(lambda number: number != ABSENT_SEQUENCE),
    timestamp=SIGNED,
    topic=st.sampled_from([topic_digest("arrivals"), topic_digest("departures")]),
    incarnation=unsigned(16),
    partition=unsigned(32),
    offset=unsigned(64),
    version=unsigned(16),
    row=unsigned(32),
)


def in_words(stamp: Stamp) -> tuple[object, ...]:
    """The rule as DESIGN words it, without bytes: compare field by field, a missing sequence is less than any."""
    return (
        stamp.event_time,
        stamp.sequence is not None,
        stamp.sequence or 0,
        stamp.timestamp,
        stamp.topic,
        stamp.incarnation,
        stamp.partition,
        stamp.offset,
        stamp.version,
        stamp.row,
    )


@settings(deadline=None)
@given(STAMPS)
def test_a_stamp_is_read_back_as_it_was_packed(stamp: Stamp) -> None:
    assert len(stamp.pack()) == STAMP_BYTES
    assert Stamp.unpack(stamp.pack()) == stamp


@settings(deadline=None)
@given(STAMPS, STAMPS, st.integers(0, 10))
def test_the_order_of_bytes_is_the_rule(one: Stamp, other: Stamp, shared: int) -> None:
    fields = Stamp.__slots__
    other = Stamp(*(getattr(one if at < shared else other, name) for at, name in enumerate(fields)))
    expected = (
        Order.NEWER
        if in_words(one) > in_words(other)
        else Order.OLDER
        if in_words(one) < in_words(other)
        else Order.DUPLICATE
    )
    assert judge(one.pack(), other.pack()) is expected
    assert (one.pack() > other.pack()) == (in_words(one) > in_words(other))


@settings(deadline=None)
@given(STAMPS)
def test_whatever_is_first_is_newer_than_nothing(stamp: Stamp) -> None:
    assert judge(stamp.pack(), None) is Order.NEWER


def test_the_bytes_are_those_of_the_reference() -> None:
    """Written out by hand, so that a change of format cannot pass unseen."""
    stamp = Stamp(1, None, -1, topic_digest("departures"), 2, 3, 4, 5, 6)
    assert stamp.pack().hex() == (
        "8000000000000001"  # event time
        "0000000000000000"  # no sequence
        "7fffffffffffffff"  # record timestamp
        "6cb2266c1d72161c"  # topic
        "0002" "00000003" "0000000000000004" "0005" "00000006"
    )  # fmt: skip
    assert topic_digest("departures") == hashlib.sha256(b"departures").digest()[:8]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("event_time", 2**63),
        ("sequence", -(2**63) - 1),
        ("incarnation", 2**16),
        ("partition", -1),
        ("offset", -1),
        ("version", 2**16),
        ("row", 2**32),
    ],
)
def test_a_field_that_does_not_fit_is_refused(field: str, wrong: int) -> None:
    fields = dict.fromkeys(Stamp.__slots__, 0) | {"topic": bytes(8), field: wrong}
    with pytest.raises(ValueError, match="outside its range"):
        Stamp(**fields).pack()  # type: ignore[arg-type]


def test_a_topic_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="topic_digest"):
        Stamp(0, None, 0, b"departures", 0, 0, 0, 0, 0).pack()


@pytest.mark.parametrize("length", [0, 51, 53])
def test_other_lengths_are_no_stamps(length: int) -> None:
    with pytest.raises(ValueError, match="52 bytes"):
        Stamp.unpack(bytes(length))


def test_the_least_sequence_reads_as_none() -> None:
    """So that no event is refused for its sequence; the two cannot be told apart afterwards."""
    least = Stamp(0, ABSENT_SEQUENCE, 0, bytes(8), 0, 0, 0, 0, 0)
    assert Stamp.unpack(least.pack()).sequence is None


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.integers(0, 3),
            "event_timestamp": SIGNED,
            "_sequence": st.none() | SIGNED,
            "_timestamp": SIGNED,
            "_offset": st.integers(0, 2**63 - 1),
            "_row": unsigned(32),
        }
    )
)


def frame_of(rows: list[dict[str, int | None]]) -> pl.DataFrame:
    schema = {
        "key": pl.Int64,
        "event_timestamp": pl.Int64,
        "_sequence": pl.Int64,
        "_timestamp": pl.Int64,
        "_offset": pl.Int64,
        "_row": pl.UInt32,
    }
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))


@settings(deadline=None)
@given(ROWS, unsigned(16), unsigned(32), unsigned(16))
def test_columns_are_packed_as_single_stamps_are(
    rows: list[dict[str, int | None]], incarnation: int, partition: int, version: int
) -> None:
    source = PartitionId("departures", incarnation, partition)
    packed = of_one(frame_of(rows), source, version)
    assert packed.shape == (len(rows), STAMP_BYTES)
    for row, bytes_of_row in zip(rows, packed, strict=True):
        expected = struct.pack(
            ">QQQ8sHIQHI",
            row["event_timestamp"] + 2**63,  # type: ignore[operator]
            (ABSENT_SEQUENCE if row["_sequence"] is None else row["_sequence"]) + 2**63,
            row["_timestamp"] + 2**63,  # type: ignore[operator]
            topic_digest("departures"),
            *(incarnation, partition, row["_offset"], version, row["_row"]),
        )
        assert bytes_of_row.tobytes() == expected


def test_a_column_of_sequences_without_type_counts_as_absent() -> None:
    frame = frame_of([{"key": 0, "event_timestamp": 0, "_sequence": 5, "_timestamp": 0, "_offset": 0, "_row": 0}])
    untyped = frame.with_columns(_sequence=pl.lit(None))
    assert untyped.schema["_sequence"] == pl.Null
    (packed,) = of_one(untyped, PartitionId("departures", 0, 0), 0)
    assert Stamp.unpack(packed.tobytes()).sequence is None


@settings(deadline=None)
@given(ROWS)
def test_the_newest_row_of_a_batch_is_the_one_with_the_greatest_stamp(rows: list[dict[str, int | None]]) -> None:
    coordinates = {(row["_offset"], row["_row"]): row for row in rows}
    rows = [coordinates[at] for at in sorted(coordinates)]
    frame = frame_of(rows)
    source = PartitionId("departures", 1, 0)
    greatest: dict[int, bytes] = {}
    for key, packed in zip(frame["key"], of_one(frame, source, 1), strict=True):
        greatest[key] = max(greatest.get(key, b""), packed.tobytes())
    kept = newest(frame, ["key"])
    assert dict(zip(kept["key"], (each.tobytes() for each in of_one(kept, source, 1)), strict=True)) == greatest


def test_an_event_time_of_today_is_where_a_reader_expects_it() -> None:
    instant = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
    frame = pl.DataFrame(
        {"event_timestamp": [instant], "_sequence": [None], "_timestamp": [0], "_offset": [0], "_row": [0]},
        schema={
            "event_timestamp": pl.Datetime("us", "UTC"),
            "_sequence": pl.Int64,
            "_timestamp": pl.Int64,
            "_offset": pl.Int64,
            "_row": pl.UInt32,
        },
    )
    (packed,) = of_one(frame, PartitionId("departures", 1, 0), 1)
    assert int.from_bytes(packed.tobytes()[:8]) - 2**63 == int(instant.timestamp() * 1_000_000)
