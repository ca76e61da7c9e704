"""Pushed records: what is accepted, what becomes of it, and that it has the bits that the view computes itself."""

import base64
import dataclasses
import datetime
import json
import math
import random
import re
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.parquet import ParquetEncoder
from stillwell.broken import Broken, RuleId
from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError
from stillwell.joined import Joined
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.parquet import batch_tables, frame_of, read_table, view_schema, view_tables
from stillwell.layout.stamp import stamps
from stillwell.layout.value import RowLayout, encode
from stillwell.pipeline import compile_pipeline
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import (
    PushEncoder,
    To,
    final_topic,
    head_of,
    headers_of,
    push_topic,
    raw_topic,
)
from stillwell.pushing.topics import push_topics
from stillwell.records import Headers, Outcome, Records, Reject
from stillwell.spec import DefinitionsSpec, Expectation, Origin, ViewSpec
from stillwell.types import (
    BOOL,
    BYTES,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    FieldType,
    list_of,
    vector_of,
)
from stillwell.wire import column as column_of
from tests.batches import NOW, NOW_MS, column, event, feature, records, take, topic, view

UTC = datetime.UTC
TRANSFORM: Headers = (("transform_on_write", b"true"),)


def x(name: str) -> pl.Expr:
    return pl.col(f"T.{name}")


POSITIVE = Expectation(rule="≥ 0", holds=pl.col("number") >= 0)
SOURCE = topic(
    column("customer", STRING, nullable=True, path=("who", "customer")),
    column("number", INT64, nullable=True, expectations=(POSITIVE,)),
    column("share", FLOAT64, nullable=True),
    column("feed", STRING, nullable=True, origin=Origin.HEADER, path=("feed",)),
    column("step", INT64, nullable=True),
    column("received", TIMESTAMP, nullable=True, origin=Origin.RECORD_TIMESTAMP),
    sequence="step",
)
VIEW = view(
    SOURCE,
    {"customer": (STRING, x("customer"))},
    feature("number", INT64, x("number")),
    feature("ratio", FLOAT64, x("share") / x("number"), nullable=True),
    feature("small", FLOAT32, x("share") / 3, nullable=True),
    feature("feed", STRING, x("feed"), nullable=True),
    feature("age_s", INT64, (x("received") - x("at")).dt.total_seconds(), nullable=True),
    where=x("number") != 13,
)
PIPELINE = PushPipeline("shop", VIEW)


def final(**fields: object) -> bytes:
    """The JSON of a final row of `VIEW`."""
    return json.dumps({"customer": "a", "event_timestamp": NOW, "number": 1, **fields}).encode()


def raw(**fields: object) -> bytes:
    """The JSON of a raw event of `VIEW`."""
    return event(**{"customer": "a", "number": 1, **fields})


def run(batch: Records, pipeline: PushPipeline = PIPELINE) -> Outcome:
    """The outcome of a batch, whose account adds up."""
    outcome = pipeline.run(batch)
    (rows,) = outcome.rows
    offsets = rows.frame.get_column("_offset")
    rejected = [reject.offset for reject in outcome.rejects]
    assert rejected == sorted(set(rejected))
    assert rows.offsets_with_rows + rows.filtered + rows.rejected == len(batch)
    assert (rows.offsets_with_rows, rows.rejected) == (offsets.n_unique(), len(rejected))
    assert not set(rejected) & set(offsets)
    coordinates = rows.frame.select("_offset", "_row").rows()
    assert coordinates == sorted(coordinates)
    return outcome


def one(value: bytes | None, headers: Headers = (), pipeline: PushPipeline = PIPELINE) -> dict[str, Any] | str:
    """The one row that a record gives; else the sentence with which it is refused, or nothing."""
    outcome = run(records([value], headers=[headers]), pipeline)
    if outcome.rejects:
        return outcome.rejects[0].error
    return outcome.rows[0].frame.to_dicts()[0] if outcome.rows[0].frame.height else ""


def test_the_topic_is_named_after_project_and_view() -> None:
    assert push_topic("flights", "RouteDepartures") == "flights.push.RouteDepartures"
    assert PIPELINE.topic.topic == raw_topic("shop", VIEW).topic == "shop.push.V"
    assert (PIPELINE.topic.start, PIPELINE.views, PIPELINE.pushed) == ("earliest", (VIEW,), True)


