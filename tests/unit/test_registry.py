"""What a version of a view computes cannot change unnoticed; what does not matter can."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import polars as pl
import pytest

from stillwell import (
    Bool,
    Bytes,
    Col,
    Entity,
    Feature,
    Float32,
    Int64,
    Key,
    Rows,
    Size,
    String,
    Timestamp,
    Topic,
    View,
    col,
    feature,
    frame,
    rows,
)
from stillwell.definitions.behaviour import canonical, sha256
from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError, FormatError, StoreUnavailable
from stillwell.known_views import Version, known_views, logs_of_predictions
from stillwell.layout.value import RowLayout
from stillwell.predictions.log import log_view
from stillwell.registry import Caution, register, registered, review
from stillwell.spec import (
    Action,
    ColumnSpec,
    DefinitionsSpec,
    EntitySpec,
    ExampleSpec,
    Expectation,
    FeatureSpec,
    KeySpec,
    Origin,
    TopicSpec,
    ViewSpec,
)
from stillwell.storage import LocalStore
from stillwell.testing.objects import Fault, MemoryStore, Operation
from stillwell.types import FLOAT32, INT64, STRING, TIMESTAMP, vector_of
from tests.predicted import model

PATH = "_registry/Late/1.json"
GRACE = timedelta(hours=1)


class Airport(Entity):
    airport: Key[String]


class Departure(Topic, name="flights.departures", event_time="at", sequence="number"):
    at: Col[Timestamp]
    origin: Col[String]
    tail: Col[String | None]
    number: Col[Int64]
    delay: Col[Float32 | None] = col(ge=-1440, le=2880)
    photo: Col[Bytes | None]


class Late(
    View,
    source=Departure,
    entity=Airport,
    keys={"airport": Departure.origin},
    where=Departure.number > 0,
    ttl=timedelta(days=7),
):
    late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False))
    delay: Feature[Float32 | None] = feature(Departure.delay)
    number: Feature[Int64] = feature(Departure.number)


def definitions(view: ViewSpec) -> DefinitionsSpec:
    return DefinitionsSpec(entities=(view.entity,), topics=(view.source,), views=(view,))


def changed(**words: Any) -> ViewSpec:
    """The view, changed in the class statement."""
    return Late.spec.model_copy(update=words)


def with_feature(name: str, **words: Any) -> ViewSpec:
    """The view, with one feature changed."""
    features = (each.model_copy(update=words) if each.name == name else each for each in Late.spec.features)
    return changed(features=tuple(features))


def run(store: MemoryStore, view: ViewSpec) -> list[Caution]:
    return register(store, definitions(view), GRACE)


@pytest.fixture
def store() -> MemoryStore:
    """A store in which version 1 is registered."""
    store = MemoryStore()
    assert run(store, Late.spec) == []
    return store


def test_registering_writes_what_the_view_computes(store: MemoryStore) -> None:
    assert set(store.objects) == {PATH}
    document = json.loads(store.objects[PATH])
    assert (document["view"], document["version"], document["entity"]) == ("Late", 1, "Airport")
    assert document["features"][1] == {"name": "delay", "type": "Float32", "nullable": True}
    assert document["ttl_us"] == 604_800_000_000
    assert len(document["behaviour"]["events"]) == len(document["behaviour"]["outcomes"]) > 40


def test_the_same_definitions_register_again_and_again_without_a_word(store: MemoryStore) -> None:
    before = dict(store.objects)
    assert run(store, Late.spec) == []
    assert store.objects == before


MORE = FeatureSpec(name="more", type=INT64, nullable=False, expression=Departure.number)
DIFFERENT_VALUES = {
    "a bound that moves by one": (
        with_feature("late", expression=(Departure.delay > 16).fill_null(False)),
        "gives late=False",
    ),
    "a bound that moves by the least": (
        with_feature("late", expression=(Departure.delay >= 15).fill_null(False)),
        "gives late=True",
    ),
    "a null that is filled otherwise": (
        with_feature("late", expression=(Departure.delay > 15).fill_null(True)),
        "Departure.delay=None",
    ),
    "another sign of zero": (
        with_feature(
            "delay", expression=pl.when(Departure.delay == 0).then(pl.lit(0.0, pl.Float32)).otherwise(Departure.delay)
        ),
        "gives delay=0.0 for",
    ),
    "another rounding": (with_feature("delay", expression=(Departure.delay * 3 / 3).cast(pl.Float32)), "gives delay="),
    "a feature more": (
        changed(
            features=(
                *Late.spec.features,
                FeatureSpec(name="more", type=INT64, nullable=False, expression=Departure.number),
            )
        ),
        "has a feature more: Int64, which version 1 is registered without",
    ),
    "a feature less": (
        changed(features=Late.spec.features[1:]),
        "has no feature late, but version 1 is registered with late: Bool",
    ),
    "a feature of another type": (
        with_feature("number", type=STRING, expression=Departure.number.cast(pl.String)),
        "has a feature number: String, but version 1 is registered with Int64",
    ),
    "a feature that may be null": (
        with_feature("late", nullable=True),
        "has a feature late: Bool | None, but version 1 is registered with Bool",
    ),
    "features in another order": (
        changed(features=Late.spec.features[::-1]),
        "has its features in the order number, delay, late, but version 1 is registered with late, delay, number",
    ),
}


@pytest.mark.parametrize(("view", "says"), DIFFERENT_VALUES.values(), ids=DIFFERENT_VALUES)
def test_a_version_that_computes_otherwise_is_refused_until_it_is_raised(
    store: MemoryStore, view: ViewSpec, says: str
) -> None:
    before = dict(store.objects)
    with pytest.raises(DefinitionError, match="raise version=2") as raised:
        run(store, view)
    assert says in str(raised.value)
    assert str(raised.value).startswith(f"tests/unit/test_registry.py:{Late.spec.file.split(':')[1]}: Late ")
    assert "STILLWELL_NAMESPACE" not in str(raised.value)
    assert store.objects == before, "what is refused leaves nothing behind"
    assert run(store, view.model_copy(update={"version": 2})) == []


def renamed_keys() -> ViewSpec:
    entity = EntitySpec(name="Place", keys=(KeySpec(name="place", type=STRING),))
    return changed(entity=entity)


OTHER_ROWS = {
    "where lets more through": (changed(where=None), "gives airport="),
    "where lets less through": (changed(where=Departure.number > 1), "gives no row for"),
    "another key": (changed(keys=(Departure.origin.str.to_lowercase(),)), "gives airport='a'"),
    "another entity": (renamed_keys(), "is about Place(place: String)"),
    "another topic": (
        changed(source=Departure.spec.model_copy(update={"topic": "flights.takeoffs"})),
        "reads Kafka's topic flights.takeoffs",
    ),
    "another sequence": (changed(source=Departure.spec.model_copy(update={"sequence": None})), "gives airport="),
}


@pytest.mark.parametrize(("view", "says"), OTHER_ROWS.values(), ids=OTHER_ROWS)
def test_other_rows_take_another_namespace(store: MemoryStore, view: ViewSpec, says: str) -> None:
    """Whose root is another one, where nothing is registered."""
    before = dict(store.objects)
    for version, other in ((1, "version 1 "), (2, "version 1, which runs in this namespace")):
        with pytest.raises(DefinitionError, match="choose another STILLWELL_NAMESPACE") as raised:
            run(store, view.model_copy(update={"version": version}))
        assert says in str(raised.value)
        assert other in str(raised.value)
        assert "raise version" not in str(raised.value)
    assert store.objects == before
    assert run(MemoryStore(), view) == []


def test_rows_for_events_that_were_refused_before_may_share_the_namespace() -> None:
    """A transformation that is mended takes no row's place."""
    failing = with_feature("number", type=INT64, expression=Departure.number.cast(pl.Int32).cast(pl.Int64))
    store = MemoryStore()
    assert run(store, failing) == []
    assert run(store, changed(version=2)) == []


