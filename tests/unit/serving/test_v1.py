"""Our own interface: what is known of each value, for one entity and for many."""

import asyncio
import json

import pytest

from serving.limits import Limits
from tests.served import NOW_US, USERS, Served

NOON = "2026-01-01T00:00:00Z"


async def test_columns_say_value_status_event_time_and_age(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5, "seen": "2026-01-01T00:00:00.000001Z"})
    served.now_us = NOW_US + 1_500_000
    asked = {"features": ["Users:amount", "Users:seen"], "entities": {"id": [2, 1]}}
    assert await served.post("/v1/features", **asked) == (
        200,
        {
            "entities": {"id": [2, 1]},
            "features": {
                "Users:amount": {
                    "type": "Float64",
                    "values": [None, 7.5],
                    "statuses": ["NOT_FOUND", "PRESENT"],
                    "event_times": [None, NOON],
                    "ages_s": [None, 1.5],
                    "freshness": [None, None],
                },
                "Users:seen": {
                    "type": "Timestamp",
                    "values": [None, "2026-01-01T00:00:00.000001Z"],
                    "statuses": ["NOT_FOUND", "PRESENT"],
                    "event_times": [None, NOON],
                    "ages_s": [None, 1.5],
                    "freshness": [None, None],
                },
            },
        },
    )


async def test_one_entity_is_a_url_that_a_person_can_type(served: Served) -> None:
    await served.put({"id": 1, "name": "a b", "amount": 7.5})
    assert await served.get("/v1/features?features=Places:amount&id=1&name=a%20b") == (
        200,
        {
            "entity": {"id": 1, "name": "a b"},
            "features": {
                "Places:amount": {
                    "type": "Float64",
                    "value": 7.5,
                    "status": "PRESENT",
                    "event_time": NOON,
                    "age_s": 0.0,
                    "freshness": None,
                }
            },
        },
    )


async def test_what_is_past_its_ttl_is_shown_for_what_it_is(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})
    served.now_us = NOW_US + 7_200_000_000
    _, answer = await served.get("/v1/features?features=Users:amount&id=1")
    assert answer["features"]["Users:amount"] == {
        "type": "Float64",
        "value": 7.5,
        "status": "OUTSIDE_MAX_AGE",
        "event_time": NOON,
        "age_s": 7200.0,
        "freshness": None,
    }


@pytest.mark.parametrize(
    ("query", "status", "field", "message"),
    [
        ("features=Users:amount&id=x", 422, "id", "id: must be a whole number that fits Int64, got 'x'"),
        ("features=Users:amount&id=%2B5", 422, "id", "id: must be a whole number that fits Int64, got '+5'"),
        ("features=Users:amount&id=1&id=2", 422, "id", "id: is given twice; for several entities use POST"),
        ("features=Users:amount&ids=1", 422, "ids", "ids: is no key of any entity; did you mean 'id'?"),
        ("features=Users:amount", 422, "id", "id: is missing; the features asked for need id"),
        ("features=Users:amonut&id=1", 404, "features[0]", "features[0]: Users has no feature 'amonut'; did you mean"),
        ("id=1", 422, "features", "features: name at least one, as <view>:<feature>"),
        ("features=Users&id=1", 422, "features[0]", "features[0]: 'Users' must be <view>:<feature>, as Users:amount, "),
        ("feature_service=Users&id=1", 404, "feature_service", "feature_service: Users is no feature service; name "),
    ],
)
async def test_a_url_that_is_wrong_is_told_where(
    query: str, status: int, field: str, message: str, served: Served
) -> None:
    await served.put({"id": 1, "name": "a"})
    got, answer = await served.get(f"/v1/features?{query}")
    assert (got, answer["error"]["field"]) == (status, field)
    assert answer["error"]["kind"] == ("NotDefined" if status == 404 else "RequestError")
    assert answer["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("typed", "status", "field", "says"),
    [
        (
            "id=1&name=a b",
            400,
            "url",
            "a space as %20 and é as %C3%A9, not 'GET /v1/features?features=Places:amount&id=",
        ),
        ("id=1&name=é", 400, "url", "a space as %20 and é as %C3%A9, not 'GET /v1/features?features=Places:amount&id="),
        ("id=1&name=%zz", 422, "name", "holds '%zz', which is the code of no byte; write % itself as %25"),
        ("id=1&name=100%", 422, "name", "holds '%', which is the code of no byte"),
        ("id=1&name=%FF", 422, "name", "holds codes of bytes that are no UTF-8: '%FF'"),
        ("id=1&name", 422, "name", "has no value; write name=…, and & within a value as %26"),
        ("id=1&na%ZZme=a", 422, "na%ZZme", "holds '%ZZ'"),
    ],
)
async def test_a_url_that_was_typed_wrongly_is_not_guessed_at(
    typed: str, status: int, field: str, says: str, served: Served
) -> None:
    """As a client would not send it: another entity would be looked up, and not found."""
    reader, writer = await asyncio.open_connection(served.client.host, served.client.port)
    head = f"GET /v1/features?features=Places:amount&{typed} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    told, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    error = json.loads(body)["error"]
    assert (int(told.split()[1]), error["field"]) == (status, field)
    assert says in error["message"]


