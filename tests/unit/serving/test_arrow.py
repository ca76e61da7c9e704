"""Tables of Arrow, and what each value was made of."""

import datetime

import pyarrow as pa
import pytest

from serving.arrow import STREAM
from tests.served import NOW_US, Served

FEATURES = ["Users:amount", "Users:small", "Users:name", "Users:seen", "Users:raw", "Users:large"]
SEEN = "2026-01-01T00:00:00.000001Z"


async def table(served: Served, **asked: object) -> pa.Table:
    async with served.client.post("/v1/features", json=asked, headers={"Accept": STREAM}) as response:
        assert (response.status, response.content_type) == (200, STREAM)
        return pa.ipc.open_stream(await response.read()).read_all()


async def test_a_table_has_keys_and_for_each_feature_value_status_and_event_time(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 0.1, "seen": SEEN, "raw": "AP8="}, {"id": 2, "name": "b"})
    read = await table(served, features=FEATURES, entities={"id": [2, 9, 1]})
    assert read.column_names == [
        "id",
        *(f"{name}{kind}" for name in FEATURES for kind in ("", ":status", ":event_time")),
    ]
    types = {name: read.schema.field(name).type for name in ["id", *FEATURES]}
    assert list(types.values()) == [
        pa.int64(),
        pa.float64(),
        pa.float32(),
        pa.string(),
        pa.timestamp("us", "UTC"),
        pa.binary(),
        pa.bool_(),
    ]
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    rows = read.to_pylist()
    assert [row["id"] for row in rows] == [2, 9, 1]
    assert [row["Users:amount"] for row in rows] == [None, None, 0.1]
    assert [row["Users:raw"] for row in rows] == [None, None, b"\x00\xff"]
    assert rows[2]["Users:seen"] == at + datetime.timedelta(microseconds=1)
    assert [row["Users:amount:status"] for row in rows] == ["NULL_VALUE", "NOT_FOUND", "PRESENT"]
    assert [row["Users:name:event_time"] for row in rows] == [at, None, at]
    assert pa.types.is_dictionary(read.schema.field("Users:name:status").type)
    assert read.schema.metadata[b"stillwell.at"] == str(NOW_US).encode()


async def test_an_error_is_json_whatever_is_accepted(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    asked = {"features": ["Users:nam"], "entities": {"id": [1]}}
    async with served.client.post("/v1/features", json=asked, headers={"Accept": STREAM}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["field"] == "features[0]"


async def test_each_value_says_which_record_it_was_made_of(served: Served) -> None:
    await served.put({"id": 1, "name": "a"}, {"id": 2, "name": "b"})
    asked = {"features": ["Users:name", "Users:amount"], "entities": {"id": [2, 9]}}
    _, answer = await served.post("/v1/features", **asked, provenance=True)
    made = {"topic": "t", "incarnation": 1, "partition": 0, "offset": 101, "version": 1}
    for name in asked["features"]:
        assert answer["features"][name]["provenance"] == [made, None]
    _, without = await served.post("/v1/features", **asked)
    assert "provenance" not in without["features"]["Users:name"]


@pytest.mark.parametrize("provenance", [None, 1, "yes"])
async def test_provenance_is_true_or_false(served: Served, provenance: object) -> None:
    status, answer = await served.post(
        "/v1/features", features=["Users:name"], entities={"id": [1]}, provenance=provenance
    )
    assert (status, answer["error"]["field"]) == (422, "provenance")
    assert "must be true or false" in answer["error"]["message"]
