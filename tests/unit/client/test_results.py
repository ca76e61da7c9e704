"""What comes back: values in Python's types, by entity and by column, and as tables that do not pass old for new."""

import dataclasses
import datetime
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from stillwell.client import Client, Features, Freshness, Provenance, Status, WrongAnswer
from stillwell.client.retrying import Retries
from stillwell.client.service import Service
from stillwell.client.source import Entities
from tests.fake_service import FakeTransport, feature, reply

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
EVENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
OLD = ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]


async def answered(entities: object, **features: object) -> Features:
    """What a client makes of an answer that holds these features, of a view `V`."""
    body = {"features": {f"V:{name}": each for name, each in features.items()}}
    client = Client.of(Service(FakeTransport(reply(body)), "http://fake", Retries()))
    return await client.features([*body["features"]], entities)  # type: ignore[arg-type]


async def three() -> Features:
    """Three entities: one that is present, one past its TTL, and one that is not there."""
    times = [EVENT.isoformat(), EVENT.isoformat(), None]
    return await answered(
        {"k": ["a", "b", "c"]},
        small=feature("Float32", 1.5, 2.5, None, statuses=OLD, event_times=times, ages_s=[1, 7200, None]),
        seen=feature(
            "Timestamp",
            "2026-01-31T12:00:00.000001Z",
            "2026-01-31T13:00:00+01:00",
            None,
            statuses=OLD,
            event_times=times,
            ages_s=[1, 7200, None],
        ),
    )


async def test_every_type_is_what_python_has_for_it() -> None:
    found = await answered(
        {"k": "a"},
        bool=feature("Bool", True),
        int=feature("Int64", -(2**63)),
        text=feature("String", "NaN"),
        bytes=feature("Bytes", "aGk="),
        time=feature("Timestamp", "2026-01-31T12:00:00Z"),
        nan=feature("Float64", "NaN"),
        least=feature("Float32", "-Infinity"),
        whole=feature("Float64", 120.0),
        null=feature("Bytes", None, statuses=["NULL_VALUE"], freshness=["LATE"]),
        tags=feature("List[String]", ["a", "NaN"]),
        vector=feature("Vector[Float32, 3]", [1.5, "-Infinity", 2]),
        times=feature("List[Timestamp]", ["2026-01-31T12:00:00Z"]),
        raws=feature("Vector[Bytes, 1]", ["aGk="]),
        nothing=feature("List[Bytes]", None, statuses=["NULL_VALUE"]),
    )
    row = found.one()
    values = {reference.removeprefix("V:"): each.value for reference, each in row.features.items()}
    assert math.isnan(values.pop("nan"))
    assert values == {
        "bool": True,
        "int": -(2**63),
        "text": "NaN",
        "bytes": b"hi",
        "time": NOON,
        "least": -math.inf,
        "whole": 120.0,
        "null": None,
        "tags": ["a", "NaN"],
        "vector": [1.5, -math.inf, 2],
        "times": [NOON],
        "raws": [b"hi"],
        "nothing": None,
    }
    assert isinstance(values["whole"], float)
    assert row["V:null"].status is Status.NULL_VALUE
    assert (row["V:null"].freshness, row["V:bool"].freshness) == (Freshness.LATE, None)
    assert (row["V:bool"].event_time, row["V:bool"].age) == (EVENT, datetime.timedelta(seconds=1.5))


async def test_an_answer_is_read_by_entity_and_by_column() -> None:
    found = await three()
    assert len(found) == 3
    assert [row.entity["k"] for row in found] == ["a", "b", "c"]
    assert [row["V:small"].value for row in found] == list(found.column("V:small").values) == [1.5, 2.5, None]
    assert found[1]["V:small"].status is Status.OUTSIDE_MAX_AGE
    assert found[2]["V:small"].age is None
    with pytest.raises(ValueError, match="3 entities, not one"):
        found.one()


async def test_what_is_given_back_cannot_be_changed() -> None:
    found = await three()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.count = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0]["V:small"].value = 1  # type: ignore[misc]


async def test_a_table_shows_what_is_past_its_ttl_only_to_who_asks_for_it() -> None:
    found = await three()
    assert found.to_dict() == {
        "k": ["a", "b", "c"],
        "V:small": [1.5, None, None],
        "V:seen": [NOON.replace(microsecond=1), None, None],
    }
    assert found.to_dict(expired=True)["V:small"] == [1.5, 2.5, None]
    assert found[1].to_dict() == {"k": "b", "V:small": None, "V:seen": None}
    assert found[1].to_dict(expired=True) == {"k": "b", "V:small": 2.5, "V:seen": NOON}