def test_a_topic_of_the_definitions_cannot_be_a_push_topic_too() -> None:
    taken = SOURCE.model_copy(update={"topic": "shop.push.V"})
    definitions = DefinitionsSpec(entities=(VIEW.entity,), topics=(SOURCE,), views=(VIEW,))
    assert push_topics("shop", definitions) == ("shop.push.V",)
    with pytest.raises(DefinitionError, match=r"T has name='shop.push.V', where rows of a view are pushed"):
        push_topics("shop", definitions.model_copy(update={"topics": (taken,)}))


# What is accepted


def test_a_final_row_is_taken_as_it_is() -> None:
    given_row = one(final(number=13, ratio="NaN", small=0.1, feed="web", _sequence=7))
    assert isinstance(given_row, dict)
    assert math.isnan(given_row.pop("ratio"))
    assert given_row == {
        "customer": "a",
        "event_timestamp": datetime.datetime(2026, 1, 1, tzinfo=UTC),
        "number": 13,
        "small": struct.unpack("f", struct.pack("f", 0.1))[0],
        "feed": "web",
        "age_s": None,
        "_sequence": 7,
        "_offset": 100,
        "_timestamp": NOW_MS,
        "_row": 0,
        "_to": "online_and_offline",
    }


def test_a_raw_event_has_the_columns_by_their_names_and_is_transformed_under_the_topics_expectations() -> None:
    given_row = one(raw(number=4, share=1.0, feed="web", step=-3), TRANSFORM)
    assert isinstance(given_row, dict)
    assert (given_row["ratio"], given_row["feed"], given_row["age_s"], given_row["_sequence"]) == (0.25, "web", 0, -3)
    assert one(raw(number=13), TRANSFORM) == ""
    assert one(raw(number=-1), TRANSFORM) == "number: expected ≥ 0, got -1 (at $.number)"
    assert one(final(number=-1)) != ""


