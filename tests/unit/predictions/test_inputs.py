"""What a model reads: rows by the keys of its entity and by aliases, what is computed on demand, and request values."""

import datetime

import polars as pl
import pytest

from stillwell.errors import NotDefined
from stillwell.layout.entity_key import entity_key, values_of
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.inputs import Columns, ModelInputs, Rows, refreshed_by_command
from stillwell.spec import (
    AS_OF,
    AliasSpec,
    DefinitionsSpec,
    EntitySpec,
    FeatureSpec,
    InputSpec,
    KeySpec,
    ModelSpec,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
)
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT64, STRING, TIMESTAMP, vector_of
from tests.predicted import DEFINITIONS, MINUTES, TOPIC, V, encoded_row, model

KEYS = RedisKeys("test", "test")
PAIR = EntitySpec(name="Pair", keys=(KeySpec(name="one", type=INT64), KeySpec(name="other", type=INT64)))
SHORT = V.model_copy(update={"ttl": datetime.timedelta(hours=1)})
OTHER = AliasSpec(name="Other", view=SHORT, entity=PAIR, keys={"id": "other"})
ONE = AliasSpec(name="One", view=SHORT, entity=PAIR, keys={"id": "one"})
SEARCH = RequestSpec(
    name="Search",
    columns=(
        RequestColumnSpec(name="at", type=TIMESTAMP, nullable=False),
        RequestColumnSpec(name="share", type=FLOAT64, nullable=False),
        RequestColumnSpec(name="times", type=vector_of(TIMESTAMP, 2), nullable=True),
    ),
)
SUM = OnDemandSpec(
    name="Sum",
    version=1,
    inputs=(ONE, OTHER, SEARCH),
    features=(
        FeatureSpec(
            name="both",
            type=FLOAT64,
            nullable=True,
            expression=pl.col(f"{ONE.qualifier}.delay").cast(pl.Float64)
            + pl.col(f"{OTHER.qualifier}.delay").cast(pl.Float64) * pl.col("Search.share"),
        ),
        FeatureSpec(
            name="wait_s",
            type=INT64,
            nullable=True,
            expression=(pl.col("Search.at") - pl.col(AS_OF)).dt.total_seconds(),
        ),
    ),
)
DEFINED = DefinitionsSpec(
    entities=(V.entity, PAIR),
    topics=(TOPIC,),
    views=(SHORT,),
    aliases=(ONE, OTHER),
    requests=(SEARCH,),
    on_demand=(SUM,),
)
NOW_US = 1_767_225_600_000_000
HOUR_US = 3_600_000_000


def pair_model(**inputs: str) -> ModelSpec:
    kinds = {
        "delay": FLOAT32,
        "both": FLOAT64,
        "wait_s": INT64,
        "at": TIMESTAMP,
        "share": FLOAT64,
        "times": vector_of(TIMESTAMP, 2),
    }
    return model(outputs=(MINUTES,)).model_copy(
        update={
            "entity": PAIR,
            "inputs": tuple(
                InputSpec(name=name, reference=reference, type=kinds[reference.partition(":")[2]])
                for name, reference in inputs.items()
            ),
        }
    )


def row(id: int, delay: float | None, at_us: int = NOW_US) -> bytes:
    return encoded_row(id, delay, at_us, SHORT).values[0]


def test_rows_are_found_by_aliases_and_named_by_them() -> None:
    inputs = ModelInputs(pair_model(a="Other:delay", b="One:delay"), DEFINED)
    columns: Columns = {"one": [1, 2], "other": [3, 4]}
    assert inputs.sources == ("Other", "One")
    of_other, of_one = inputs.row_keys(KEYS, columns)
    assert of_other == KEYS.rows("V", [b"i1:3", b"i1:4"])
    assert of_one == KEYS.rows("V", [b"i1:1", b"i1:2"])
    rows: Rows = [[row(3, 30.0), None], [row(1, 10.0), row(2, 20.0)]]
    assert inputs.values(rows, columns, NOW_US) == {"a": [30.0, None], "b": [10.0, 20.0]}
    assert inputs.event_times((row(3, 30.0), None)) == {"Other": NOW_US, "One": None}


def test_what_is_past_its_ttl_is_null_and_has_another_fingerprint() -> None:
    inputs = ModelInputs(pair_model(a="Other:delay"), DEFINED)
    columns: Columns = {"one": [1], "other": [3]}
    rows: Rows = [[row(3, 30.0)]]
    for late, value in ((HOUR_US, 30.0), (HOUR_US + 1, None)):
        assert inputs.values(rows, columns, NOW_US + late) == {"a": [value]}
    within, last, past = (inputs.fingerprints(rows, 1, NOW_US + late)[0] for late in (0, HOUR_US, HOUR_US + 1))
    assert within == last != past


