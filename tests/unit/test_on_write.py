"""What an on-demand view computes when it is read is what a view that stores it computes when it is pushed, and what
comes of the same rows over history: to the bit, in whatever cut."""

import datetime
import json
import math
import pathlib
import random
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.pushing.batch import Push, ViewBatches
from stillwell.definitions.golden import check_examples
from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError, RequestError
from stillwell.on_demand import OnDemand, at_one_instant
from stillwell.pushing.on_write import on_write_topic
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import PushEncoder, To
from stillwell.reading.catalog import Catalog
from stillwell.reading.entities import typed
from stillwell.registry import register
from stillwell.spec import (
    AS_OF,
    DefinitionsSpec,
    EntitySpec,
    KeySpec,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
    ViewSpec,
)
from stillwell.testing.objects import MemoryStore
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, TIMESTAMP
from stillwell.wire import column as column_of
from tests.batches import NOW_MS, feature, records
from tests.computed import AGE_US, ASKED, OTHER, STORED, T

UTC = datetime.UTC
COMPUTED = OnDemandSpec(
    name="Computed",
    version=1,
    inputs=(STORED, OTHER, ASKED),
    features=(
        feature("ratio", FLOAT64, pl.col("Stored.amount") / 100 + pl.col("Asked.price") / 3.6, nullable=True),
        feature("apart", FLOAT64, pl.col("Stored.amount") - pl.col("Stored[id=Pair.left].amount"), nullable=True),
        feature("narrow", FLOAT32, pl.col("Stored.small") * 3, nullable=True),
        feature("age_h", FLOAT64, AGE_US / 3_600_000_000, nullable=True),
        feature("number", INT64, pl.col("Asked.text").cast(pl.Int64), nullable=True),
        feature("secret", BYTES, pl.col("Asked.secret"), nullable=True),
        feature("known", BOOL, pl.col("Stored.seen").is_not_null()),
        feature("due", TIMESTAMP, pl.col(AS_OF) + pl.duration(seconds=1)),
        feature("one", INT32, pl.lit(1, pl.Int32)),
    ),
)
OF = EntitySpec(name="Row", keys=(KeySpec(name="row", type=INT64),))


def stored(on_demand: OnDemandSpec = COMPUTED, name: str = "Kept") -> ViewSpec:
    """A view that stores all features of an on-demand view."""
    source = on_write_topic(name, OF, on_demand, on_demand.features)
    return ViewSpec(
        name=name,
        version=1,
        entity=OF,
        source=source,
        ttl=datetime.timedelta(0),
        features=on_demand.features,
        keys=(pl.col(source.qualified_name("row")),),
    )


# One object, three uses

FLOATS = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 8271.0, 1 / 3, 2.0**53 + 1]),
)
TIMES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2250, 1, 1), timezones=st.just(UTC))
"""Within those that an event time may have."""
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "Stored.amount": st.none() | FLOATS,
            "Stored.small": st.none() | st.floats(width=32),
            "Stored.seen": st.none() | TIMES,
            "Stored[id=Pair.left].amount": st.none() | FLOATS,
            "Asked.price": FLOATS,
            "Asked.text": st.none() | st.sampled_from(["7", "-3", "", "x", "9" * 30]),
            "Asked.secret": st.none() | st.binary(max_size=4),
            AS_OF: st.sampled_from([datetime.datetime(2026, 1, 1, 0, 0, 0, 123_457, UTC)]) | TIMES,
        }
    ),
    min_size=1,
    max_size=12,
)

Bits = tuple[object, ...]
"""A row's features, floats as their bits; or the place where it failed, by its feature."""


def bits(frame: pl.DataFrame) -> list[Bits]:
    """Each row of a frame that has the features, and perhaps more."""
    names = [each.name for each in COMPUTED.features]
    return [
        tuple(struct.pack(">d", value) if isinstance(value, float) else value for value in row)
        for row in frame.select(names).rows()
    ]


def computed(rows: pl.DataFrame, as_of: pl.Series) -> list[Bits]:
    """What the object makes of these rows, in their order: where it fails, the name of the feature."""
    given = OBJECT.compute(rows, as_of)
    failed = {each.position: (each.error.partition(":")[0],) for each in given.failures}
    made = iter(bits(given.frame))
    return [failed[place] if place in failed else next(made) for place in range(rows.height)]