@pytest.mark.parametrize(
    ("value", "headers", "error"),
    [
        (None, (), "takes no deletes, got a record without a value"),
        (None, TRANSFORM, "takes no deletes, got a record without a value"),
        (b"", (), "expected one JSON object"),
        (b"[]", (), "expected an object"),
        (final(nunber=1), (), "got a field 'nunber' as well; did you mean 'number'?"),
        (final(_offset=1), (), "got a field '_offset' as well"),
        (raw(received=NOW), TRANSFORM, "got a field 'received' as well; there is at, customer, number, share, feed, …"),
        (
            event(who={"customer": "a"}, number=1),
            TRANSFORM,
            "got a field 'who' as well; rows are pushed flat, whatever paths their topic has: columns by their names "
            "alone, as at, customer, number, share, feed",
        ),
        (event(customer={"customer": "a"}), TRANSFORM, "got object (at $.customer); rows are pushed flat"),
        (final(), TRANSFORM, "got a field 'event_timestamp' as well; a final row, which has one, is pushed with trans"),
        (raw(), (), "got a field 'at' as well; there is customer, event_timestamp, number, ratio, small,"),
        (raw(), (), "small, …; an event of the view's topic is pushed with transform_on_write true"),
        (final(number="1"), (), "number: expected Int64"),
        (final(number=None), (), "number: expected Int64"),
        (final(customer=None), (), "customer: expected String (Unicode text), got null"),
        (b'{"event_timestamp": "2026-01-01T00:00:00Z", "number": 1}', (), "customer: expected String (Unicode text)"),
        (final(event_timestamp="2026-01-01T00:00:00"), (), "event_timestamp: expected Timestamp (ISO-8601 text with a"),
        (final(event_timestamp=1767225600), (), "event_timestamp: expected Timestamp"),
        (final(ratio="nan"), (), 'or "NaN", "Infinity" or "-Infinity"), got string "nan"'),
        (final(ratio="1.5"), (), 'got string "1.5"'),
        (final(ratio="NaN:7ff0000000000000"), (), "ratio: expected Float64"),
        (raw(share="NaN"), TRANSFORM, 'share: expected Float64 or null (a number within ±1.7976931e308), got'),
        (final(event_timestamp="2026-01-01T01:00:01Z"), (), "at most 1 hour past the timestamp of its record"),
        (final(event_timestamp="1600-01-01T00:00:00Z"), (), "lies within the years 1684 to 2255"),
        (final(customer="c" * 600), (), "view V: the entity key has more than 512 bytes"),
        (raw(customer="c" * 600), TRANSFORM, "view V: the entity key has more than 512 bytes"),
        (raw(customer=None), TRANSFORM, "view V: customer: expected String, got null"),
        (final(feed="f" * (1 << 20)), (), "the row has more than 1048576 bytes"),
        (final(), (("transform_on_write", b"yes"),), "header transform_on_write: expected true or false, got 'yes'"),
        (final(), (("to", b"both"),), "header to: expected online, offline or online_and_offline, got 'both'"),
        (final(), (("to", b"\xff" * 99),), "header to: expected online, offline or online_and_offline, got '\\\\xff"),
        (final(), (("version", b"0"),), "header version: expected a whole number from 1 to 65535, got '0'"),
        (final(), (("version", b"70000"),), "header version: expected a whole number from 1 to 65535, got '70000'"),
        (final(), (("version", b"1.0"),), "header version: expected a whole number from 1 to 65535, got '1.0'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_reason(value: bytes | None, headers: Headers, error: str) -> None:
    found = one(value, headers)
    assert isinstance(found, str)
    assert error in found
    assert len(found) < 500


def test_of_several_headers_of_one_name_the_last_one_counts_and_one_without_value_is_absent() -> None:
    assert head_of((("to", b"nonsense"), ("to", b"online"))).to is To.ONLINE
    assert head_of((("to", b"nonsense"), ("to", None), ("trace", b"\xff"))).to is To.BOTH
    assert head_of((("transform_on_write", b"false"), ("version", b"12"), ("raw", b"{}"))) == dataclasses.replace(
        head_of(()), version=12, raw=b"{}"
    )


@pytest.mark.parametrize("to", list(To))
@pytest.mark.parametrize("transform", [True, False])
def test_headers_say_what_was_said(to: To, transform: bool) -> None:
    head = head_of(headers_of(transform=transform, to=to, version=3, raw=b"{", idempotency_key="k"))
    assert (head.transform, head.to, head.version, head.raw) == (transform, to, 3, b"{")
    assert headers_of() == ()


def test_only_a_row_of_another_version_is_transformed_anew_and_only_where_its_raw_event_is_there() -> None:
    anew: Headers = (("version", b"2"), ("raw", raw(number=5)))
    rows = {
        "as it is": one(final(number=9), (("version", b"1"), ("raw", raw(number=5)))),
        "no version": one(final(number=9), (("raw", raw(number=5)),)),
        "no raw": one(final(number=9), (("version", b"2"),)),
        "anew": one(final(number=9), anew),
        "whatever the row": one(b"?", anew),
    }
    numbers = {name: row["number"] if isinstance(row, dict) else row for name, row in rows.items()}
    assert numbers == {"as it is": 9, "no version": 9, "no raw": 9, "anew": 5, "whatever the row": 5}
    assert "expected one JSON object" in str(one(final(), (("version", b"2"), ("raw", b"?"))))
    assert "takes no deletes" in str(one(None, anew))


def test_what_another_version_has_pushed_is_taken_without_what_this_one_does_not_have() -> None:
    """A query service of that version may have written it to Redis already: a row that is refused is in no file."""
    other: Headers = (("version", b"2"),)
    dropped = final(number=9, feed="web", dropped=[{"any": "thing"}], was="feed")
    row = one(dropped, other)
    assert isinstance(row, dict)
    assert (row["number"], row["feed"], row["ratio"], row.keys()) == (9, "web", None, dict(one(final())).keys())  # type: ignore[arg-type]
    old = raw(number=5, dropped=1)
    for anew in (one(b"?", (*other, ("raw", old))), one(old, (*other, *TRANSFORM))):
        assert isinstance(anew, dict)
        assert anew["number"] == 5
    for headers in ((), (("version", b"1"),)):
        assert "got a field 'dropped' as well" in str(one(dropped, headers))
        assert "got a field 'dropped' as well" in str(one(old, (*headers, *TRANSFORM)))


def test_what_another_version_cannot_have_known_is_not_made_up() -> None:
    """A feature that may not be null, and has none; and one that is of another type by now."""
    other: Headers = (("version", b"2"),)
    assert "number: expected Int64" in str(one(b'{"customer": "a", "event_timestamp": "%b"}' % NOW.encode(), other))
    assert "number: expected Int64" in str(one(final(number="9"), other))
    assert "number: expected" in str(one(b"?", (*other, ("raw", raw(number="5")))))


def test_a_view_of_a_topic_without_columns_takes_final_rows_alone() -> None:
    source = SOURCE.model_copy(update={"columns": ()})
    features = tuple(each.model_copy(update={"expression": None}) for each in VIEW.features)
    pipeline = PushPipeline("shop", VIEW.model_copy(update={"source": source, "features": features, "keys": ()}))
    assert isinstance(one(final(), pipeline=pipeline), dict)
    assert one(raw(), TRANSFORM, pipeline) == "header transform_on_write: V takes final rows alone, got `true`"
    of_another = one(final(number=9), (("version", b"2"), ("raw", raw(number=5))), pipeline)
    assert isinstance(of_another, dict)
    assert of_another["number"] == 9


def test_a_view_that_cannot_be_computed_is_refused() -> None:
    broken = VIEW.model_copy(update={"where": x("nothing") > 1})
    with pytest.raises(DefinitionError, match="where is not an expression"):
        PushPipeline("shop", broken)


def both_ends(each: Any) -> Iterable[Mapping[str, object]]:
    for customer in each.customer.split("-"):
        yield {"customer": customer, "number": each.number}


def test_a_view_with_a_function_gives_all_rows_of_a_raw_event_and_the_one_of_a_final_row() -> None:
    many = view(SOURCE, {"customer": (STRING, None)}, feature("number", INT64, None), rows=both_ends)
    batch = records(
        [raw(customer="a-b"), final(customer="c", number=3), raw(customer="d")], headers=[TRANSFORM, (), TRANSFORM]
    )
    (rows,) = run(batch, PushPipeline("shop", many)).rows
    assert rows.frame.select("customer", "number", "_offset", "_row").rows() == [
        ("a", 1, 100, 0), ("b", 1, 100, 1), ("c", 3, 101, 0), ("d", 1, 102, 0)
    ]  # fmt: skip


# Whatever the neighbours


@st.composite
def batches(draw: st.DrawFn) -> Records:
    """Pushes of every form, some of them wrong in one of many ways."""
    values: list[bytes | None] = []
    headers: list[Headers] = []
    for _ in range(draw(st.integers(0, 14))):
        number = draw(st.sampled_from([None, 0, 1, 3, 13, -1, 2**63 - 1, 2**63]))
        share = draw(st.none() | st.floats(allow_nan=False, allow_infinity=False))
        common = {"customer": draw(st.sampled_from([None, "a", "b", "ü", "k" * 513])), "number": number}
        more = draw(st.sampled_from([{}, {"more": 1}]))
        as_raw = event(**common, **more, share=share, step=draw(st.none() | st.integers(-2, 2)))
        as_final = final(**common, **more, ratio=draw(st.sampled_from([share, "NaN", "-Infinity", "x"])))
        said: list[tuple[str, bytes | None]] = []
        if to := draw(st.sampled_from([None, b"online", b"offline", b"online_and_offline", b"?"])):
            said.append(("to", to))
        form = draw(st.sampled_from(["raw", "final", "anew", "bad"]))
        if form in ("raw", "final") and draw(st.booleans()):
            said.append(("version", draw(st.sampled_from([b"1", b"9"]))))
        if form == "raw":
            said.append(TRANSFORM[0])
        if form == "anew":
            said += [("version", b"9"), ("raw", as_raw)]
        values.append(
            as_raw if form == "raw" else draw(st.sampled_from([None, b"{", raw()])) if form == "bad" else as_final
        )
        headers.append(tuple(said))
    return records(values, headers=headers)


def fates(*parts: Records) -> tuple[list[tuple[Any, ...]], list[Reject]]:
    """All rows, floats by their bits, and all rejects, whatever the parts."""
    rows: list[tuple[Any, ...]] = []
    rejects: list[Reject] = []
    for part in parts:
        outcome = run(part)
        rejects += outcome.rejects
        rows += by_bits(outcome.rows[0].frame)
    return rows, rejects


def by_bits(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.with_columns(
        pl.col(pl.Float32).reinterpret(dtype=pl.UInt32), pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)
    ).rows()


@settings(deadline=None, derandomize=True, max_examples=80)
@given(batches(), st.integers(0, 14), st.randoms(use_true_random=False))
def test_no_cut_of_a_partition_and_no_neighbour_changes_a_row_a_reject_or_the_account(
    batch: Records, cut: int, chance: random.Random
) -> None:
    whole = fates(batch)
    positions = range(len(batch))
    assert fates(*(take(batch, [position]) for position in positions)) == whole
    assert fates(take(batch, positions[:cut]), take(batch, positions[cut:])) == whole
    dealt_anew = dataclasses.replace(take(batch, chance.sample(positions, len(batch))), offsets=batch.offsets)
    assert fates(*(take(dealt_anew, [position]) for position in positions)) == fates(dealt_anew)


@settings(deadline=None, derandomize=True, max_examples=5)
@given(st.lists(batches(), min_size=4, max_size=8))
def test_batches_that_are_run_at_once_in_threads_come_out_as_one_by_one(several: list[Records]) -> None:
    fresh = PushPipeline("shop", VIEW)
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(fresh.run, several * 3))
    expected = [PIPELINE.run(batch) for batch in several] * 3
    assert [outcome.rejects for outcome in at_once] == [outcome.rejects for outcome in expected]
    for now, then in zip(at_once, expected, strict=True):
        assert by_bits(now.rows[0].frame) == by_bits(then.rows[0].frame)


# The same bits as the view's own


EVERY = topic(
    column("key", STRING),
    column("code", BYTES, nullable=True),
    column("flag", BOOL, nullable=True),
    column("small", INT32, nullable=True),
    column("large", INT64, nullable=True),
    column("short", FLOAT32, nullable=True),
    column("long", FLOAT64, nullable=True),
    column("when", TIMESTAMP, nullable=True, unit="ms"),
    column("header", INT64, nullable=True, origin=Origin.HEADER, path=("number",)),
    column("order", INT64, nullable=True),
    sequence="order",
)
EVERYTHING = view(
    EVERY,
    {"key": (STRING, x("key")), "large": (INT64, x("large").fill_null(0))},
    *(
        feature(name, kind, x(name), nullable=True)
        for name, kind in [("code", BYTES), ("flag", BOOL), ("small", INT32), ("short", FLOAT32), ("when", TIMESTAMP)]
    ),
    feature("nothing", FLOAT64, x("long") / 0, nullable=True),
    feature("short_nothing", FLOAT32, x("short") * float("inf"), nullable=True),
    feature("percent", FLOAT64, x("long") / 3.6, nullable=True),
    feature("header", INT64, x("header"), nullable=True),
)
OF_SOURCE, OF_PUSHES, ENCODER = (
    compile_pipeline(EVERY, [EVERYTHING]), PushPipeline("shop", EVERYTHING), PushEncoder(EVERYTHING)
)  # fmt: skip

_INT32 = st.sampled_from([-(2**31), 2**31 - 1, 0]) | st.integers(-(2**31), 2**31 - 1)
_INT64 = st.sampled_from([-(2**63), 2**63 - 1, 0]) | st.integers(-(2**63), 2**63 - 1)
_EVENTS = st.fixed_dictionaries(
    {
        "key": st.text(max_size=5),
        "code": st.none() | st.binary(max_size=5).map(lambda raw: base64.b64encode(raw).decode()),
        "flag": st.none() | st.booleans(),
        "small": st.none() | _INT32,
        "large": st.none() | _INT64,
        "short": st.none() | st.sampled_from([-0.0, 0.0]) | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "long": st.none() | st.sampled_from([-0.0, 0.0]) | st.floats(allow_nan=False, allow_infinity=False),
        "when": st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999),
        "header": st.none() | _INT64,
        "order": st.none() | _INT64,
    }
)


def stored(view_of: ViewSpec, frame: pl.DataFrame) -> list[bytes]:
    """The rows as bytes in Redis, as if they had come from one and the same place."""
    cuts = np.array([0, frame.height])
    return encode(RowLayout.of(view_of), frame, stamps(frame, cuts, [PartitionId("t", 1, 0)], view_of.version))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(_EVENTS, min_size=1, max_size=8))