def test_on_demand_features_and_request_values_are_inputs_too() -> None:
    inputs = ModelInputs(pair_model(sum="Sum:both", wait="Sum:wait_s", at="Search:at", times="Search:times"), DEFINED)
    assert set(inputs.request) == {"at", "share", "times"}
    at = datetime.datetime.fromtimestamp(NOW_US / 1_000_000 + 90, datetime.UTC)
    columns: Columns = {"one": [1, 2], "other": [3, 4], "at": [at, at], "share": [0.5, 0.25], "times": [[at, at], None]}
    rows_of: dict[str, list[bytes | None]] = {"One": [row(1, 10.0), row(2, 20.0)], "Other": [row(3, 30.0), None]}
    rows: Rows = [rows_of[name] for name in inputs.sources]
    assert inputs.values(rows, columns, NOW_US) == {
        "sum": [25.0, None],
        "wait": [90, 90],
        "at": [NOW_US + 90_000_000] * 2,
        "times": [[NOW_US + 90_000_000] * 2, None],
    }
    one, other = inputs.digests(columns)
    assert one != other
    values, unusable = inputs.each_values(rows, columns, 2, NOW_US)
    assert (values, unusable) == (inputs.values(rows, columns, NOW_US), {})


def test_the_clock_alone_changes_no_fingerprint() -> None:
    inputs = ModelInputs(pair_model(sum="Sum:both", wait="Sum:wait_s"), DEFINED)
    rows: Rows = [[row(1, 10.0)], [row(3, 30.0)]]
    assert inputs.fingerprints(rows, 1, NOW_US) == inputs.fingerprints(rows, 1, NOW_US + 1_000_000)


def test_a_model_without_stored_inputs_has_only_what_the_request_brings() -> None:
    inputs = ModelInputs(pair_model(share="Search:share"), DEFINED)
    columns: Columns = {"one": [1], "other": [3], "share": [0.5]}
    assert (inputs.sources, inputs.row_keys(KEYS, columns)) == ((), [])
    assert inputs.values([], columns, NOW_US) == {"share": [0.5]}
    assert inputs.fingerprints([], 2, NOW_US) == [inputs.fingerprint((), NOW_US)] * 2


def test_the_same_rows_read_otherwise_have_another_fingerprint() -> None:
    """What an earlier version of a formula gave the model is not what the model is given now."""
    formula = DEFINED.model_copy(update={"on_demand": (SUM.model_copy(update={"version": 2}),)})
    rows: Rows = [[row(1, 10.0)], [row(3, 30.0)]]
    read = {"sum": "Sum:both"}
    prints = [
        ModelInputs(pair_model(**read), DEFINED).fingerprint([row(1, 10.0), row(3, 30.0)], NOW_US),
        ModelInputs(pair_model(**read), formula).fingerprint([row(1, 10.0), row(3, 30.0)], NOW_US),
        ModelInputs(pair_model(**read, wait="Sum:wait_s"), DEFINED).fingerprints(rows, 1, NOW_US)[0],
        ModelInputs(pair_model(a="One:delay", b="Other:delay"), DEFINED).fingerprints(rows, 1, NOW_US)[0],
        ModelInputs(pair_model(b="One:delay", a="Other:delay"), DEFINED).fingerprints(rows, 1, NOW_US)[0],
    ]
    assert len(set(prints)) == len(prints)
    assert ModelInputs(pair_model(**read), DEFINED).fingerprints(rows, 1, NOW_US) == prints[:1]


def test_models_that_writes_refresh_and_a_command_can_name_are_told() -> None:
    """Of those that wait for a request value, or read another entity's rows alone, nobody knows which there are."""

    def made(name: str, reference: str = "V:delay", **more: object) -> ModelSpec:
        inputs = (InputSpec(name="delay", reference=reference, type=FLOAT32),)
        return model().model_copy(update={"name": name, "inputs": inputs, "refresh_on_write": ("V",), **more})

    models = (
        made("Written"),
        made("Read", refresh_on_write=()),
        made("Asked", "Search:share"),
        made("Aliased", "One:delay", entity=PAIR, refresh_on_write=("One",)),
    )
    definitions = DEFINITIONS.model_copy(update={"models": models, "requests": (SEARCH,), "aliases": (ONE,)})
    assert refreshed_by_command(definitions) == ["Written"]


def test_an_input_that_is_not_defined_is_told() -> None:
    with pytest.raises(NotDefined, match="there is no view 'W'"):
        ModelInputs(
            model().model_copy(update={"inputs": (InputSpec(name="delay", reference="W:delay", type=FLOAT32),)}),
            DEFINITIONS,
        )


def test_an_entitys_key_is_read_back() -> None:
    keys = [
        KeySpec(name=name, type=kind)
        for name, kind in (("a", STRING), ("b", INT64), ("c", BOOL), ("d", TIMESTAMP), ("e", BYTES))
    ]
    values: dict[str, object] = {
        "a": "é:{}s3:",
        "b": -7,
        "c": False,
        "d": datetime.datetime(2026, 1, 1, 0, 0, 0, 5, datetime.UTC),
        "e": b"i1:7\xff",
    }
    packed = entity_key(keys, values)
    assert values_of(keys, packed) == values
    for wrong in (b"", packed[:-1], packed + b"x", b"i1:7", packed.replace(b"i2:-7", b"ix:-7")):
        with pytest.raises(ValueError, match="is no key of a, b, c, d, e"):
            values_of(keys, wrong)