async def test_what_is_written_in_codes_is_read(served: Served) -> None:
    await served.put({"id": 1, "name": "é &+%="})
    target = "/v1/features?&features=Places:amount&&id=1&name=%C3%A9+%26%2B%25="
    _, answer = await served.get(target)
    assert answer["entity"] == {"id": 1, "name": "é &+%="}
    assert answer["features"]["Places:amount"]["status"] == "NULL_VALUE"


async def test_a_url_may_ask_which_record_each_value_was_made_of(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})
    query = "features=Users:amount,Users:seen&id="
    _, of_many = await served.post("/v1/features", features=["Users:amount"], entities={"id": [1]}, provenance=True)
    _, found = await served.get(f"/v1/features?{query}1&provenance=true")
    assert found["features"]["Users:amount"]["provenance"] == of_many["features"]["Users:amount"]["provenance"][0]
    assert set(found["features"]["Users:seen"]["provenance"]) == {
        "topic",
        "incarnation",
        "partition",
        "offset",
        "version",
    }
    _, missing = await served.get(f"/v1/features?{query}2&provenance=true")
    assert missing["features"]["Users:amount"]["provenance"] is None
    _, without = await served.get(f"/v1/features?{query}1&provenance=false")
    assert "provenance" not in without["features"]["Users:amount"]
    status, wrong = await served.get(f"/v1/features?{query}1&provenance=yes")
    assert (status, wrong["error"]["message"]) == (422, "provenance: must be true or false, not 'yes'")


async def test_words_that_are_unknown_are_refused(served: Served) -> None:
    status, answer = await served.post("/v1/features", features=["Users:amount"], entities={"id": [1]}, full=True)
    assert status == 422
    assert answer["error"]["message"].startswith("full: is no word of this request; there is after, entities, ")


async def test_a_store_that_forgot_is_not_taken_for_one_that_has_nothing(served: Served) -> None:
    status, answer = await served.get("/v1/features?features=Users:amount&id=1")
    assert (status, answer["error"]["field"]) == (503, None)
    assert "not ready" in answer["error"]["message"]


async def test_a_path_that_is_none_is_told_which_there_are(served: Served) -> None:
    for method, path in (("get", "/"), ("post", "/v1/feature"), ("get", "/get-online-features/")):
        async with served.client.request(method, path) as response:
            error = (await response.json())["error"]
            assert (response.status, error["field"]) == (404, "path")
            assert "POST /v1/features" in error["message"]


async def test_a_body_that_is_too_large_is_told_so(served: Served) -> None:
    status, answer = await served.post("/v1/features", features=["x" * 100_000], entities={})
    assert (status, answer["error"]["field"]) == (413, "body")
    assert "100000 bytes" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"entities": {"id": 1}}, "entities.id", "must be a list with a value for each entity, as [1], not a number"),
        ({"entities": [{"id": 1}]}, "entities", 'must be an object with a list for each key, as {"id": [1]}'),
        ({"entity_rows": [{"id": 1}]}, "entity_rows", 'is of Feast\'s SDK; write entities, as {"id": [1]}'),
        ({"entities": {"id": [1]}, "features": "Users:name"}, "features", 'must be a list, as ["Users:name"]'),
        ({"entities": {"id": [1]}, "feature": ["Users:name"]}, "feature", "did you mean 'features'?"),
        ({"entities": {"id": [1]}, "timeout_ms": "1"}, "timeout_ms", "must be a whole number or null, not a text"),
        ({"entities": {"id": [1]}, "timeout_ms": 1.5}, "timeout_ms", "must be a whole number or null, not a number"),
        ({"entities": {"id": [1]}, "after": ["t"]}, "after", "must be a text, not a list"),
    ],
)
async def test_a_usual_mistake_is_told_by_its_field_with_the_fix(
    asked: dict[str, object], field: str, says: str, served: Served
) -> None:
    status, answer = await served.post("/v1/features", **{"features": ["Users:name"], **asked})
    assert (status, answer["error"]["field"]) == (422, field)
    assert says in answer["error"]["message"]


async def test_as_many_different_features_as_may_be_are_read_and_one_more_is_refused() -> None:
    """By both interfaces: each of them is there, and none is named twice."""
    most = [f"Users:{each.name}" for each in USERS.features]
    served = Served(limits=Limits(rows=50, features=len(most), values=200))
    async with served.client:
        await served.put({"id": 1, "name": "a"})

        async def asked(features: list[str]) -> list[tuple[int, object]]:
            body = {"features": features, "entities": {"id": [1], "name": ["a"]}}
            return [
                await served.post("/get-online-features", full_feature_names=True, **body),
                await served.post("/v1/features", **body),
                await served.get(f"/v1/features?features={','.join(features)}&id=1&name=a"),
            ]

        assert [status for status, _ in await asked(most)] == [200] * 3
        for status, answer in await asked([*most, "Places:amount"]):
            assert status == 422
            assert "features: 7 in one request; at most 6 are allowed" in str(answer)