def test_a_pushed_row_has_the_bits_that_the_view_computes_from_its_topic(events: list[dict[str, Any]]) -> None:
    """Pushed raw, or computed elsewhere and pushed as a final row."""
    headers: list[Headers] = [
        () if each["header"] is None else (("number", str(each["header"]).encode()),) for each in events
    ]
    source = OF_SOURCE.run(records([event(**each) for each in events], headers=headers))
    assert not source.rejects
    computed = source.rows[0].frame
    pushed_raw = OF_PUSHES.run(records([event(**each) for each in events], headers=[TRANSFORM] * len(events)))
    finals = ENCODER.keys_and_values(computed)
    pushed_final = OF_PUSHES.run(records([value for _, value in finals], keys=[key for key, _ in finals]))
    for pushed in (pushed_raw, pushed_final):
        assert not pushed.rejects
        frame = pushed.rows[0].frame.drop("_to")
        assert frame.schema == computed.schema
        assert by_bits(frame) == by_bits(computed)
        assert stored(EVERYTHING, frame) == stored(EVERYTHING, computed)


def _pairs(kind: FieldType) -> FieldType:
    return vector_of(kind, 2)


@pytest.mark.parametrize("bits", ["7ff8000000000000", "fff8000000000000", "7ff8000000000001", "fffc000000000000"])
@pytest.mark.parametrize("kind", [f(each) for each in (FLOAT64, FLOAT32) for f in (lambda kind: kind, list_of, _pairs)])
def test_every_quiet_nan_keeps_its_bits(bits: str, kind: Any) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    share = x("share")
    if kind.element is not None:
        share = pl.concat_arr(share, share) if kind.size else pl.concat_list(share, share)
    of = view(SOURCE, {"customer": (STRING, x("customer"))}, feature("f", kind, share.cast(kind.polars), nullable=True))
    source = (
        compile_pipeline(SOURCE, [of]).run(records([event(who={"customer": "a"}, number=1, share=1.0)])).rows[0].frame
    )
    given_value = value if kind.element is None else [1.0, value]
    computed = source.with_columns(column_of(kind, [given_value]).alias("f"))
    ((_, pushed),) = PushEncoder(of).keys_and_values(computed)
    (rows,) = run(records([pushed]), PushPipeline("shop", of)).rows
    assert stored(of, rows.frame.drop("_to")) == stored(of, computed)


