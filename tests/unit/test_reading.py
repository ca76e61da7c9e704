"""Reading by a plan: aliases, on-demand features, objectives; each value with its honest status."""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from stillwell.errors import NotDefined, RequestError
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.reading.catalog import Catalog
from stillwell.reading.entities import row_count, typed
from stillwell.reading.features import FeatureColumn, FeatureReader, Found
from stillwell.reading.plan import Kind
from stillwell.reading.status import Freshness, Status
from stillwell.spec import (
    AS_OF,
    AliasSpec,
    DefinitionsSpec,
    EntitySpec,
    FeatureServiceSpec,
    KeySpec,
    OnDemandInput,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
    ViewSpec,
)
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
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
from tests.batches import NOW_MS, column, event, feature, records, topic, view

HOUR = datetime.timedelta(hours=1)
SECOND = 1_000_000
NOW_US = NOW_MS * 1_000
T = topic(column("id", INT64), column("airport", STRING), column("amount", FLOAT64, nullable=True))

AIRPORT = EntitySpec(name="Airport", keys=(KeySpec(name="airport", type=STRING),))
ROUTE = EntitySpec(name="Route", keys=(KeySpec(name="dest", type=STRING), KeySpec(name="origin", type=STRING)))


def _view(
    name: str, *features: Any, ttl: datetime.timedelta = HOUR, freshness: datetime.timedelta | None = None
) -> ViewSpec:
    made = view(T, {"airport": (STRING, pl.col("T.airport"))}, *features, name=name)
    return made.model_copy(update={"entity": AIRPORT, "ttl": ttl, "freshness": freshness})


AMOUNT = feature("amount", FLOAT64, pl.col("T.amount"), nullable=True)
LEFT = feature("left", TIMESTAMP, pl.col("T.at"))
NAME = feature("name", STRING, pl.col("T.airport"))
DEPARTURES = _view("Departures", LEFT, AMOUNT, NAME, freshness=HOUR / 2)
WEATHER = _view("Weather", AMOUNT, ttl=datetime.timedelta(0))
ORIGIN = AliasSpec(name="Origin", view=DEPARTURES, entity=ROUTE, keys={"airport": "origin"})
DEST = AliasSpec(name="Dest", view=DEPARTURES, entity=ROUTE, keys={"airport": "dest"})


def _asked(name: str, kind: FieldType, *, nullable: bool = False) -> RequestColumnSpec:
    return RequestColumnSpec(name=name, type=kind, nullable=nullable)


SEARCH = RequestSpec(
    name="Search",
    columns=(
        _asked("price", FLOAT64),
        _asked("seats", INT32, nullable=True),
        _asked("when", TIMESTAMP),
        _asked("note", STRING, nullable=True),
        _asked("raw", BYTES),
        _asked("direct", BOOL),
    ),
)


def _on_demand(name: str, inputs: Sequence[OnDemandInput], **features: tuple[FieldType, pl.Expr]) -> OnDemandSpec:
    return OnDemandSpec(
        name=name,
        version=1,
        inputs=tuple(inputs),
        features=tuple(feature(each, kind, expression, nullable=True) for each, (kind, expression) in features.items()),
    )


def _of(alias: AliasSpec, name: str) -> pl.Expr:
    return pl.col(f"{alias.qualifier}.{name}")


def _seconds(span: pl.Expr) -> pl.Expr:
    return span.dt.total_seconds()


