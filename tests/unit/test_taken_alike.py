"""What a request may bring is what a pushed row may bring, and means the same: features are computed from both, and
rows are found by what they were written under."""

import struct
from collections.abc import Sequence

import msgspec
import polars as pl
import pytest

from stillwell.decode import Decoder
from stillwell.errors import RequestError
from stillwell.layout.entity_key import entity_keys
from stillwell.pushing.on_write import on_write_topic
from stillwell.reading import entities
from stillwell.reading.catalog import Catalog
from stillwell.reading.plan import Plan
from stillwell.spec import (
    DefinitionsSpec,
    EntitySpec,
    KeySpec,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
    TopicSpec,
    ViewSpec,
)
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
from stillwell.wire import python_values
from tests.batches import column, feature, records, topic, view

SCALARS = (BOOL, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, TIMESTAMP)
KINDS = (*SCALARS, *map(list_of, SCALARS), *(vector_of(kind, 2) for kind in SCALARS))

TEXTS = (
    *("null", "true", "[1]", "{}", "0", "-0", "1", "-1", "1.0", "1.5", "0.1", "1e2", "2147483648", "-2147483649"),
    *("9223372036854775807", "9223372036854775808", "1" + "0" * 400, "1e400", "-1e400", "1e39", "3.4028235e38"),
    *('""', '"1"', '"1.5"', '"nan"', '"inf"', '"+Infinity"', '"NaN"', '"Infinity"', '"-Infinity"', '"NaN\\n"'),
    *('"NaN:7ff8000000000001"', '"NaN:fff8000000000000"', '"NaN:7ff0000000000001"', '"NaN:7FF8000000000001"'),
    *('"a"', '"\\u0000"', '"\\ud800"', '"aGk="', '"aGk"', '"aGl="', '"aGk=="', '"aGk=\\n"', '"aG k="', '"-_8="'),
    *('"2026-01-31T12:00:00Z"', '"2026-01-31T12:00:00.1234567Z"', '"2026-01-31T12:00:00"', '"2026-01-31 12:00:00Z"'),
    *('"2026-01-31T12:00Z"', '"2026-01-31T24:00:00Z"', '"2026-01-31T12:00:60Z"', '"2026-01-31T12:00:00+05:30"'),
    *('"0001-01-01T00:00:00+05:00"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59-05:00"', '"9999-12-31T23:59:59Z"'),
)


LISTS = (
    *("[]", "[null]", "[[1]]", "[[]]", "{}", "null", '""', "1", '{"0": 1}'),
    *(f"[{text}]" for text in TEXTS if text not in ("[1]", "{}")),
    *(f"[{text}, {text}]" for text in TEXTS if text not in ("[1]", "{}")),
    *(f"[{text}, null]" for text in ("1", "1.5", '"a"', "true", '"aGk="', '"2026-01-31T12:00:00Z"', '"NaN"')),
    *("[1, 2, 3]", "[1.5, 2.5, 3.5]", '["a", "b", "c"]', "[true, false, true]", '["aGk=", "aGk=", "aGk="]'),
)


def texts_of(kind: FieldType) -> Sequence[str]:
    """What is tried for a type."""
    return TEXTS if kind.element is None else LISTS


def read_in_a_request(kind: FieldType) -> tuple[RequestSpec, OnDemandSpec]:
    """A request, and a feature that is what it says."""
    asked = RequestSpec(name="Asked", columns=(RequestColumnSpec(name="x", type=kind, nullable=False),))
    same = feature("x", kind, pl.col("Asked.x"), nullable=True)
    return asked, OnDemandSpec(name="Same", version=1, inputs=(asked,), features=(same,))


def found_by(kind: FieldType) -> ViewSpec:
    """A view of `T`, whose rows are found by this column of it."""
    return view(topic(column("x", kind)), {"x": (kind, pl.col("T.x"))}, feature("one", INT32, pl.lit(1, pl.Int32)))


def decoded(source: TopicSpec, event_time: str, text: str) -> pl.DataFrame:
    """An event's columns, without a row where it is refused."""
    event = f'{{"row": 1, "{event_time}": "2026-01-01T00:00:00Z", "x": {text}}}'
    return Decoder(source).decode(records([event.encode()])).frame


def asked_for(plan: Plan, catalog: Catalog, text: str) -> Sequence[object] | None:
    """The column that a request brings, None where it is refused."""
    try:
        return entities.typed(plan, {"x": [msgspec.json.decode(text)]}, catalog.keys)["x"]
    except (RequestError, msgspec.DecodeError):
        return None


def bits(kind: FieldType, values: pl.Series) -> list[object]:
    """The values, floats as their bits."""
    return list(map(bits_of, python_values(kind, values)))


def bits_of(value: object) -> object:
    """One value, or the elements of a list."""
    if isinstance(value, list):
        return list(map(bits_of, value))
    return struct.pack(">d", value) if isinstance(value, float) else value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_request_value_is_taken_where_a_pushed_one_is_and_has_its_bits(kind: FieldType) -> None:
    asked, same = read_in_a_request(kind)
    source = on_write_topic(
        "Kept", EntitySpec(name="Row", keys=(KeySpec(name="row", type=INT64),)), same, same.features
    )
    catalog = Catalog(DefinitionsSpec(entities=(), topics=(), views=(), requests=(asked,), on_demand=(same,)))
    plan = catalog.plan(["Same:x"])
    taken = 0
    for text in texts_of(kind):
        written = bits(kind, decoded(source, "event_timestamp", text).get_column("Asked.x"))
        assert bits(kind, column_of(kind, asked_for(plan, catalog, text) or [])) == written, text
        taken += len(written)
    assert 0 < taken < len(texts_of(kind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.key_tag], ids=lambda kind: kind.name)
def test_a_key_is_taken_where_a_pushed_one_is_and_finds_its_row(kind: FieldType) -> None:
    of = found_by(kind)
    catalog = Catalog(DefinitionsSpec(entities=(of.entity,), topics=(of.source,), views=(of,)))
    plan = catalog.plan(["V:one"])
    taken = 0
    for text in TEXTS:
        written = entity_keys(decoded(of.source, "at", text).rename({"T.x": "x"}), of.entity.keys)
        try:
            read = entities.keys(plan.lookups[0], {"x": asked_for(plan, catalog, text) or []})
        except RequestError:
            read = []
        assert read == written, text
        taken += len(written)
    assert 0 < taken < len(TEXTS)


def test_a_time_beyond_those_years_is_refused_by_name() -> None:
    of = found_by(TIMESTAMP)
    catalog = Catalog(DefinitionsSpec(entities=(of.entity,), topics=(of.source,), views=(of,)))
    times = {"x": ["2026-01-31T12:00:00Z", "0001-01-01T00:00:00+05:00"]}
    with pytest.raises(
        RequestError, match=r"entities\.x\[1\]: must be Timestamp \(a time with a zone in the years 1 to 9999"
    ):
        entities.typed(catalog.plan(["V:one"]), times, catalog.keys)