OBJECT = OnDemand(COMPUTED)
KEPT = stored()
PIPELINE = PushPipeline("shop", KEPT, max_future=datetime.timedelta(days=100_000))
ENCODER = PushEncoder(KEPT)
CALLED = {KEPT.source.qualified(each): each.name for each in KEPT.source.columns}


def pushed(rows: pl.DataFrame) -> list[Bits]:
    """What a view makes of these rows as they are pushed, each with AS_OF as its event time."""
    values = [
        ENCODER.raw({"row": place, **{CALLED[name]: value for name, value in row.items()}}).value
        for place, row in enumerate(rows.rows(named=True))
    ]
    outcome = PIPELINE.run(records(values, headers=[(("transform_on_write", b"true"),)] * len(values), start=0))
    failed = {}
    for each in outcome.rejects:
        assert each.reason == "transform"
        failed[each.offset] = (each.error.split(": ")[1],)
    (given,) = outcome.rows
    assert given.frame.get_column("event_timestamp").to_list() == [
        at for place, at in enumerate(rows.get_column(AS_OF)) if place not in failed
    ]
    made = dict(zip(given.frame.get_column("row"), bits(given.frame), strict=True))
    return [failed[place] if place in failed else made[place] for place in range(rows.height)]


def frame_of(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    types = {**{name: kind.polars for name, kind in OBJECT.columns.items()}, AS_OF: TIMESTAMP.polars}
    return pl.DataFrame({name: pl.Series([row[name] for row in rows], dtype=kind) for name, kind in types.items()})


def cut(count: int, randomness: random.Random) -> list[list[int]]:
    """The places of so many rows, shuffled, in pieces."""
    places = randomness.sample(range(count), count)
    pieces = []
    while places:
        size = randomness.randint(1, 5)
        pieces.append(places[:size])
        places = places[size:]
    return pieces


def in_pieces(compute: Callable[[pl.DataFrame], list[Bits]], rows: pl.DataFrame, pieces: list[list[int]]) -> list[Bits]:
    """What comes of each row, computed in these pieces."""
    made = {place: given for piece in pieces for place, given in zip(piece, compute(rows[piece]), strict=True)}
    return [made[place] for place in range(rows.height)]


def read(rows: pl.DataFrame) -> list[Bits]:
    """What readers get, each set of rows asked for at one instant."""
    found: dict[int, Bits] = {}
    numbered = rows.with_row_index()
    for (at,), asked in numbered.group_by(AS_OF):
        assert isinstance(at, datetime.datetime)
        instant = (at - datetime.datetime(1970, 1, 1, tzinfo=UTC)) // datetime.timedelta(microseconds=1)
        places = asked.get_column("index").to_list()
        found |= zip(places, computed(asked, at_one_instant(instant, asked.height)), strict=True)
    return [found[place] for place in range(rows.height)]


@settings(max_examples=80, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_one_object_gives_the_same_bits_at_read_on_write_and_over_history(
    rows: list[dict[str, Any]], randomness: random.Random
) -> None:
    frame = frame_of(rows)
    once = read(frame)
    history = in_pieces(lambda piece: computed(piece, piece.get_column(AS_OF)), frame, cut(len(rows), randomness))
    assert history == once
    assert in_pieces(pushed, frame, cut(len(rows), randomness)) == once
    assert in_pieces(read, frame, cut(len(rows), randomness)) == once


def test_what_fails_at_read_is_a_dead_letter_on_write() -> None:
    """Else the test above might compare nothing but failures, or none."""
    row = {**dict.fromkeys(OBJECT.columns), "Asked.price": 1.0, AS_OF: datetime.datetime(2026, 1, 1, tzinfo=UTC)}
    rows = frame_of([row, {**row, "Asked.text": "x"}, {**row, "Asked.text": "7"}])
    given = pushed(rows)
    assert given == read(rows)
    assert given[1] == ("number",)
    assert given[2][4:] == (7, None, False, datetime.datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), 1)


@pytest.mark.parametrize(
    "text", ["3.4028235e38", "3.4028235677973366e38", "1e39", "-1e39", '"Infinity"', "0.1", "16777217"]
)
def test_a_float_of_32_bits_is_taken_in_a_request_where_it_is_taken_in_an_event(text: str) -> None:
    """One that is too large is a mistake in both, and an infinity in neither."""
    asked = RequestSpec(name="Asked", columns=(RequestColumnSpec(name="x", type=FLOAT32, nullable=False),))
    on_demand = OnDemandSpec(
        name="Narrow", version=1, inputs=(asked,), features=(feature("x", FLOAT32, pl.col("Asked.x"), nullable=True),)
    )
    value = f'{{"row": 1, "event_timestamp": "2026-01-01T00:00:00Z", "x": {text}}}'.encode()
    raw = records([value], headers=[(("transform_on_write", b"true"),)])
    (rows,) = PushPipeline("shop", stored(on_demand)).run(raw).rows
    definitions = DefinitionsSpec(entities=(), topics=(), views=(), requests=(asked,), on_demand=(on_demand,))
    catalog = Catalog(definitions)
    plan = catalog.plan(["Narrow:x"])
    if not rows.frame.height:
        with pytest.raises(RequestError, match=r"entities\.x\[0\]: must be Float32 \(a number within"):
            typed(plan, {"x": [json.loads(text)]}, catalog.keys)
        return
    given = column_of(FLOAT32, typed(plan, {"x": [json.loads(text)]}, catalog.keys)["x"])
    read = OnDemand(on_demand).compute(pl.DataFrame([given.alias("Asked.x")]), at_one_instant(0, 1))
    assert read.frame.get_column("x").to_list() == rows.frame.get_column("x").to_list()


# What is pushed


def test_what_is_read_is_called_by_its_name_and_qualified_where_two_share_one() -> None:
    assert [(each.name, each.nullable, each.read_as) for each in KEPT.source.columns] == [
        ("row", False, None),
        ("event_timestamp", False, "AS_OF"),
        ("Stored:amount", True, "Stored.amount"),
        ("small", True, "Stored.small"),
        ("seen", True, "Stored.seen"),
        ("Other:amount", True, "Stored[id=Pair.left].amount"),
        ("price", False, "Asked.price"),
        ("text", True, "Asked.text"),
        ("secret", True, "Asked.secret"),
        ("_sequence", True, None),
    ]


def test_a_field_that_is_called_like_a_key_is_qualified_too() -> None:
    asked = RequestSpec(name="Asked", columns=(RequestColumnSpec(name="row", type=INT64, nullable=False),))
    on_demand = COMPUTED.model_copy(
        update={"inputs": (asked,), "features": (feature("next", INT64, pl.col("Asked.row") + 1),)}
    )
    assert [each.name for each in stored(on_demand).source.columns][:3] == ["row", "event_timestamp", "Asked:row"]


def one(value: dict[str, object], *, raw: bool = True) -> dict[str, Any] | str:
    """The row that one push gives, or why it gives none."""
    headers = (("transform_on_write", b"true"),) if raw else ()
    outcome = PIPELINE.run(records([json.dumps(value).encode()], headers=[headers]))
    if outcome.rejects:
        return outcome.rejects[0].error
    return outcome.rows[0].frame.to_dicts()[0]


PUSH: dict[str, object] = {"row": 1, "event_timestamp": "2026-01-01T00:00:00Z", "price": 7.2}


def test_what_is_not_stored_can_be_left_out_and_what_a_request_must_bring_cannot() -> None:
    given = one({**PUSH, "Stored:amount": "Infinity", "_sequence": 3})
    assert isinstance(given, dict)
    assert (given["row"], given["ratio"], given["known"], given["_sequence"]) == (1, math.inf, False, 3)
    assert "price: expected Float64" in str(one({**PUSH, "price": None}))
    assert "event_timestamp: expected Timestamp" in str(one({"row": 1, "price": 1.0}))
    assert "a field 'amount' as well; did you mean" in str(one({**PUSH, "amount": 1.0}))


def test_final_rows_are_taken_too() -> None:
    row = {name: PUSH[name] for name in ("row", "event_timestamp")}
    final = {"known": True, "due": "2026-01-01T00:00:01Z", "one": 5}
    given = one({**row, **final}, raw=False)
    assert isinstance(given, dict)
    assert (given["one"], given["ratio"]) == (5, None)
    assert "price" in str(one({**PUSH, **final}, raw=False))


def test_what_a_service_has_computed_another_version_of_the_view_computes_anew() -> None:
    """A worker of the same version takes the row, one of another version what it was computed from."""
    batches = ViewBatches("shop", KEPT, datetime.timedelta(0), datetime.timedelta(hours=1))
    batch = batches.judge([Push("Kept", [json.dumps(PUSH).encode()], transform=True, to=To.BOTH)], NOW_MS)
    (made,) = batch.records
    assert (json.loads(made.value)["ratio"], dict(made.headers)["version"]) == (None, b"1")
    doubled = COMPUTED.model_copy(update={"features": (feature("twice", FLOAT64, pl.col("Asked.price") * 2),)})
    other = PushPipeline("shop", stored(doubled).model_copy(update={"version": 2}))
    (rows,) = other.run(records([made.value], headers=[made.headers])).rows
    assert rows.frame.get_column("twice").to_list() == [14.4]


def test_another_formula_needs_another_version() -> None:
    """The registry compares what comes of recorded pushes."""

    def definitions(view: ViewSpec) -> DefinitionsSpec:
        return DefinitionsSpec(entities=(OF,), topics=(T,), views=(view,))

    store = MemoryStore()
    assert register(store, definitions(KEPT), datetime.timedelta(0)) == []
    assert register(store, definitions(KEPT), datetime.timedelta(0)) == []
    first, *rest = COMPUTED.features
    changed = first.model_copy(update={"expression": first.expression + 1})  # type: ignore[operator]
    other = stored(COMPUTED.model_copy(update={"features": (changed, *rest)}))
    with pytest.raises(DefinitionError, match=r"gives ratio=.* Asked.price=.*; raise version=2"):
        register(store, definitions(other), datetime.timedelta(0))
    register(store, definitions(other.model_copy(update={"version": 2})), datetime.timedelta(0))


# Definitions

CARDS = """\
from datetime import timedelta
from stillwell import *

class Card(Entity):
    card: Key[String]

class Transfer(Entity):
    payer: Key[String]
    payee: Key[String]

class Payment(Topic, name="cards.payments", event_time="paid_at"):
    paid_at: Col[Timestamp]
    card: Col[String]
    cents: Col[Int64]

class LastPayment(View, source=Payment, entity=Card, keys={"card": Payment.card}, ttl=timedelta(days=1)):
    cents: Feature[Int64] = feature(Payment.cents)

Payer = LastPayment.at(card=Transfer.payer)
Payee = LastPayment.at(card=Transfer.payee)

class Attempt(Request):
    attempted_cents: Col[Int64]

class Risk(OnDemandView, inputs=(LastPayment, Attempt)):
    surge: Feature[Float64 | None] = feature(Attempt.attempted_cents / LastPayment.cents, description="times larger")
    large: Feature[Bool] = feature(Attempt.attempted_cents > 100)

class Apart(OnDemandView, inputs=(Payer, Payee)):
    more: Feature[Int64 | None] = feature(Payer.cents - Payee.cents)
"""

Load = Callable[[str], DefinitionsSpec]


@pytest.fixture
def load(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a module of these definitions and more."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def load(more: str) -> DefinitionsSpec:
        sys.modules.pop("kept", None)
        (tmp_path / "kept.py").write_text(CARDS + more)
        return load_definitions("kept", tmp_path)

    yield load
    sys.modules.pop("kept", None)


def test_a_view_without_features_has_all_that_its_on_demand_view_has(load: Load) -> None:
    definitions = load(
        "class Kept(View, source=Risk, entity=Card, ttl=timedelta(1)):\n    pass\n"
        "class Both(FeatureService, features=(Kept, LastPayment.cents)):\n    pass\n"
        "class Later(OnDemandView, inputs=(Kept,)):\n"
        "    surged: Feature[Bool] = feature((Kept.surge > 2).fill_null(False))\n"
    )
    _, kept = definitions.views
    assert [(each.name, each.nullable, each.description) for each in kept.features] == [
        ("surge", True, "times larger"),
        ("large", False, ""),
    ]
    assert definitions.services[0].features == ("Kept:surge", "Kept:large", "LastPayment:cents")
    assert (kept.source.name, kept.source.topic) == ("Risk", "push/Kept")
    assert definitions.views_of(definitions.topics[0]) == definitions.views[:1]


def test_a_view_has_those_of_them_that_it_names_under_its_own_names(load: Load) -> None:
    definitions = load(
        "class Kept(View, source=Risk, entity=Card, ttl=timedelta(1), version=3):\n"
        "    big: Feature[Bool | None] = feature(Risk.large, description='more than a euro')\n"
    )
    kept = definitions.views[1]
    assert [(each.name, each.nullable, each.description) for each in kept.features] == [
        ("big", True, "more than a euro")
    ]
    assert [each.name for each in kept.source.columns] == ["card", "event_timestamp", "attempted_cents", "_sequence"]
    assert kept.version == 3


def test_what_is_pushed_is_called_by_the_names_that_aliases_get(load: Load) -> None:
    definitions = load(
        "class Kept(View, source=Apart, entity=Transfer, ttl=timedelta(1)):\n    pass\n"
        "class Further(OnDemandView, inputs=(Kept,)):\n    twice: Feature[Int64 | None] = feature(Kept.more * 2)\n"
    )
    kept = definitions.views[1]
    assert [each.name for each in kept.source.columns] == [
        "payee",
        "payer",
        "event_timestamp",
        "Payer:cents",
        "Payee:cents",
        "_sequence",
    ]
    (further,) = (each for each in definitions.on_demand if each.name == "Further")
    assert further.inputs == (kept,)


HEAD = "class Kept(View, source=Risk, entity=Card, ttl=timedelta(1)"
MISTAKES = {
    "a feature without an expression": (
        f"{HEAD}):\n    surge: Feature[Float64 | None]\n",
        "Kept.surge does not say which feature of Risk it is; write `= feature(Risk.surge)`",
    ),
    "a feature that has another name": (
        f"{HEAD}):\n    surges: Feature[Float64 | None]\n",
        "Kept.surges does not say which feature of Risk it is; write `= feature(Risk.surge)`; did you mean 'surge'?",
    ),
    "a feature that is computed": (
        f"{HEAD}):\n    surge: Feature[Float64 | None] = feature(Risk.surge * 2)\n",
        "Kept.surge is not a feature of Risk as it stands, and its source is that on-demand view; compute in Risk, and",
    ),
    "a feature of another": (
        f"{HEAD}):\n    cents: Feature[Int64] = feature(LastPayment.cents)\n",
        "Kept.cents is not a feature of Risk as it stands",
    ),
    "another type": (
        f"{HEAD}):\n    surge: Feature[Float32 | None] = feature(Risk.surge)\n",
        "Kept.surge is declared Float32 | None, but Risk.surge is Float64 | None; declare Feature[Float64 | None]",
    ),
    "never null": (
        f"{HEAD}):\n    surge: Feature[Float64] = feature(Risk.surge)\n",
        "Kept.surge is declared Float64, but Risk.surge is Float64 | None; declare Feature[Float64 | None]",
    ),
    "keys": (
        f"{HEAD}, keys={{'card': Payment.card}}):\n    pass\n",
        "Kept has keys=…, but what is pushed for Risk brings the keys by their names; take keys=… away",
    ),
    "where": (
        f"{HEAD}, where=Risk.large):\n    pass\n",
        "Kept has where=…, but its source Risk is an on-demand view: every push counts; take where=… away",
    ),
    "a function": (
        f"{HEAD}):\n    @rows\n    def all_of_it(event): yield {{}}\n",
        "Kept has the @rows function all_of_it, but Risk computes its features; take it away",
    ),
    "a feature that is called like a key": (
        f"{HEAD}):\n    card: Feature[Bool] = feature(Risk.large)\n",
        "Kept.card has the name of Card's key card; rename the feature",
    ),
    "a source that is none": (
        "class Kept(View, source=Attempt, entity=Card, ttl=timedelta(1)):\n    pass\n",
        "give a class that derives from Topic, or an on-demand view to store the features of",
    ),
    "an on-demand view of elsewhere": (
        "Risk.__module__ = 'elsewhere'\n" + HEAD + "):\n    pass\n",
        "Kept reads Risk of elsewhere, which is no module of these definitions",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_class_field_and_fix(load: Load, mistake: str) -> None:
    text, says = MISTAKES[mistake]
    with pytest.raises(DefinitionError) as refused:
        load(text)
    assert any(says in message and "kept.py:" in message for message in refused.value.args), refused.value.args


# Golden examples

KEPT_CARDS = f"{HEAD}):\n    pass\n"


def example(folder: pathlib.Path, **fields: object) -> None:
    file = folder / "example.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"about": "A case.", "timestamp": "2026-01-01T00:00:00Z", **fields}))


RAW = {"card": "c", "event_timestamp": "2026-01-01T00:00:00Z", "cents": 50, "attempted_cents": 200}
ROW = {"card": "c", "event_timestamp": "2026-01-01T00:00:00Z", "surge": 4.0, "large": True}
TRANSFORM = {"transform_on_write": "true"}


@pytest.mark.parametrize(("headers", "value"), [(TRANSFORM, RAW), ({"to": "offline"}, ROW)], ids=["raw", "final"])
def test_an_example_is_pushed_to_its_view(load: Load, tmp_path: pathlib.Path, headers: object, value: object) -> None:
    example(tmp_path / "golden/push/Kept", headers=headers, value=value, rows={"Kept": [ROW]})
    definitions = load(KEPT_CARDS)
    assert [each.topic for each in definitions.examples] == ["push/Kept"]
    assert check_examples(definitions) == ()
    example(tmp_path / "golden/push/Kept", headers=headers, value=value, rows={"Kept": [{**ROW, "surge": 4.5}]})
    (found,) = check_examples(load(KEPT_CARDS))
    assert "golden/push/Kept/example.json: expects of Kept card='c'" in found


def test_a_view_of_a_topic_has_examples_of_pushes_too(load: Load, tmp_path: pathlib.Path) -> None:
    raw = {"paid_at": "2026-01-01T00:00:00Z", "card": "c", "cents": 5}
    row = {"card": "c", "event_timestamp": "2026-01-01T00:00:00Z", "cents": 5}
    example(tmp_path / "golden/push/LastPayment", headers=TRANSFORM, value=raw, rows={"LastPayment": [row]})
    assert check_examples(load("")) == ()
    rejects = [{"reason": "decode", "says": "did you mean 'cents'?"}]
    example(tmp_path / "golden/push/LastPayment", headers=TRANSFORM, value={**raw, "cent": 5}, rejects=rejects)
    assert check_examples(load("")) == ()
    example(tmp_path / "golden/push/LastPayment", headers={"to": "both"}, value=row, rejects=rejects)
    assert len(check_examples(load(""))) == 2


def test_an_example_that_is_pushed_to_nobody_is_refused(load: Load, tmp_path: pathlib.Path) -> None:
    example(tmp_path / "golden/push/Kepd", value=ROW)
    with pytest.raises(DefinitionError, match=r"is pushed to 'Kepd', a view that nobody defines; did you mean"):
        load(KEPT_CARDS)


def test_a_view_is_tried_on_the_raw_examples_of_what_is_pushed(load: Load, tmp_path: pathlib.Path) -> None:
    """A value that only an example has shows a formula that looks at its neighbours."""
    example(tmp_path / "golden/push/Kept", headers=TRANSFORM, value={**RAW, "attempted_cents": 424_242})
    definitions = load(KEPT_CARDS)
    store = MemoryStore()
    register(store, definitions, datetime.timedelta(0))
    document = json.loads(store.read("_registry/Kept/1.json"))
    names = [each["name"] for each in document["behaviour"]["columns"]]
    assert document["behaviour"]["events"][0][names.index("attempted_cents")] == 424_242