WAITING = _on_demand(
    "Waiting",
    (DEPARTURES, SEARCH),
    quiet_s=(INT64, _seconds(pl.col(AS_OF) - pl.col("Departures.left"))),
    dear=(FLOAT64, pl.col("Departures.amount").fill_null(0.0) + pl.col("Search.price")),
    ahead_s=(INT64, _seconds(pl.col("Search.when") - pl.col(AS_OF))),
    next=(TIMESTAMP, pl.col("Departures.left") + pl.duration(hours=1)),
    hour=(INT32, pl.col(AS_OF).dt.hour().cast(pl.Int32)),
    parsed=(INT64, pl.col("Search.note").cast(pl.Int64)),
)
BETWEEN = _on_demand(
    "Between",
    (ORIGIN, DEST, SEARCH),
    apart=(FLOAT64, _of(ORIGIN, "amount") - _of(DEST, "amount")),
    many=(BOOL, pl.col("Search.seats") > 3),
)
SKY = _on_demand("Sky", (DEPARTURES, WEATHER), sum=(FLOAT64, pl.sum_horizontal("Departures.amount", "Weather.amount")))
DEFINITIONS = DefinitionsSpec(
    entities=(AIRPORT, ROUTE),
    topics=(T,),
    views=(DEPARTURES, WEATHER),
    aliases=(ORIGIN, DEST),
    requests=(SEARCH,),
    on_demand=(WAITING, BETWEEN, SKY),
    services=(FeatureServiceSpec(name="Trip", features=("Origin:amount", "Between:apart", "Waiting:hour")),),
)
P, N, M, OLD = Status.PRESENT, Status.NULL_VALUE, Status.NOT_FOUND, Status.OUTSIDE_MAX_AGE


