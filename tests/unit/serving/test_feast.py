"""What Feast's clients get from /get-online-features: every status, order, repetition, name and refusal."""

import json
import math
from typing import Any

import polars as pl
import pytest

from stillwell.types import FLOAT64
from tests.batches import NOW_MS, feature
from tests.served import NOW_US, USERS, Served


async def ask(served: Served, **body: object) -> tuple[int, Any]:
    """Status and body of an answer."""
    return await served.post("/get-online-features", **body)


async def refused(served: Served, **body: object) -> tuple[int, str]:
    """Status and message of an answer that Feast's clients can turn into an exception."""
    status, text = await ask(served, **body)
    error = json.loads(text)
    assert error.keys() == {"module", "class", "message"}
    assert error["module"] == "feast.errors"
    return status, error["message"]


def by_name(answer: Any) -> dict[str, list[tuple[object, str]]]:
    names, results = answer["metadata"]["feature_names"], answer["results"]
    assert len(names) == len(results)
    return {
        name: list(zip(result["values"], result["statuses"], strict=True))
        for name, result in zip(names, results, strict=True)
    }


async def test_features_come_behind_their_keys_with_statuses_and_event_times(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 7.5})
    status, answer = await ask(served, features=["Users:name", "Users:amount"], entities={"id": [1, 2]})
    assert status == 200
    assert answer == {
        "metadata": {"feature_names": ["id", "name", "amount"]},
        "results": [
            {"values": [1, 2], "statuses": ["PRESENT"] * 2, "event_timestamps": ["1970-01-01T00:00:00Z"] * 2},
            {
                "values": ["a", None],
                "statuses": ["PRESENT", "NOT_FOUND"],
                "event_timestamps": ["2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
            },
            {
                "values": [7.5, None],
                "statuses": ["PRESENT", "NOT_FOUND"],
                "event_timestamps": ["2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
            },
        ],
    }


async def test_order_and_repetition_of_entities_are_those_of_the_request(served: Served) -> None:
    await served.put(*({"id": number, "name": str(number)} for number in range(5)))
    _, answer = await ask(served, features=["Users:name"], entities={"id": [3, 1, 3, 9, 0]})
    assert by_name(answer)["name"] == [
        ("3", "PRESENT"),
        ("1", "PRESENT"),
        ("3", "PRESENT"),
        (None, "NOT_FOUND"),
        ("0", "PRESENT"),
    ]


async def test_a_null_is_a_null_and_what_is_past_its_ttl_is_withheld(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    features = ["Users:amount", "Users:name"]
    _, answer = await ask(served, features=features, entities={"id": [1]})
    assert by_name(answer) == {"id": [(1, "PRESENT")], "amount": [(None, "NULL_VALUE")], "name": [("a", "PRESENT")]}
    served.now_us = NOW_US + 3_600_000_000
    assert by_name((await ask(served, features=features, entities={"id": [1]}))[1])["name"] == [("a", "PRESENT")]
    served.now_us += 1
    _, late = await ask(served, features=features, entities={"id": [1]})
    assert by_name(late) == {
        "id": [(1, "PRESENT")],
        "amount": [(None, "OUTSIDE_MAX_AGE")],
        "name": [(None, "OUTSIDE_MAX_AGE")],
    }
    assert late["results"][1]["event_timestamps"] == ["2026-01-01T00:00:00Z"]


async def test_every_type_is_written_as_feast_writes_it(served: Served) -> None:
    seen = "2026-01-01T00:00:01.999999Z"
    await served.put({"id": 1, "name": 'ü"}:', "amount": 0.1, "seen": seen, "raw": "AP8="})
    features = [f"Users:{each.name}" for each in USERS.features]
    _, answer = await ask(served, features=features, entities={"id": [1]})
    assert {name: values[0][0] for name, values in by_name(answer).items()} == {
        "id": 1,
        "amount": 0.1,
        "small": 0.10000000149011612,
        "name": 'ü"}:',
        "seen": NOW_MS // 1_000 + 1,
        "raw": "AP8=",
        "large": False,
    }


@pytest.mark.parametrize(("amount", "shown"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN")])
async def test_floats_that_json_lacks_are_texts(amount: float, shown: str, served: Served) -> None:
    computed = pl.when(pl.col("T.amount").is_not_null()).then(pl.lit(amount))
    changed = feature("amount", FLOAT64, computed, nullable=True)
    odd = USERS.model_copy(update={"features": (changed, *USERS.features[1:])})
    await served.put({"id": 1, "name": "a", "amount": 1.0}, {"id": 2, "name": "b"}, views=[odd])
    _, answer = await ask(served, features=["Users:amount"], entities={"id": [1, 2]})
    assert by_name(answer)["amount"] == [(shown, "PRESENT"), (None, "NULL_VALUE")]


async def test_several_views_and_keys_of_several_fields_are_read_at_once(served: Served) -> None:
    await served.put({"id": 1, "name": "x:}", "amount": 1.0}, {"id": 1, "name": "y", "amount": 200.0})
    _, answer = await ask(
        served, features=["Places:amount", "Users:large"], entities={"name": ["y", "x:}", "1"], "id": [1, 1, 1]}
    )
    assert answer["metadata"]["feature_names"] == ["name", "id", "amount", "large"]
    assert by_name(answer)["amount"] == [(200.0, "PRESENT"), (1.0, "PRESENT"), (None, "NOT_FOUND")]
    assert by_name(answer)["large"] == [(True, "PRESENT")] * 3


async def test_full_names_carry_the_view(served: Served) -> None:
    await served.put({"id": 1, "name": "a", "amount": 1.0})
    features, entities = ["Places:amount", "Users:amount"], {"id": [1], "name": ["a"]}
    _, answer = await ask(served, features=features, entities=entities, full_feature_names=True)
    assert answer["metadata"]["feature_names"] == ["id", "name", "Places__amount", "Users__amount"]
    status, message = await refused(served, features=features, entities=entities)
    assert (status, message) == (
        422,
        "features: two columns of the answer would be called 'amount'; set full_feature_names to true",
    )


async def test_no_entities_give_empty_columns(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    status, answer = await ask(served, features=["Users:name"], entities={"id": []})
    assert status == 200
    assert answer["results"] == [{"values": [], "statuses": [], "event_timestamps": []}] * 2


def asking(*features: str, **entities: object) -> dict[str, object]:
    return {"features": features, "entities": entities}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (asking("Users:nam", id=[1]), 404, "features[0]: Users has no feature 'nam'; did you mean 'name'?"),
        (asking("User:name", id=[1]), 404, "features[0]: there is no view 'User'; did you mean 'Users'?"),
        (asking("name", id=[1]), 422, "features[0]: 'name' must be <view>:<feature>; did you mean Users:name?"),
        (asking(id=[1]), 422, "features: name at least one, as <view>:<feature>"),
        (asking("Users:name", "Users:name", id=[1]), 422, "features: 'Users:name' is named twice; name each once"),
        (asking("Users:name", ids=[1]), 422, "entities.ids: is no key of any entity; did you mean 'id'?"),
        (asking("Users:name"), 422, "entities.id: is missing; the features asked for need id"),
        (asking("Users:name", id=[1], nam=[1]), 422, "entities.nam: is no key of any entity; did you mean 'name'?"),
        (
            asking("Users:name", id=[1, "1"]),
            422,
            'entities.id[1]: must be Int64 (a whole number), not the text "1"; write 1, without quotes',
        ),
        (asking("Users:name", id=[True]), 422, "entities.id[0]: must be Int64 (a whole number), not true"),
        (
            asking("Users:name", id=[1, None]),
            422,
            "entities.id[1]: is missing or null; every key of an entity must have a value",
        ),
        (
            asking("Places:amount", id=[1], name=["a", "b"]),
            422,
            "entities: every column must have a value for each entity; id has 1, name has 2",
        ),
        (
            asking("Places:amount", id=[1], name=["a" * 600]),
            422,
            "entities.id[0]: the entity key has 609 bytes; 512 are allowed",
        ),
        (
            asking("Users:name", id=list(range(51))),
            422,
            "entities: 51 entities in one request; at most 50 are allowed: ask in parts",
        ),
        (
            asking(*(f"Users:{each.name}" for each in USERS.features), id=list(range(50))),
            422,
            "entities: 50 entities with 6 features are 300 values; at most 200 are allowed in one request: "
            "ask in parts",
        ),
        (
            {"features": ["Users:name"], "entities": [1]},
            422,
            'entities: must be an object with a list for each key, as {"user_id": [1, 2]}, not a list',
        ),
        (
            {"features": ["Users:name"], "entities": [{"id": 1}, {"id": 2}]},
            422,
            'entities: must be an object with a list for each key, as {"id": [1, 2]}, not a list',
        ),
        (
            {"features": ["Users:name"], "entity_rows": [{"id": 1, "name": "a"}]},
            422,
            'entity_rows: is of Feast\'s SDK; write entities, as {"id": [1], "name": ["a"]}',
        ),
        (
            {"features": "Users:name,Users:amount", "entities": {"id": [1]}},
            422,
            'features: must be a list, as ["Users:name", "Users:amount"], not a text',
        ),
        (
            {"features": [["Users", "name"]], "entities": {"id": [1]}},
            422,
            "features[0]: must be a text, <view>:<feature>, not a list",
        ),
        (
            {"features": {"Users": ["name"]}, "entities": {"id": [1]}},
            422,
            'features: must be a list of names, as ["<view>:<feature>"], not an object',
        ),
        (
            {"feature_service": {"name": "s"}, "entities": {"id": [1]}},
            422,
            "feature_service: must be a text or null, not an object",
        ),
        (
            {"features": ["Users:name"], "entities": {"id": [1]}, "full_feature_names": "yes"},
            422,
            "full_feature_names: must be true or false, not a text",
        ),
        (
            asking("Users:name", id={"val": [1]}),
            422,
            "entities.id: must be a list with a value for each entity, as [1], not an object",
        ),
        (
            asking("Users:name", id=1001),
            422,
            "entities.id: must be a list with a value for each entity, as [1001], not a number",
        ),
        (
            asking("Users:name", id="a" * 500),
            422,
            "entities.id: must be a list with a value for each entity, as […], not a text",
        ),
        (
            {"features": ["Users:name"]},
            422,
            'entities: is missing; write a list for each key, as {"user_id": [1, 2]}',
        ),
        (
            {"feature_service": "other", "entities": {"id": [1]}},
            404,
            "feature_service: there is no feature service 'other'",
        ),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_and_what_to_do(
    body: dict[str, object], status: int, message: str, served: Served
) -> None:
    await served.put({"id": 1, "name": "a"})
    assert await refused(served, **body) == (status, message)


async def test_what_is_no_json_is_told_so(served: Served) -> None:
    for body in (b"", b"{", b"\xff", b"[" * 5_000):
        async with served.client.post("/get-online-features", data=body) as response:
            assert response.status == 422
            assert json.loads(await response.json())["message"].startswith("body: ")


async def test_a_store_that_forgot_or_is_silent_is_not_taken_for_one_that_has_nothing(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    asked = {"features": ["Users:name"], "entities": {"id": [1]}}
    served.store.faults = lambda operation: "refused"
    async with served.client.post("/get-online-features", json=asked) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    served.store.faults = lambda operation: None
    served.server.flush()
    status, message = await refused(served, **asked)
    assert status == 503
    assert "not ready" in message


async def test_the_service_is_healthy_where_features_can_be_read(served: Served) -> None:
    async with served.client.get("/health") as response:
        assert response.status == 503
    await served.put({"id": 1, "name": "a"})
    async with served.client.get("/health") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_names_that_no_entity_has_are_not_kept(served: Served) -> None:
    """A thousand requests are remembered by the names of their columns: these could be of any length."""
    page = served.site.pages["POST", "/get-online-features"]
    kept = page.answer.__self__._named._made  # type: ignore[attr-defined]
    await served.put({"id": 1, "name": "a"})
    for number in range(5):
        entities = {"id": [1], f"{'x' * 1_000}{number}": [1]}
        assert (await ask(served, features=["Users:name"], entities=entities))[0] == 422
    assert len(kept) == 0
    await ask(served, features=["Users:name"], entities={"id": [1]})
    assert len(kept) == 1


async def test_a_list_of_features_that_is_mostly_spaces_is_answered_and_not_kept(served: Served) -> None:
    """Requests are remembered by how their lists are written."""
    page = served.site.pages["POST", "/get-online-features"]
    kept = page.answer.__self__._named._made  # type: ignore[attr-defined]
    await served.put({"id": 1, "name": "a"})
    for spaces, remembered in ((90_000, 0), (17_000, 0), (16_000, 1), (3, 2)):
        body = b'{"features":[%b"Users:name"],"entities":{"id":[1]}}' % (b" " * spaces)
        for _ in range(2):
            status, answer = await served.post_bytes("/get-online-features", body)
            assert (status, by_name(answer)["name"]) == (200, [("a", "PRESENT")])
        assert len(kept) == remembered


@pytest.mark.parametrize("names", [["a,b"], ["null"], [",", "a"], ["a", "b"]])
async def test_texts_of_one_entity_may_have_what_json_has_between_values(names: list[str], served: Served) -> None:
    for number, name in enumerate(names):
        await served.put({"id": number, "name": name, "amount": number})
    for number, name in enumerate(names):
        for features in (["Users:name"], ["Users:small", "Users:name", "Users:large"]):
            _, answer = await ask(served, features=features, entities={"id": [number]})
            assert by_name(answer)["name"] == [(name, "PRESENT")]
            assert list(by_name(answer)) == ["id", *(each.partition(":")[2] for each in features)]
            assert {time for each in answer["results"][1:] for time in each["event_timestamps"]} == {
                "2026-01-01T00:00:00Z"
            }