def test_another_ttl_takes_another_namespace(store: MemoryStore) -> None:
    view = changed(ttl=timedelta(days=8))
    for version in (1, 2):
        with pytest.raises(
            DefinitionError, match=r"has ttl=8 days.*but version 1, which runs in .*STILLWELL_NAMESPACE"
        ):
            run(store, view.model_copy(update={"version": version}))
    assert run(MemoryStore(), view) == []


def test_another_grace_is_refused_and_may_be_set_back(store: MemoryStore) -> None:
    """Keys expire by it, so that with a longer one an older row could outlive a newer one."""
    before = dict(store.objects)
    for view in (Late.spec, changed(version=2)):
        with pytest.raises(
            DefinitionError,
            match=r"Late would run with STILLWELL_REDIS_GRACE=2h, but version 1, which runs in this namespace, "
            "with 1h; set it back, or choose another STILLWELL_NAMESPACE",
        ):
            register(store, definitions(view), timedelta(hours=2))
    assert store.objects == before
    assert run(store, Late.spec) == []


def test_keys_that_never_expire_have_no_grace() -> None:
    store = MemoryStore()
    assert run(store, changed(ttl=timedelta(0))) == []
    assert register(store, definitions(changed(ttl=timedelta(0))), timedelta(hours=2)) == []