@pytest.mark.parametrize("kind", [f(each) for each in (FLOAT64, FLOAT32) for f in (lambda kind: kind, list_of, _pairs)])
def test_a_nan_that_is_made_of_any_bytes_is_a_quiet_one_and_keeps_its_bits(kind: Any) -> None:
    """A signalling one changes its bits on its way through Python, and no text of JSON stands for it."""
    code = "<d" if kind.scalar is FLOAT64 else "<f"
    signalling = bytes.fromhex("010000000000f07f" if kind.scalar is FLOAT64 else "0100807f")
    source = topic(column("id", INT64), column("raw", BYTES))
    made = pl.col("T.raw").bin.reinterpret(dtype=pl.Array(kind.scalar.polars, 2))
    if kind.size is None:
        made = made.arr.get(0) if kind.element is None else made.arr.to_list()
    of = view(source, {"id": (INT64, pl.col("T.id"))}, feature("f", kind, made, nullable=True))
    sent = [event(id=1, raw=base64.b64encode(signalling + struct.pack(code, 1.5)).decode())]
    (computed,) = compile_pipeline(source, [of]).run(records(sent)).rows
    ((_, pushed),) = PushEncoder(of).keys_and_values(computed.frame)
    (rows,) = run(records([pushed]), PushPipeline("shop", of)).rows
    assert stored(of, rows.frame.drop("_to")) == stored(of, computed.frame)
    assert math.isnan((computed.frame["f"].explode() if kind.element else computed.frame["f"])[0])