class Reading:
    """A reader over a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryOnlineStore(MemoryRedis(clock=lambda: NOW_MS))
        self.now_us = NOW_US
        self.catalog = Catalog(DEFINITIONS)
        self._reader = FeatureReader(self.store, RedisKeys("test", "test"), lambda: self.now_us)
        self.keys_read: list[int] = []

    async def put(self, *events: Mapping[str, object], views: Sequence[ViewSpec] = (DEPARTURES, WEATHER)) -> None:
        """Have the rows of these events in the store."""
        epoch = await self.store.initialise("epoch")
        made = compile_pipeline(T, views).run(records([event(**{"id": 1, **each}) for each in events]))
        assert made.rejects == ()
        for each, rows in zip(views, made.rows, strict=True):
            encoded, _ = ViewEncoder(each, HOUR).encode(rows.frame, PartitionId("t", 1, 0))
            await self.store.put(encoded, epoch)

    async def read(self, *references: str, **entities: Sequence[object]) -> dict[str, FeatureColumn]:
        """The columns of an answer, by reference."""
        plan = self.catalog.plan(references)
        row_count(entities, 100)
        found: Found = await self._reader.read(plan, typed(plan, entities, self.catalog.keys))
        assert found.at_us == self.now_us
        return {each.output.reference: each for each in found.columns}


@pytest.fixture
async def reading() -> Reading:
    made = Reading()
    await made.store.initialise("epoch")
    return made


def values(column: FeatureColumn) -> list[tuple[object, Status]]:
    assert len(column.values) == len(column.statuses) == len(column.event_times)
    return list(zip(column.values, column.statuses, strict=True))


# Aliases


async def test_an_alias_is_looked_up_by_the_keys_that_lead_to_it(reading: Reading) -> None:
    await reading.put({"airport": "JFK", "amount": 1.0}, {"airport": "EWR", "amount": 2.0})
    found = await reading.read("Origin:amount", "Dest:amount", origin=["EWR", "JFK", "EWR"], dest=["JFK", "XXX", "EWR"])
    assert values(found["Origin:amount"]) == [(2.0, P), (1.0, P), (2.0, P)]
    assert values(found["Dest:amount"]) == [(1.0, P), (None, M), (2.0, P)]


async def test_an_alias_and_its_view_stand_beside_each_other(reading: Reading) -> None:
    await reading.put({"airport": "JFK", "amount": 1.0}, {"airport": "EWR", "amount": 2.0})
    found = await reading.read("Departures:amount", "Origin:amount", airport=["JFK"], origin=["EWR"])
    assert [values(each) for each in found.values()] == [[(1.0, P)], [(2.0, P)]]


def test_an_alias_needs_only_the_keys_that_lead_to_it(reading: Reading) -> None:
    plan = reading.catalog.plan(["Origin:amount"])
    assert dict(plan.columns) == {"origin": STRING}
    assert [(each.view, each.name, each.reference) for each in plan.outputs] == [("Origin", "amount", "Origin:amount")]


# On-demand features


async def test_a_feature_is_computed_from_stored_ones_the_request_and_the_instant(reading: Reading) -> None:
    await reading.put({"airport": "JFK", "amount": 1.5}, {"airport": "EWR"})
    reading.now_us += 90 * SECOND
    found = await reading.read(
        "Waiting:quiet_s",
        "Waiting:dear",
        "Waiting:ahead_s",
        "Waiting:next",
        airport=["JFK", "EWR", "JFK"],
        price=[10, 0.25, "Infinity"],
        when=["2026-01-01T00:02:00Z", "2026-01-01T01:00:30+01:00", "2026-01-01T00:00:00Z"],
    )
    assert values(found["Waiting:quiet_s"]) == [(90, P)] * 3
    assert values(found["Waiting:dear"]) == [(11.5, P), (0.25, P), (float("inf"), P)]
    assert values(found["Waiting:ahead_s"]) == [(30, P), (-60, P), (-90, P)]
    assert values(found["Waiting:next"]) == [(NOW_US + 3_600 * SECOND, P)] * 3
    assert found["Waiting:quiet_s"].event_times == [NOW_US] * 3
    assert found["Waiting:quiet_s"].event_times is found["Waiting:dear"].event_times


async def test_what_is_not_there_is_null_to_expressions_and_the_status_says_why(reading: Reading) -> None:
    await reading.put({"airport": "OLD", "amount": 5.0, "at": "2025-12-31T22:59:59Z"}, {"airport": "NUL"})
    asked: dict[str, Sequence[object]] = {"airport": ["OLD", "NUL", "XXX"], "price": [1.0, 2.0, 3.0]}
    found = await reading.read("Waiting:quiet_s", "Waiting:dear", "Departures:amount", **asked)
    assert values(found["Departures:amount"]) == [(5.0, OLD), (None, N), (None, M)]
    assert values(found["Waiting:quiet_s"]) == [(None, OLD), (0, P), (None, M)]
    assert values(found["Waiting:dear"]) == [(1.0, OLD), (2.0, P), (3.0, M)]
    assert found["Waiting:dear"].event_times == [NOW_US - 3601 * SECOND, NOW_US, None]


async def test_of_several_inputs_one_that_is_there_is_enough_and_one_past_its_age_too_many(reading: Reading) -> None:
    await reading.put({"airport": "BOTH", "amount": 1.0})
    await reading.put({"airport": "OLD", "amount": 5.0, "at": "2025-12-31T22:30:00Z"})
    await reading.put({"airport": "WET", "amount": 7.0}, views=[WEATHER])
    found = await reading.read("Sky:sum", airport=["BOTH", "OLD", "WET", "XXX"])
    assert values(found["Sky:sum"]) == [(2.0, P), (5.0, OLD), (7.0, P), (0.0, M)]
    assert found["Sky:sum"].event_times == [NOW_US, NOW_US - 5400 * SECOND, NOW_US, None]


async def test_the_event_time_is_the_oldest_that_was_read(reading: Reading) -> None:
    await reading.put({"airport": "A", "amount": 1.0, "at": "2025-12-31T23:50:00Z"}, {"airport": "B", "amount": 3.0})
    found = await reading.read("Between:apart", origin=["B", "A"], dest=["A", "A"])
    assert values(found["Between:apart"]) == [(2.0, P), (0.0, P)]
    assert found["Between:apart"].event_times == [NOW_US - 600 * SECOND] * 2


async def test_a_feature_of_request_values_alone_needs_no_row_and_has_no_event_time(reading: Reading) -> None:
    found = await reading.read("Between:many", seats=[4, 2, None])
    assert values(found["Between:many"]) == [(True, P), (False, P), (None, N)]
    assert found["Between:many"].event_times == [None] * 3
    assert found["Between:many"].freshness is None


async def test_a_feature_of_the_instant_alone_is_there_for_every_entity(reading: Reading) -> None:
    for count in (0, 1, 3):
        found = await reading.read("Waiting:hour", airport=["JFK"] * count)
        assert values(found["Waiting:hour"]) == [(0, P)] * count


async def test_order_and_names_are_those_of_the_request_and_inputs_stay_hidden(reading: Reading) -> None:
    await reading.put({"airport": "JFK", "amount": 1.0})
    asked = ("Waiting:dear", "Departures:name", "Sky:sum", "Waiting:quiet_s")
    found = await reading.read(*asked, airport=["JFK"], price=[1.0])
    assert tuple(found) == asked
    plan = reading.catalog.plan(asked)
    assert [each.view.name for each in plan.lookups] == ["Departures", "Weather"]
    assert [each.kind for each in plan.outputs] == [Kind.COMPUTED, Kind.STORED, Kind.COMPUTED, Kind.COMPUTED]
    assert plan.required == ("airport", "price")


async def test_one_row_has_the_bits_that_it_has_among_others(reading: Reading) -> None:
    await reading.put(*({"airport": f"A{number}", "amount": number / 7} for number in range(40)))
    airports, prices = [f"A{number}" for number in range(40)], [number / 3 for number in range(40)]
    together = (await reading.read("Waiting:dear", airport=airports, price=prices))["Waiting:dear"].values
    for number in range(40):
        alone = await reading.read("Waiting:dear", airport=airports[number : number + 1], price=[prices[number]])
        assert alone["Waiting:dear"].values == [together[number]]


async def test_features_without_an_on_demand_one_compute_nothing(reading: Reading) -> None:
    plan = reading.catalog.plan(["Departures:amount", "Origin:amount"])
    assert plan.computations == ()
    assert dict(plan.request_columns) == {}


async def test_an_entity_of_which_an_expression_makes_nothing_is_named(reading: Reading) -> None:
    with pytest.raises(
        RequestError, match=r"^entities\[1\]: Waiting cannot be computed: parsed: InvalidOperationError"
    ):
        await reading.read("Waiting:parsed", note=["7", "x", None])


async def test_rows_from_before_a_feature_count_as_absent(reading: Reading) -> None:
    older = DEPARTURES.model_copy(update={"features": (LEFT, NAME), "version": 0})
    reading.catalog = Catalog(DEFINITIONS, [older])
    await reading.put({"airport": "JFK"}, views=[older])
    found = await reading.read("Waiting:dear", "Waiting:quiet_s", airport=["JFK"], price=[1.0])
    assert values(found["Waiting:dear"]) == [(1.0, M)]
    assert values(found["Waiting:quiet_s"]) == [(0, P)]


# Request values


GOOD: dict[str, Sequence[object]] = {"airport": ["JFK"], "price": [1.0]}


@pytest.mark.parametrize(
    ("reference", "entities", "message"),
    [
        (
            "Waiting:dear",
            {"airport": ["JFK"]},
            "entities.price: is missing; the features asked for need airport, price",
        ),
        ("Waiting:dear", {**GOOD, "price": [None]}, "entities.price[0]: must be Float64 (a number), not null"),
        (
            "Waiting:dear",
            {**GOOD, "price": ["1"]},
            'entities.price[0]: must be Float64 (a number), not the text "1"; write 1, without quotes',
        ),
        ("Waiting:dear", {**GOOD, "price": [True]}, "entities.price[0]: must be Float64 (a number), not true"),
        ("Waiting:dear", {**GOOD, "price": [1.0, 2.0]}, "entities: every column must have a value for each entity"),
        ("Waiting:dear", {**GOOD, "pric": [1.0]}, "entities.pric: is no key of any entity; did you mean 'price'?"),
        (
            "Between:many",
            {"seats": [1, 2**31]},
            "entities.seats[1]: must be Int32 (a whole number from -2147483648 to 2147483647), not the ",
        ),
        ("Between:many", {"seats": [1.0]}, "entities.seats[0]: must be Int32 (a whole number from -"),
        ("Waiting:ahead_s", {"when": ["2026-01-01"]}, "entities.when[0]: must be Timestamp (a time with a zone"),
        (
            "Waiting:parsed",
            {"note": ["1", "\ud800"]},
            'entities.note[1]: must be String (a text), not the text "\\ud800"',
        ),
    ],
)
async def test_a_request_value_that_does_not_fit_is_refused(
    reference: str, entities: dict[str, Sequence[object]], message: str, reading: Reading
) -> None:
    with pytest.raises(RequestError) as refused:
        await reading.read(reference, **entities)
    assert str(refused.value).startswith(message)


async def test_a_value_that_may_be_null_can_be_left_out(reading: Reading) -> None:
    await reading.put({"airport": "A", "amount": 1.0})
    found = await reading.read("Between:apart", "Between:many", origin=["A", "A"], dest=["A", "A"])
    assert values(found["Between:many"]) == [(None, N)] * 2


async def test_every_type_of_request_value_arrives_as_it_was_sent(reading: Reading) -> None:
    echo = _on_demand(
        "Echo", (SEARCH,), **{each.name: (each.type, pl.col(f"Search.{each.name}")) for each in SEARCH.columns}
    )
    reading.catalog = Catalog(DEFINITIONS.model_copy(update={"on_demand": (echo,)}))
    asked: dict[str, Sequence[object]] = {
        "price": [0.1, "NaN"],
        "seats": [None, -(2**31)],
        "when": ["1970-01-01T00:00:00.000001Z", "2026-01-01T00:00:00+05:30"],
        "note": ["ü}:", None],
        "raw": ["AP8=", ""],
        "direct": [True, False],
    }
    found = await reading.read(*(f"Echo:{name}" for name in asked), **asked)
    assert found["Echo:price"].values[0] == 0.1
    assert found["Echo:price"].values[1] != found["Echo:price"].values[1]
    assert {name.partition(":")[2]: list(each.values) for name, each in found.items() if "price" not in name} == {
        "seats": [None, -(2**31)],
        "when": [1, NOW_US - 19_800 * SECOND],
        "note": ["ü}:", None],
        "raw": [b"\x00\xff", b""],
        "direct": [True, False],
    }


@pytest.mark.parametrize("airports", [["A"], ["A", "A"], ["A", "B"], ["A", "X"], ["B", "X", "A"]])
async def test_a_row_is_there_to_the_last_microsecond_of_its_ttl(airports: list[str], reading: Reading) -> None:
    """Whichever way it is read: alone, with others, or beside what is null or not there."""
    await reading.put({"airport": "A", "amount": 1.0}, {"airport": "B"})
    reading.now_us += HOUR // datetime.timedelta(microseconds=1)
    within = {"A": (1.0, P), "B": (None, N), "X": (None, M)}
    found = await reading.read("Departures:amount", airport=airports)
    assert values(found["Departures:amount"]) == [within[each] for each in airports]
    reading.now_us += 1
    past = {"A": (1.0, OLD), "B": (None, OLD), "X": (None, M)}
    found = await reading.read("Departures:amount", airport=airports)
    assert values(found["Departures:amount"]) == [past[each] for each in airports]


# Objectives


async def test_a_row_past_its_views_objective_is_late_and_still_served(reading: Reading) -> None:
    await reading.put({"airport": "A", "amount": 1.0})
    reading.now_us += 1_800 * SECOND
    found = await reading.read("Departures:amount", "Weather:amount", "Sky:sum", airport=["A", "XXX"])
    assert found["Departures:amount"].freshness == [Freshness.FRESH, None]
    assert found["Weather:amount"].freshness is None
    reading.now_us += 1
    found = await reading.read("Departures:amount", "Sky:sum", airport=["A", "XXX"])
    assert values(found["Departures:amount"]) == [(1.0, P), (None, M)]
    assert found["Departures:amount"].freshness == found["Sky:sum"].freshness == [Freshness.LATE, None]


async def test_what_is_computed_is_late_where_one_of_its_inputs_is(reading: Reading) -> None:
    await reading.put({"airport": "A", "amount": 1.0, "at": "2025-12-31T23:20:00Z"}, {"airport": "B", "amount": 1.0})
    found = await reading.read("Between:apart", origin=["A", "B", "B", "X"], dest=["B", "B", "X", "X"])
    assert found["Between:apart"].freshness == [Freshness.LATE, Freshness.FRESH, Freshness.FRESH, None]


# Names


def test_a_feature_service_stands_for_its_features(reading: Reading) -> None:
    assert reading.catalog.references([], "Trip") == ("Origin:amount", "Between:apart", "Waiting:hour")
    assert reading.catalog.references(["Departures:amount"], None) == ["Departures:amount"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda catalog: catalog.references([], "Trap"), "there is no feature service 'Trap'; did you mean 'Trip'?"),
        (lambda catalog: catalog.plan(["Orign:amount"]), "there is no view 'Orign'; did you mean 'Origin'?"),
        (lambda catalog: catalog.plan(["Origin:amont"]), "Origin has no feature 'amont'; did you mean 'amount'?"),
        (lambda catalog: catalog.plan(["Waiting:quiet"]), "Waiting has no feature 'quiet'; did you mean 'quiet_s'?"),
    ],
)
def test_a_name_that_is_not_there_is_told_the_nearest(ask: Any, message: str, reading: Reading) -> None:
    with pytest.raises(NotDefined) as refused:
        ask(reading.catalog)
    assert message in str(refused.value)


def test_features_and_a_service_are_not_asked_for_at_once(reading: Reading) -> None:
    with pytest.raises(RequestError, match="feature_service: is given beside features; ask for one of them"):
        reading.catalog.references(["Origin:amount"], "Trip")


async def test_a_value_that_one_feature_needs_cannot_be_left_out_because_another_does_not(reading: Reading) -> None:
    strict = RequestSpec(name="Strict", columns=(_asked("seats", INT32),))
    needs = _on_demand("Needs", (strict,), seats=(INT32, pl.col("Strict.seats")))
    reading.catalog = Catalog(DEFINITIONS.model_copy(update={"on_demand": (BETWEEN, needs)}))
    for asked in (["Between:many", "Needs:seats"], ["Needs:seats", "Between:many"]):
        with pytest.raises(RequestError, match=r"entities.seats\[0\]: must be Int32 .*, not null"):
            await reading.read(*asked, seats=[None])
    assert values((await reading.read("Between:many", seats=[None]))["Between:many"]) == [(None, N)]


def test_a_column_of_two_types_is_asked_for_in_two_requests() -> None:
    other = RequestSpec(name="Other", columns=(_asked("price", STRING), _asked("airport", INT64)))
    clash = _on_demand("Clash", (other,), price=(STRING, pl.col("Other.price")), at=(INT64, pl.col("Other.airport")))
    catalog = Catalog(DEFINITIONS.model_copy(update={"on_demand": (WAITING, clash), "requests": (SEARCH, other)}))
    for references in (["Waiting:dear", "Clash:price"], ["Departures:amount", "Clash:at"]):
        with pytest.raises(RequestError, match="ask for them in two requests"):
            catalog.plan(references)


# Lists and vectors


TASTE = vector_of(FLOAT32, 3)
BASKET = topic(column("airport", STRING), column("taste", TASTE, nullable=True), column("tags", list_of(STRING)))
TASTES = view(
    BASKET,
    {"airport": (STRING, pl.col("T.airport"))},
    feature("taste", TASTE, pl.col("T.taste"), nullable=True),
    feature("tags", list_of(STRING), pl.col("T.tags")),
    name="Tastes",
).model_copy(update={"entity": AIRPORT})
WISH = RequestSpec(name="Wish", columns=(_asked("wish", TASTE), _asked("also", list_of(TIMESTAMP), nullable=True)))
NEAR = _on_demand(
    "Near",
    (TASTES, WISH),
    dot=(FLOAT32, (pl.col("Tastes.taste") * pl.col("Wish.wish")).arr.sum()),
    apart=(TASTE, pl.col("Tastes.taste") - pl.col("Wish.wish")),
    also=(list_of(TIMESTAMP), pl.col("Wish.also").list.sort()),
    tags=(list_of(STRING), pl.col("Tastes.tags").list.eval(pl.element().str.to_uppercase())),
    parsed=(list_of(INT64), pl.col("Tastes.tags").list.eval(pl.element().str.to_integer(strict=False))),
)
LISTS = DefinitionsSpec(entities=(AIRPORT,), topics=(BASKET,), views=(TASTES,), requests=(WISH,), on_demand=(NEAR,))


async def of_lists(*references: str, **entities: Sequence[object]) -> list[list[tuple[object, Status]]]:
    """What is read of two rows of lists, one of them with a null."""
    store = MemoryOnlineStore(MemoryRedis(clock=lambda: NOW_MS))
    made = compile_pipeline(BASKET, [TASTES]).run(
        records(
            [
                event(airport="JFK", taste=[1, 2, 4], tags=["1", "2"]),
                event(airport="EWR", tags=["x"]),
            ]
        )
    )
    assert made.rejects == ()
    encoded, _ = ViewEncoder(TASTES, HOUR).encode(made.rows[0].frame, PartitionId("t", 1, 0))
    await store.put(encoded, await store.initialise("epoch"))
    catalog = Catalog(LISTS)
    plan = catalog.plan(references)
    found = await FeatureReader(store, RedisKeys("test", "test"), lambda: NOW_US).read(
        plan, typed(plan, entities, catalog.keys)
    )
    return [values(each) for each in found.columns]


async def test_vectors_are_computed_with_those_of_the_request() -> None:
    dot, apart, also, tags = await of_lists(
        *("Near:dot", "Near:apart", "Near:also", "Near:tags"),
        airport=["JFK", "EWR", "XXX", "JFK"],
        wish=[[1, 0, 0.5], [1, 1, 1], [1, 1, 1], ["NaN", 0, 0]],
        also=[["2026-01-02T00:00:00Z", "2026-01-01T00:00:00+01:00"], [], None, []],
    )
    assert dot[:3] == [(3.0, P), (None, N), (None, M)]
    assert str(dot[3][0]) == "nan"
    assert apart[:3] == [([0.0, 2.0, 3.5], P), (None, N), (None, M)]
    midnight = NOW_US - 3_600 * SECOND
    assert also == [([midnight, NOW_US + 86_400 * SECOND], P), ([], P), (None, N), ([], P)]
    assert tags == [(["1", "2"], P), (["X"], P), (None, M), (["1", "2"], P)]
    for airport, wish, expected in (("JFK", [1, 0, 0.5], (3.0, P)), ("EWR", [1, 1, 1], (None, N))):
        assert await of_lists("Near:dot", airport=[airport], wish=[wish]) == [[expected]]


@pytest.mark.parametrize(
    ("wish", "also", "field", "says"),
    [
        ([1, 2], None, "entities.wish[0]", "must be Vector[Float32, 3] (a list of exactly 3, each a number within"),
        ([1, 2], None, "entities.wish[0]", "not a list of 2"),
        ("1, 2, 3", None, "entities.wish[0]", "not the text"),
        (None, None, "entities.wish[0]", "not null"),
        ([1, None, 3], None, "entities.wish[0][1]", "must be Float32 (a number within ±3.4028235e38), not null"),
        ([1, "2", 3], None, "entities.wish[0][1]", "must be Float32"),
        ([1, 1e39, 3], None, "entities.wish[0][1]", "not the number 1e+39"),
        ([1, 2, 3], ["2026-01-01"], "entities.also[0][0]", "must be Timestamp (a time with a zone"),
        ([1, 2, 3], "2026-01-01", "entities.also[0]", "must be List[Timestamp] (a list, each a time with a zone"),
        ([1, 2, 3], ["0001-01-01T00:00:00+05:00"], "entities.also[0][0]", "in the years 1 to 9999"),
    ],
)
async def test_a_list_that_does_not_fit_is_refused_with_the_place_of_its_element(
    wish: object, also: object, field: str, says: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(says)) as refused:
        await of_lists("Near:apart", "Near:also", airport=["JFK"], wish=[wish], also=[also])
    assert refused.value.field == field


def test_a_lone_surrogate_in_a_list_is_no_text() -> None:
    """As who reads straight from the store may give it; from JSON none comes."""
    asked = RequestSpec(name="Asked", columns=(_asked("texts", list_of(STRING)),))
    same = _on_demand("Same", (asked,), texts=(list_of(STRING), pl.col("Asked.texts")))
    catalog = Catalog(DefinitionsSpec(entities=(), topics=(), views=(), requests=(asked,), on_demand=(same,)))
    with pytest.raises(RequestError, match="must be String") as refused:
        typed(catalog.plan(["Same:texts"]), {"texts": [["a"], ["b", "\ud800"]]}, catalog.keys)
    assert refused.value.field == "entities.texts[1][1]"


async def test_a_computed_list_with_a_null_in_it_is_refused_for_its_entity() -> None:
    assert await of_lists("Near:parsed", airport=["JFK"]) == [[([1, 2], P)]]
    with pytest.raises(RequestError, match="parsed: expected a list without nulls") as refused:
        await of_lists("Near:parsed", airport=["JFK", "EWR"])
    assert refused.value.field == "entities[1]"