# ---- how records are read ----


def decoded(name: str, **words: Any) -> ViewSpec:
    """The view of a topic one of whose columns is declared otherwise."""
    columns = (each.model_copy(update=words) if each.name == name else each for each in Departure.spec.columns)
    return changed(source=Departure.spec.model_copy(update={"columns": tuple(columns)}))


(_DELAY,) = (each for each in Departure.spec.columns if each.name == "delay")
RULE = Expectation(rule="<= 60", holds=pl.col("delay") <= 60)
READ_OTHERWISE = {
    "another field": (
        decoded("delay", path=("times", "delay")),
        "reads Departure.delay from the value's times.delay as it is, but version 1 is registered with the value's "
        "delay as it is",
    ),
    "another field, whose name has a dot": (
        decoded("delay", path=("times.delay",)),
        "reads Departure.delay from the value's 'times.delay' as it is",
    ),
    "a header": (
        decoded("delay", origin=Origin.HEADER, path=("delay",)),
        "reads Departure.delay from the header delay as it is",
    ),
    "another expectation": (
        decoded("delay", expectations=(RULE,)),
        "expects of Departure.delay <= 60, but version 1 is registered with >= -1440 and <= 2880",
    ),
    "no expectation": (decoded("delay", expectations=()), "expects of Departure.delay nothing, but version 1 is"),
}


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_rules_that_reject_nothing_come_and_go_within_a_version(store: MemoryStore, action: Action) -> None:
    """A worker that one has stopped goes on once it is changed, and no row is of another meaning."""
    before = dict(store.objects)
    run(store, decoded("delay", expectations=(*_DELAY.expectations, RULE.model_copy(update={"action": action}))))
    assert store.objects == before


@pytest.mark.parametrize(("view", "says"), READ_OTHERWISE.values(), ids=READ_OTHERWISE)
def test_a_version_that_reads_records_otherwise_is_refused_until_it_is_raised(
    store: MemoryStore, view: ViewSpec, says: str
) -> None:
    """What is recorded are decoded events, on which nothing of this shows."""
    before = dict(store.objects)
    with pytest.raises(DefinitionError, match="; raise version=2") as raised:
        run(store, view)
    assert f"Late {says}" in str(raised.value)
    assert "STILLWELL_NAMESPACE" not in str(raised.value)
    assert store.objects == before
    assert run(store, view.model_copy(update={"version": 2})) == []


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (decoded("at", unit="ms"), "reads Departure.at from the value's at in ms"),
        (decoded("number", path=("serial",)), "reads Departure.number from the value's serial as it is"),
        (decoded("origin", origin=Origin.KEY), "reads Departure.origin from the key as it is"),
    ],
    ids=["event time", "sequence", "key"],
)
def test_keys_and_times_that_are_read_otherwise_take_another_namespace(
    store: MemoryStore, view: ViewSpec, says: str
) -> None:
    for version in (1, 2):
        with pytest.raises(DefinitionError, match="choose another STILLWELL_NAMESPACE") as raised:
            run(store, view.model_copy(update={"version": version}))
        assert says in str(raised.value)
        assert "raise version" not in str(raised.value)


