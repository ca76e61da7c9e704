"""Our own interface: what is known of each value, for one entity and for many."""

import pytest

from tests.served import NOW_US, Served

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
        ("features=Users:amount", 422, "entities.id", "entities.id: is missing; the features asked for need id"),
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