def test_the_views_of_the_demo_compute_from_pushes_what_they_compute_from_their_topics() -> None:
    definitions = load_definitions("schemas")
    for of in definitions.views:
        golden = [each for each in definitions.examples if each.topic == of.source.topic and of.name in each.rows]
        assert golden
        for each in golden:
            source = dataclasses.replace(
                records([each.value], keys=[each.key], headers=[each.headers], timestamps=[each.timestamp]),
                topic=of.source.topic,
            )
            frame = compile_pipeline(of.source, [of]).run(source).rows[0].frame
            pipeline, pushes = PushPipeline("flights", of), PushEncoder(of).keys_and_values(frame)
            taken = records([value for _, value in pushes], timestamps=[each.timestamp] * len(pushes))
            pushed = pipeline.run(taken).rows[0].frame.drop("_to")
            coordinates = ["_offset", "_row"]
            assert by_bits(pushed.drop(coordinates)) == by_bits(frame.drop(coordinates))


# Where rows go


def test_rows_for_the_offline_store_alone_are_in_the_files_and_not_in_redis() -> None:
    said = [b"offline", b"online", b"online_and_offline", b"offline"]
    batch = records(
        [final(customer=name, number=number) for number, name in enumerate("abac")],
        headers=[(("to", to),) for to in said],
    )
    (rows,) = run(batch).rows
    assert rows.frame["_to"].to_list() == ["offline", "online", "online_and_offline", "offline"]
    joined = Joined([batch])
    (joined_rows,) = joined.rows(PIPELINE.run(joined.records))
    (table,) = view_tables(joined_rows, view_schema(VIEW, pushed=True), "shop.push.V", [0], datetime.datetime.now(UTC))
    (batched,) = batch_tables([batch], [joined_rows], [view_schema(VIEW, pushed=True)], datetime.datetime.now(UTC))
    assert batched.views[0].offline_only == 2
    assert table.column_names[10:13] == ["_row", "_to", "_op"]
    encoder = ParquetEncoder()
    encoder.add(table)
    back = frame_of(read_table(encoder.finish()))
    for frame in (rows.frame, back):
        encoded, kept = ViewEncoder(VIEW, datetime.timedelta(0)).encode(frame, PartitionId("shop.push.V", 1, 0))
        assert encoded.keys == [b"s1:b", b"s1:a"]
        assert kept["number"].to_list() == [1, 2]