def test_how_a_column_is_read_that_the_view_does_not_read_may_change(store: MemoryStore) -> None:
    assert run(store, decoded("tail", path=("registration",))) == []


def test_a_rows_function_may_read_any_column() -> None:
    class Tails(View, source=Departure, entity=Airport, ttl=timedelta(0)):
        value: Feature[Int64]

        @rows
        @staticmethod
        def make(event: Departure) -> Rows:
            yield {"airport": event.origin, "value": event.number}

    store = MemoryStore()
    assert run(store, Tails.spec) == []
    with pytest.raises(DefinitionError, match=r"reads Departure\.tail from the value's registration as it is"):
        run(store, Tails.spec.model_copy(update={"source": decoded("tail", path=("registration",)).source}))


def test_a_function_over_frames_may_read_any_column_and_is_registered_by_what_it_gives() -> None:
    def view(bound: int) -> ViewSpec:
        class Tails(View, source=Departure, entity=Airport, ttl=timedelta(0)):
            value: Feature[Int64]

            @frame
            @staticmethod
            def make(events: pl.DataFrame) -> pl.DataFrame:
                return events.filter(pl.col("number") > bound).select("_index", airport="origin", value="number")

        return Tails.spec

    store = MemoryStore()
    assert run(store, view(10)) == []
    with pytest.raises(DefinitionError, match=r"reads Departure\.tail from the value's registration as it is"):
        run(store, view(10).model_copy(update={"source": decoded("tail", path=("registration",)).source}))
    elsewhere = {"version": 2, "source": decoded("tail", path=("registration",)).source}
    with pytest.raises(DefinitionError, match="choose another STILLWELL_NAMESPACE"):
        run(store, view(10).model_copy(update=elsewhere))
    with pytest.raises(DefinitionError, match="gives no row for"):
        run(store, view(1_000))


def test_a_changed_source_alone_is_a_caution(store: MemoryStore) -> None:
    (caution,) = run(store, changed(source_digest="something else"))
    assert (caution.view, caution.version) == ("Late", 1)
    assert "the source has changed" in caution.message
    assert "raise version=2" in caution.message


def test_going_back_to_an_older_version_is_a_caution(store: MemoryStore) -> None:
    run(store, changed(version=2))
    (caution,) = run(store, Late.spec)
    assert "version 2 has run in this namespace" in caution.message


def test_the_next_version_is_past_all_that_are_registered(store: MemoryStore) -> None:
    run(store, changed(version=7))
    with pytest.raises(DefinitionError, match="raise version=8"):
        run(store, with_feature("late", expression=(Departure.delay > 16).fill_null(False)))


def test_a_column_that_the_view_does_not_read_may_be_added_and_taken_away(store: MemoryStore) -> None:
    more = ColumnSpec(name="gate", type=STRING, nullable=False, path=("gate",))
    grown = Departure.spec.model_copy(update={"columns": (*Departure.spec.columns, more)})
    shrunk = Departure.spec.model_copy(update={"columns": Departure.spec.columns[:-1]})
    assert run(store, changed(source=grown)) == []
    assert run(store, changed(source=shrunk)) == []


def test_a_view_that_reads_a_new_column_is_a_new_version(store: MemoryStore) -> None:
    gate = ColumnSpec(name="gate", type=STRING, nullable=False, path=("gate",))
    grown = Departure.spec.model_copy(update={"columns": (*Departure.spec.columns, gate)})
    late = (Departure.delay > 15).fill_null(False) | (pl.col("Departure.gate") == "A")
    view = with_feature("late", expression=late).model_copy(update={"source": grown})
    with pytest.raises(DefinitionError, match=r"reads Departure\.gate, which did not exist when version 1"):
        run(store, view)