async def test_tables_of_arrow_polars_and_pandas_agree_and_have_the_features_own_types() -> None:
    found = await three()
    table = found.to_arrow(details=True, expired=True)
    assert table.schema.field("V:small").type == pa.float32()
    assert table.schema.field("V:seen:event_time").type == pa.timestamp("us", "UTC")
    assert table.column("V:small:status").to_pylist() == OLD
    assert table.column("V:small:age_s").to_pylist() == [1.0, 7200.0, None]
    assert table.column("V:small:freshness").to_pylist() == [None] * 3
    frame = found.to_polars(details=True, expired=True)
    assert frame.schema["V:seen"] == pl.Datetime("us", "UTC")
    assert frame.to_dicts() == table.to_pylist()
    pandas = found.to_pandas(expired=True)
    assert pandas["V:small"].isna().tolist() == [False, False, True]
    assert str(pandas.dtypes["V:small"]).startswith("float")


async def test_without_any_entity_the_columns_still_have_their_types() -> None:
    found = await answered({"k": []}, small=feature("Float32"))
    assert len(found) == 0
    assert found.to_arrow().schema.field("V:small").type == pa.float32()
    assert found.to_polars().height == 0


@pytest.mark.parametrize(
    "entities",
    [
        {"k": ["a", "b"], "n": [1, 2]},
        {"k": np.array(["a", "b"]), "n": np.array([1, 2])},
        {"k": pl.Series(["a", "b"]), "n": pd.Series([1, 2])},
        {"k": pa.array(["a", "b"]), "n": (1, 2)},
        [{"k": "a", "n": 1}, {"n": 2, "k": "b"}],
        pl.DataFrame({"k": ["a", "b"], "n": [1, 2]}),
        pa.table({"k": ["a", "b"], "n": [1, 2]}),
        pd.DataFrame({"k": ["a", "b"], "n": [1, 2]}),
        pd.DataFrame({"k": ["a", "b"], "n": [1, 2]}).set_index("k"),
    ],
)
async def test_entities_are_what_a_caller_has_them_as(entities: Entities) -> None:
    transport = FakeTransport(reply({"features": {"V:f": feature("Int64", 7, 8)}}))
    found = await Client.of(Service(transport, "http://fake", Retries())).features(["V:f"], entities)
    assert transport.sent[0].body["entities"] == {"k": ["a", "b"], "n": [1, 2]}
    assert found[1].entity == {"k": "b", "n": 2}


async def test_one_value_is_one_entity_whatever_it_is_made_of() -> None:
    transport = FakeTransport(reply({"features": {"V:f": feature("Int64", 7)}}))
    one = {"k": np.str_("a"), "n": np.int64(1), "of_none": np.array(2)}
    await Client.of(Service(transport, "http://fake", Retries())).features(["V:f"], one)
    assert transport.sent[0].body["entities"] == {"k": ["a"], "n": [1], "of_none": [2]}


MADE_OF = {"topic": "orders", "incarnation": 1, "partition": 2, "offset": 77, "version": 3}


async def test_each_value_says_of_which_record_it_was_made_to_who_asks() -> None:
    body = {"features": {"V:a": feature("Int64", 7, None, provenance=[MADE_OF, None])}}
    transport = FakeTransport(reply(body))
    asking = Client.of(Service(transport, "http://fake", Retries()))
    found = await asking.features(["V:a"], {"k": ["a", "b"]}, provenance=True)
    assert transport.sent[0].body["provenance"] is True
    assert found[0]["V:a"].provenance == Provenance("orders", 1, 2, 77, 3)
    assert found[1]["V:a"].provenance is None
    table = found.to_arrow(details=True)
    assert table.schema.field("V:a:offset").type == pa.int64()
    assert [table.column(f"V:a:{name}").to_pylist() for name in MADE_OF] == [[each, None] for each in MADE_OF.values()]
    plain = await asking.features(["V:a"], {"k": ["a", "b"]})
    assert "provenance" not in transport.sent[1].body
    assert (plain.column("V:a").provenance, plain[0]["V:a"].provenance) == (None, None)
    assert "V:a:offset" not in plain.to_dict(details=True)


async def test_an_answer_that_does_not_say_it_though_it_was_asked_is_of_another_version() -> None:
    body = {"features": {"V:a": feature("Int64", 7)}}
    asking = Client.of(Service(FakeTransport(reply(body)), "http://fake", Retries()))
    with pytest.raises(WrongAnswer, match="each with all that describes it"):
        await asking.features(["V:a"], {"k": "a"}, provenance=True)


def test_without_pandas_it_is_said_what_to_install() -> None:
    program = """
import sys
sys.modules["pandas"] = None
from stillwell.client import Features
try:
    Features({}, {}, 0).to_pandas()
except ModuleNotFoundError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install pandas" in said.stdout