def test_the_newest_row_for_redis_is_the_newest_of_those_that_are_for_redis_in_each_batch() -> None:
    """What is joined is cut where its batches were, though rows between were left out."""
    said = {0: b"offline", 3: b"offline", 5: b"offline"}
    headers: list[Headers] = [(("to", said[number]),) if number in said else () for number in range(6)]
    whole = records([final(customer="ab"[number % 2], number=number) for number in range(6)], headers=headers)
    batches = [
        dataclasses.replace(take(whole, [0, 1, 2]), end=103),
        dataclasses.replace(take(whole, [3]), start=103, end=104),
        dataclasses.replace(take(whole, [4, 5]), start=104),
    ]
    joined = Joined(batches)
    (rows,) = joined.rows(PIPELINE.run(joined.records))
    sources = [PartitionId("shop.push.V", 1, 0)] * 3
    encoded = ViewEncoder(VIEW, datetime.timedelta(0)).encode_each(rows.frame, rows.cuts, sources)
    assert [kept["number"].to_list() for _, kept in encoded] == [[1, 2], [], [4]]
    assert [rows.keys for rows, _ in encoded] == [[b"s1:b", b"s1:a"], [], [b"s1:a"]]


# For producers


def test_a_producer_in_python_writes_rows_and_events_that_are_taken() -> None:
    encoder = PushEncoder(VIEW)
    at = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    row = encoder.final(
        {"customer": "a", "event_timestamp": at, "number": 2**63 - 1, "ratio": -math.inf, "small": -0.0, "feed": None},
        to=To.ONLINE,
        idempotency_key="k",
    )
    assert (row.key, row.headers) == (b"s1:a", (("to", b"online"), ("idempotency_key", b"k")))
    found = one(row.value, row.headers)
    assert isinstance(found, dict)
    assert (found["number"], found["ratio"], str(found["small"]), found["_to"]) == (
        2**63 - 1,
        -math.inf,
        "-0.0",
        "online",
    )
    sent = encoder.raw({"at": at, "customer": "a", "number": 4, "share": 1}, to=To.OFFLINE)
    assert sent.key is None
    found = one(sent.value, sent.headers)
    assert isinstance(found, dict)
    assert (found["ratio"], found["_to"]) == (0.25, "offline")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"nunber": 1}, "nunber: no field of V; there is customer, event_timestamp, number"),
        ({"number": True}, "number: expected int, got bool"),
        ({"number": 1.0}, "number: expected int, got float"),
        ({"ratio": "1"}, "ratio: expected int or float, got str"),
        (
            {"event_timestamp": datetime.datetime(2026, 1, 1)},
            "event_timestamp: the time 2026-01-01 00:00:00 has no",
        ),
        ({"customer": None}, "key customer: is missing or null"),
        ({"feed": "\ud800"}, "V: cannot be written in JSON"),
    ],
)
def test_what_cannot_be_a_row_is_refused_to_its_producer(fields: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        PushEncoder(VIEW).final({"customer": "a", "event_timestamp": NOW, "number": 1, **fields})


LISTS = view(
    topic(column("id", INT64), column("tags", list_of(STRING)), column("taste", vector_of(FLOAT32, 2))),
    {"id": (INT64, x("id"))},
    feature("tags", list_of(STRING), x("tags")),
    feature("taste", vector_of(FLOAT32, 2), x("taste")),
)


@pytest.mark.parametrize("taste", [[0.5, math.nan], (0.5, math.nan), np.array([0.5, math.nan], np.float32)])
def test_lists_are_taken_as_lists_tuples_and_arrays(taste: Any) -> None:
    row = PushEncoder(LISTS).final({"id": 1, "event_timestamp": NOW, "tags": ("a",), "taste": taste})
    assert json.loads(row.value) == {"id": 1, "event_timestamp": NOW, "tags": ["a"], "taste": [0.5, "NaN"]}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"tags": "a"}, "tags: expected a list, got str"),
        ({"tags": {"a"}}, "tags: expected a list, got set"),
        ({"tags": ["a", None]}, "tags: element 1: expected str, got NoneType"),
        ({"taste": [1, 2, 3]}, "taste: expected a list of exactly 2, got one of 3"),
        ({"taste": [1, True]}, "taste: element 1: expected int or float, got bool"),
    ],
)
def test_what_is_no_list_of_its_elements_is_refused_to_its_producer(fields: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        PushEncoder(LISTS).final({"id": 1, "event_timestamp": NOW, "tags": [], "taste": [1, 2], **fields})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"tags": ["a", None]}, "tags[1]: expected String (Unicode text), got null (at $.tags[1]); no element is null"),
        ({"tags": None}, "tags: expected List[String] (a list, each Unicode text), got null (at $.tags)"),
        (
            {"taste": [1]},
            "taste: expected Vector[Float32, 2] (a list of exactly 2, each a number within ±3.4028235e38, or",
        ),
        ({"taste": [1]}, "got a list of 1 (at $.taste)"),
        ({"taste": [1, "nan"]}, 'taste[1]: expected Float32 (a number within ±3.4028235e38, or "NaN"'),
        ({"taste": [[1, 2]]}, "taste[0]: expected Float32"),
    ],
)
def test_a_pushed_list_that_is_none_is_refused_with_the_place_of_its_element(
    fields: dict[str, object], error: str
) -> None:
    row = {"id": 1, "event_timestamp": NOW, "tags": [], "taste": [1, 2], **fields}
    said = one(json.dumps(row).encode(), pipeline=PushPipeline("shop", LISTS))
    assert isinstance(said, str)
    assert error in said