def test_examples_may_be_added(store: MemoryStore) -> None:
    value = {"at": "2013-01-01T00:00:00Z", "origin": "LGA", "number": 5, "delay": 3}
    example = ExampleSpec(
        name="more", topic="flights.departures", file="", about="", timestamp=1_400_000_000_000, key=None,
        value=json.dumps(value).encode(), headers=(), rows={}, rejects=(),
    )  # fmt: skip
    more = definitions(Late.spec).model_copy(update={"examples": (example,)})
    assert register(store, more, GRACE) == []
    empty = MemoryStore()
    assert register(empty, more, GRACE) == []
    assert empty.objects != store.objects, "a version that is new is observed on all examples"


def test_rows_functions_are_registered_by_what_they_give() -> None:
    def view(bound: int) -> ViewSpec:
        class Ends(View, source=Departure, entity=Airport, ttl=timedelta(0)):
            value: Feature[Int64]

            @rows
            @staticmethod
            def make(event: Departure) -> Rows:
                if event.number > bound:
                    yield {"airport": event.origin, "value": event.number}

        return Ends.spec

    store = MemoryStore()
    assert run(store, view(10)) == []
    (caution,) = run(store, view(10).model_copy(update={"source_digest": "else"}))
    assert "the source has changed" in caution.message
    with pytest.raises(DefinitionError, match="gives no row for"):
        run(store, view(1_000))


def test_reviewing_says_the_same_and_creates_nothing(store: MemoryStore) -> None:
    empty = MemoryStore()
    assert review(empty, definitions(Late.spec), GRACE) == []
    assert empty.objects == {}
    with pytest.raises(DefinitionError, match="raise version=2"):
        review(store, definitions(changed(version=1, features=Late.spec.features[::-1])), GRACE)
    (caution,) = review(store, definitions(changed(source_digest="else")), GRACE)
    assert "the source has changed" in caution.message


def test_every_view_that_is_refused_is_told(store: MemoryStore) -> None:
    other = Late.spec.model_copy(update={"name": "Other"})
    run(store, other)
    both = definitions(Late.spec).model_copy(
        update={"views": (changed(where=None), other.model_copy(update={"where": None}))}
    )
    with pytest.raises(DefinitionError) as raised:
        register(store, both, GRACE)
    assert len(raised.value.args) == 2


@pytest.mark.parametrize("fault", ["lost answer", "lost call"])
def test_a_create_without_an_answer_is_settled_by_reading_back(fault: Fault) -> None:
    asked: list[str] = []

    def faults(operation: Operation, path: str) -> Fault | None:
        asked.append(path)
        return fault if operation == "create" and asked.count(path) < 4 else None

    store = MemoryStore(faults)
    assert run(store, Late.spec) == []
    assert set(store.objects) == {PATH}


def test_a_store_that_never_answers_is_unavailable() -> None:
    store = MemoryStore(lambda operation, path: "lost call" if operation == "create" else None)
    with pytest.raises(StoreUnavailable, match="is not there after 3 creates without an answer"):
        run(store, Late.spec)


def test_of_two_workers_with_other_definitions_the_second_is_refused() -> None:
    """Another worker creates its document between this one's look and its create."""
    other = with_feature("late", expression=(Departure.delay > 16).fill_null(False))
    winner = MemoryStore()
    run(winner, other)

    def faults(operation: Operation, path: str) -> Fault | None:
        if operation == "create":
            contended.objects.update(winner.objects)
        return None

    contended = MemoryStore(faults)
    with pytest.raises(DefinitionError, match="is registered with late=False"):
        run(contended, Late.spec)
    assert contended.objects == winner.objects


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"format":1', b'"format":2', r"/1\.json is of format 2, this version of Stillwell reads 1: upgrade$"),
        (b'"nullable":true', b'"nullable":false', "has been altered"),
        (b"{", b"[", "is no ViewDocument of format 1: Invalid JSON"),
        (b'"ttl_us":', b'"ttl":', r"is no ViewDocument of format 1: ttl_us: Field required \(and 1 more\)$"),
    ],
    ids=["another format", "another content", "no JSON", "another field"],
)
def test_a_document_that_cannot_be_trusted_is_refused(store: MemoryStore, old: bytes, new: bytes, says: str) -> None:
    store.objects[PATH] = store.objects[PATH].replace(old, new, 1)
    with pytest.raises(FormatError, match=says):
        run(store, Late.spec)


def test_a_document_of_a_later_format_may_hold_anything(store: MemoryStore) -> None:
    store.objects[PATH] = b'{"format": 2, "keys": "airport", "behaviour": []}'
    with pytest.raises(FormatError, match=r"is of format 2, this version of Stillwell reads 1: upgrade$"):
        run(store, Late.spec)


def registered_by_a_newer_stillwell(store: MemoryStore, version: int, value: Callable[[Any], object]) -> None:
    """Version 1 once more, with a column of the topic whose type this Stillwell does not know, and values of it."""
    document = json.loads(store.objects[PATH]) | {"version": version}
    document["behaviour"]["columns"][4]["type"] = "Decimal"
    document["behaviour"]["events"] = [
        [*event[:4], value(event[4]), *event[5:]] for event in document["behaviour"]["events"]
    ]
    document["digest"] = sha256({name: document[name] for name in document if name not in ("source_digest", "digest")})
    store.objects[f"_registry/Late/{version}.json"] = canonical(document)


@pytest.mark.parametrize(
    "value", [str, lambda value: {"of": str(value)}], ids=["texts as others have", "values of another kind"]
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_type_that_only_a_later_stillwell_knows_is_told_in_a_line(
    store: MemoryStore, version: int, value: Callable[[Any], object]
) -> None:
    registered_by_a_newer_stillwell(store, version, value)
    with pytest.raises(FormatError) as raised:
        run(store, Late.spec)
    assert str(raised.value) == (
        f"{store.url}: _registry/Late/{version}.json is registered with fields of the type Decimal, which this version "
        "of Stillwell does not know: upgrade"
    )


def test_a_document_in_the_place_of_another_is_refused(store: MemoryStore) -> None:
    store.objects["_registry/Late/2.json"] = store.objects[PATH]
    with pytest.raises(FormatError, match=r"_registry/Late/2\.json has been altered"):
        run(store, Late.spec)


def test_all_that_is_registered_is_found_view_by_view(store: MemoryStore) -> None:
    run(store, changed(version=2))
    run(store, changed(name="Later"))
    assert [(found.view, found.version) for found in registered(store)] == [("Late", 1), ("Late", 2), ("Later", 1)]
    assert [(found.view, found.version) for found in registered(store, "Late")] == [("Late", 1), ("Late", 2)]
    assert list(registered(store, "Lat")) == []


def test_a_folder_serves_as_a_registry(tmp_path: pathlib.Path) -> None:
    store = LocalStore(str(tmp_path))
    assert register(store, definitions(Late.spec), GRACE) == []
    assert (tmp_path / PATH).exists()
    assert register(store, definitions(Late.spec), GRACE) == []


def test_what_is_registered_is_the_same_in_every_process() -> None:
    """Neither the seed of Python's hashes nor the number of threads shows in it."""
    program = (
        "from stillwell.definitions.loading import load_definitions\n"
        "from stillwell.registry import register\n"
        "from stillwell.testing.objects import MemoryStore\n"
        "store = MemoryStore()\n"
        "import datetime\n"
        "register(store, load_definitions('schemas'), datetime.timedelta(hours=1))\n"
        "for path, data in sorted(store.objects.items()): print(path, data.decode())\n"
    )
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "POLARS_MAX_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root, env=environment
    ).stdout.splitlines()
    here = MemoryStore()
    register(here, load_definitions("schemas", root), GRACE)
    assert said == [f"{path} {data.decode()}" for path, data in sorted(here.objects.items())]


FINISHED = changed(
    name="Finished",
    source=TopicSpec(name="Finished", topic="flights.push.Finished", columns=(), event_time=""),
    keys=(),
    where=None,
    features=tuple(each.model_copy(update={"expression": None}) for each in Late.spec.features),
)
"""A view of rows that are only ever pushed, finished."""


def test_what_logs_predictions_is_told_from_views_that_somebody_has_numbered(store: MemoryStore) -> None:
    log = log_view(model())
    both = DefinitionsSpec(entities=(Late.spec.entity,), topics=(Late.spec.source,), views=(Late.spec, log))
    register(store, both, GRACE)
    assert logs_of_predictions(store) == {Version(log.name, log.version): ("minutes",)}