def test_times_of_raw_events_are_written_in_their_columns_unit() -> None:
    encoder = PushEncoder(EVERYTHING)
    at = datetime.datetime(2026, 1, 1, microsecond=5_000, tzinfo=UTC)
    assert msgspec.json.decode(encoder.raw({"when": at, "code": b"\x00"}).value) == {"when": NOW_MS + 5, "code": "AA=="}
    assert msgspec.json.decode(encoder.raw({"when": 17}).value) == {"when": 17}
    with pytest.raises(ValueError, match=r"when: the time .* is no whole number of ms"):
        encoder.raw({"when": at.replace(microsecond=1)})
    with pytest.raises(ValueError, match="long: expected a finite number, got nan"):
        encoder.raw({"long": math.nan})


def test_final_rows_are_named_by_keys_event_time_features_and_sequence() -> None:
    names = [each.name for each in final_topic("shop", VIEW).columns]
    assert names == ["customer", "event_timestamp", "number", "ratio", "small", "feed", "age_s", "_sequence"]


def test_what_raw_events_break_is_told_once_for_each_rule_whichever_version_they_are_of() -> None:
    """A producer may write to the topic itself: of what breaks a rule that stops, a worker must hear."""
    stops = Expectation(rule="<= 9", action="stop", holds=pl.col("number") <= 9)
    columns = tuple(
        each.model_copy(update={"expectations": (POSITIVE, stops)}) if each.name == "number" else each
        for each in SOURCE.columns
    )
    ruled = VIEW.model_copy(update={"source": SOURCE.model_copy(update={"columns": columns})})
    pipeline = PushPipeline("shop", ruled)
    assert pipeline.rules == (RuleId("number", "≥ 0", "reject"), RuleId("number", "<= 9", "stop"))
    older = headers_of(transform=True, version=7)
    batch = records(
        [final(number=99), raw(number=1), raw(number=50), raw(number=-1), raw(number=70)],
        headers=[(), older, TRANSFORM, TRANSFORM, older],
    )
    assert run(batch, pipeline).broken == (
        Broken(RuleId("number", "≥ 0", "reject"), 1, 0, 103, "-1"),
        Broken(RuleId("number", "<= 9", "stop"), 2, 0, 102, "50"),
    )