def test_a_view_of_finished_rows_is_registered_by_its_layout_alone(store: MemoryStore) -> None:
    both = DefinitionsSpec(entities=(Late.spec.entity,), topics=(Late.spec.source,), views=(Late.spec, FINISHED))
    assert register(store, both, GRACE) == register(store, both, GRACE) == review(store, both, GRACE) == []
    document = json.loads(store.objects["_registry/Finished/1.json"])
    assert document["behaviour"] == {"columns": [], "events": [], "outcomes": []}
    found = known_views(store, definitions(Late.spec))[Version("Finished", 1)]
    assert [(each.name, each.type) for each in found.features] == [(each.name, each.type) for each in FINISHED.features]
    fewer = FINISHED.model_copy(update={"features": FINISHED.features[:2]})
    with pytest.raises(DefinitionError, match=r"Finished has no feature number, but version 1 .*raise version=2"):
        register(store, both.model_copy(update={"views": (fewer,)}), GRACE)
    assert register(store, both.model_copy(update={"views": (fewer.model_copy(update={"version": 2}),)}), GRACE) == []


class Basket(Topic, name="shop.baskets", event_time="at"):
    at: Col[Timestamp]
    shop: Col[String]
    items: Col[list[String] | None]
    taste: Col[Annotated[list[Float32], Size(3)]]
    photos: Col[list[Bytes]]
    times: Col[Annotated[list[Timestamp], Size(2)] | None]


class Baskets(View, source=Basket, entity=Airport, keys={"airport": Basket.shop}, ttl=timedelta(days=7)):
    items: Feature[list[String] | None] = feature(Basket.items.list.sort())
    taste: Feature[Annotated[list[Float32], Size(3)]] = feature(Basket.taste)
    photos: Feature[list[Bytes]] = feature(Basket.photos)
    times: Feature[Annotated[list[Timestamp], Size(2)] | None] = feature(Basket.times)


def test_lists_and_vectors_are_registered_recognised_and_known_again() -> None:
    store = MemoryStore()
    assert run(store, Baskets.spec) == run(store, Baskets.spec) == []
    document = json.loads(store.objects["_registry/Baskets/1.json"])
    assert [each["type"] for each in document["features"]] == [
        "List[String]",
        "Vector[Float32, 3]",
        "List[Bytes]",
        "Vector[Timestamp, 2]",
    ]
    known = known_views(store, DefinitionsSpec(entities=(), topics=(), views=()))[Version("Baskets", 1)]
    assert RowLayout.of(known).id == RowLayout.of(Baskets.spec).id
    assert [each.type for each in known.features] == [each.type for each in Baskets.spec.features]
    features = list(Baskets.spec.features)
    features[0] = features[0].model_copy(update={"expression": Basket.items})
    with pytest.raises(DefinitionError, match=r"gives items=\[.*\] for Basket.*T00:00:00\+00:00\], but"):
        run(store, Baskets.spec.model_copy(update={"features": tuple(features)}))


def test_of_long_vectors_few_events_are_registered() -> None:
    """With all of them, a document would have a hundred megabytes."""
    long = vector_of(FLOAT32, 16_384)
    source = TopicSpec(
        name="Long",
        topic="shop.long",
        columns=(
            ColumnSpec(name="at", type=TIMESTAMP, nullable=False, path=("at",)),
            ColumnSpec(name="v", type=long, nullable=False, path=("v",)),
        ),
        event_time="at",
    )
    keys = (pl.lit("a"),)
    features = (FeatureSpec(name="first", type=FLOAT32, nullable=True, expression=pl.col("Long.v").arr.first()),)
    of = Baskets.spec.model_copy(update={"name": "Longs", "source": source, "keys": keys, "features": features})
    store = MemoryStore()
    assert run(store, of) == run(store, of) == []
    assert 1 <= len(json.loads(store.objects["_registry/Longs/1.json"])["behaviour"]["events"]) <= 13
