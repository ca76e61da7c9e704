"""Pushing over HTTP, on twins: both interfaces, what each says of a mistake, and reading behind a push."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from serving import arrow, connections, v1
from serving.metrics import PUSHED, Metrics
from serving.pushing.bodies import own, push_request
from serving.pushing.pages import NoPushPages
from serving.web import Site
from stillwell.errors import StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.pushing.record import To, head_of
from stillwell.pushing.status import PushStatus
from tests.served import BOUNDS, DEFINITIONS, Listening, Served
from tests.waiting import eventually_here

NOW = "2026-01-01T00:00:00Z"
EVENT = {"at": NOW, "id": 7, "name": "ann", "amount": 120.0}
ROW = {"id": 7, "event_timestamp": NOW, "name": "ann", "large": True, "amount": 120.0}
READ = {"features": ["Users:amount", "Users:large"], "entities": {"id": [7]}}


def columns(*rows: Mapping[str, object]) -> dict[str, list[object]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


async def ready(served: Served) -> Served:
    await served.store.initialise("epoch")
    return served


async def test_what_is_pushed_is_read_at_once(served: Served) -> None:
    await ready(served)
    status, body = await served.post("/v1/push", view="Users", rows=[EVENT])
    assert status == 200
    assert body == {"token": body["token"], "statuses": ["applied"], "rejects": []}
    assert body["token"].startswith("Users@3:")
    assert body["token"].endswith(";epoch-000000000000")
    status, answer = await served.post("/v1/features", **READ, after=body["token"], timeout_ms=0)
    assert status == 200
    assert answer["features"]["Users:amount"]["values"] == [120.0]
    assert answer["features"]["Users:large"]["values"] == [True]


@pytest.mark.parametrize("path", ["/v1/push", "/push", "/write-to-online-store"])
async def test_a_service_that_takes_no_pushes_says_why(path: str) -> None:
    site = Site(NoPushPages().pages(), v1.error_body, BOUNDS, Metrics().request)
    async with TestClient[Any, None](Listening(site)) as client, client.post(path, json={}) as response:
        assert response.status == 404
        told = await response.text()
    assert f"{path} takes nothing here: STILLWELL_PUSH is false" in told


async def test_a_token_goes_into_a_url_as_it_is(served: Served) -> None:
    """The `;` before the epoch ends no word."""
    await ready(served)
    _, body = await served.post("/v1/push", view="Users", rows=[EVENT])
    assert ";" in body["token"]
    status, answer = await served.get(f"/v1/features?features=Users:amount&id=7&timeout_ms=0&after={body['token']}")
    assert (status, answer["features"]["Users:amount"]["value"]) == (200, 120.0)
    for text in ("-1", "1.5", "soon", "99999999999"):
        status, told = await served.get(
            f"/v1/features?features=Users:amount&id=7&after={body['token']}&timeout_ms={text}"
        )
        assert (status, told["error"]["field"]) == (422, "timeout_ms")


async def test_rows_as_columns_or_as_objects_raw_or_final_are_the_same(served: Served) -> None:
    await ready(served)
    for transform, row in ((True, EVENT), (False, ROW)):
        for rows in ([row], columns(row)):
            status, body = await served.post("/v1/push", view="Users", rows=rows, transform_on_write=transform)
            assert (status, body["statuses"]) in ((200, ["applied"]), (200, ["stale"]))
            assert (await served.post("/v1/features", **READ))[1]["features"]["Users:amount"]["values"] == [120.0]


def test_values_that_are_written_over_several_lines_stay_with_their_rows() -> None:
    asked = push_request.decode(b'{"view": "V", "rows": {"id": [1, 2], "names": [[\n"a"\n], {\n"b": 3}]}}')
    assert own(asked, most_rows=10).values == [b'{"id":1,"names":[\n"a"\n]}', b'{"id":2,"names":{\n"b": 3}}']


async def test_each_row_is_told_what_became_of_it_and_why(served: Served) -> None:
    await ready(served)
    rows = [EVENT, {**EVENT, "id": "seven"}, {**EVENT, "at": "2025-12-31T20:00:00Z", "id": 8}, {**EVENT, "colour": 1}]
    status, body = await served.post("/v1/push", view="Users", rows=rows)
    assert status == 200
    assert body["statuses"] == ["applied", "rejected", "expired", "rejected"]
    assert [(each["row"], each["reason"]) for each in body["rejects"]] == [(1, "decode"), (3, "decode")]
    assert "id: expected Int64" in body["rejects"][0]["message"]
    assert "colour" in body["rejects"][1]["message"]


async def test_an_asynchronous_push_is_accepted_with_a_token_that_a_read_can_wait_for(served: Served) -> None:
    await ready(served)
    status, body = await served.post("/v1/push", view="Users", rows=[EVENT], mode="async", to="online")
    assert (status, body) == (202, {"token": body["token"], "accepted": 1})
    (kept,) = served.log.records("test.push.Users")
    assert head_of(kept.record.headers).to is To.ONLINE
    assert head_of(kept.record.headers).transform
    status, told = await served.get(f"/v1/features?features=Users:amount&id=7&after={body['token']}&timeout_ms=10")
    assert (status, told["error"]["kind"], told["error"]["lag"]) == (504, "Behind", 1)
    assert told["error"]["behind"] == {"Users": {str(kept.place.partition): 1}}
    headers = {"Stillwell-After": body["token"], "Stillwell-Timeout-Ms": "10"}
    async with served.client.post("/get-online-features", json=READ, headers=headers) as response:
        assert response.status == 504
        assert "not applied yet" in json.loads(await response.json())["message"]


async def test_a_read_ends_with_its_client_wherever_it_waits_and_takes_nothing_from_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that give up and come again would otherwise have all the requests that there may be, for a minute."""
    monkeypatch.setattr(connections, "_SOUND", 0.01)
    await ready(served)
    after = {"after": "Users@3:0-7", "timeout_ms": 60_000}
    headers = {"Stillwell-After": "Users@3:0-7", "Stillwell-Timeout-Ms": "60000"}
    asked = [
        served.client.post("/v1/features", json={**READ, **after}),
        served.client.post("/v1/features", json={**READ, **after}, headers={"Accept": arrow.STREAM}),
        served.client.get("/v1/features?features=Users:amount&id=7&after=Users@3:0-7&timeout_ms=60000"),
        served.client.post("/get-online-features", json=READ, headers=headers),
    ]
    stays = asyncio.create_task(served.post("/v1/features", **READ, **after))
    gone = [asyncio.create_task(asyncio.wait_for(each, 60)) for each in asked]
    await eventually_here(lambda: served.marks.waiting == 5, what="all wait")
    for each in gone:
        each.cancel()
    await asyncio.wait(gone)
    try:
        await eventually_here(lambda: served.site.in_flight == 1, within_s=5, what="one request under way")
        assert served.marks.waiting == 1
        mark = MarkKey(PartitionId("test.push.Users", 3, 0), "Users", 1)
        await served.store.set_marks([MarkMove(mark, 8, 8)], "epoch")
        assert (await stays)[0] == 200
    finally:
        await served.marks.close()
    assert served.metrics._requests == {("/v1/features", 200): 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_kafka_that_is_away_is_a_503(served: Served, mode: str) -> None:
    await ready(served)
    served.log.faults = lambda topic: "refused"
    async with served.client.post("/v1/push", json={"view": "Users", "rows": [EVENT], "mode": mode}) as response:
        assert response.status == 503
        assert response.headers["Retry-After"]
    served.log.faults = lambda topic: "lost answer"
    status, body = await served.post("/v1/push", view="Users", rows=[EVENT], mode=mode)
    assert (status, body["error"]["kind"]) == (503, "OutcomeUnknown")


async def test_redis_that_is_away_behind_kafka_is_a_503_with_the_token(served: Served) -> None:
    await ready(served)
    served.store.faults = lambda operation: "lost call" if operation == "put" else None
    status, body = await served.post("/v1/push", view="Users", rows=[EVENT])
    assert (status, body["error"]["kind"]) == (503, "NotWritten")
    assert body["error"]["token"].startswith("Users@3:")
    assert len(served.log.records("test.push.Users")) == 1


async def test_redis_that_is_not_ready_publishes_nothing(served: Served) -> None:
    status, body = await served.post("/v1/push", view="Users", rows=[EVENT])
    assert (status, body["error"]["kind"]) == (503, "StoreNotReady")
    assert served.log.records("test.push.Users") == []


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({"rows": [EVENT]}, 422, "view", "is missing; write a text"),
        ({"view": "Users"}, 422, "rows", "is missing; write a list of rows, as"),
        (
            {"view": "Users", "rows": EVENT},
            422,
            "rows.at",
            "must be a list with a value for each row, not a text; rows",
        ),
        ({"view": "Users", "rows": 1}, 422, "rows", "must be a list of rows"),
        ({"view": "Users", "rows": [EVENT], "mode": True}, 422, "mode", "must be sync or async, not a boolean"),
        ({"view": "Users", "rows": [EVENT], "to": None}, 422, "to", "must be online, offline or online_and_offline, n"),
        ({"view": ["Users"], "rows": [EVENT]}, 422, "view", "must be a text, not a list"),
        (
            {"view": "Users", "rows": [EVENT], "transform_on_write": "no"},
            422,
            "transform_on_write",
            "true or false, not",
        ),
        ({"view": "Users", "rows": []}, 422, "rows", "without rows"),
        ({"view": "Users", "rows": {}}, 422, "rows", "without rows"),
        ({"view": "Users", "rows": [EVENT] * 51}, 422, "rows", "at most 50"),
        ({"view": "Users", "rows": [1]}, 422, "rows[0]", "must be an object"),
        ({"view": "Users", "rows": {"id": [1, 2], "name": ["a"]}}, 422, "rows", "id has 2, name has 1"),
        ({"view": "Users", "rows": [EVENT], "mode": "later"}, 422, "mode", "must be sync or async, not 'later'"),
        (
            {"view": "Users", "rows": [EVENT], "to": "both"},
            422,
            "to",
            "must be online, offline or online_and_offline, not 'both'",
        ),
        ({"view": "Users", "rows": [EVENT], "colour": 1}, 422, "colour", "is no word of this request; there is"),
        ({"view": "Users", "rows": [EVENT], "idempotency_key": ""}, 422, "idempotency_key", "1 to 256"),
        ({"view": "Users", "rows": [EVENT], "idempotency_key": "k" * 257}, 422, "idempotency_key", "1 to 256"),
        ({"view": "Usrs", "rows": [EVENT]}, 404, "view", "Users"),
        (
            {"view": "Users", "rows": [EVENT, {}], "mode": "async", "transform_on_write": False},
            422,
            "rows[0]",
            "Nothing of the request was taken",
        ),
    ],
)
async def test_a_wrong_request_names_the_field(
    served: Served, body: dict[str, object], status: int, field: str, says: str
) -> None:
    await ready(served)
    found, answer = await served.post("/v1/push", **body)
    assert (found, answer["error"]["field"]) == (status, field)
    assert says in answer["error"]["message"]
    assert served.log.records("test.push.Users") == []


# ---- idempotency keys ----


async def test_a_push_that_comes_again_under_its_key_is_answered_as_it_was_and_written_once(served: Served) -> None:
    await ready(served)
    body = {"view": "Users", "rows": [EVENT], "idempotency_key": "k1"}
    first = await served.post("/v1/push", **body)
    again = await asyncio.gather(*(served.post("/v1/push", **body) for _ in range(5)))
    assert all(each == first for each in again)
    assert len(served.log.records("test.push.Users")) == 1
    status, told = await served.post("/v1/push", **{**body, "rows": [{**EVENT, "amount": 1.0}]})
    assert (status, told["error"]["field"]) == (422, "idempotency_key")
    assert (await served.post("/v1/push", **{**body, "view": "Places"}))[0] == 200


async def test_the_same_key_at_the_same_moment_is_one_push(served: Served) -> None:
    await ready(served)
    body = {"view": "Users", "rows": [EVENT], "mode": "async", "idempotency_key": "k1"}
    answers = await asyncio.gather(*(served.post("/v1/push", **body) for _ in range(5)))
    assert len({json.dumps(each) for each in answers}) == 1
    assert len(served.log.records("test.push.Users")) == 1


async def test_a_push_that_failed_is_not_remembered_and_a_store_that_is_away_costs_the_memory_alone(
    served: Served,
) -> None:
    await ready(served)
    body = {"view": "Users", "rows": [EVENT], "idempotency_key": "k1"}
    served.log.faults = lambda topic: "refused"
    assert (await served.post("/v1/push", **body))[0] == 503
    served.log.faults = lambda topic: None
    assert (await served.post("/v1/push", **body))[0] == 200
    served.answers.error = StoreUnavailable("away")
    assert (await served.post("/v1/push", **body))[0] == 200
    assert len(served.log.records("test.push.Users")) == 2


# ---- Feast ----


async def test_feast_pushes_events_or_rows_by_what_its_columns_can_be(served: Served) -> None:
    """Times without a zone are in UTC; `created` is Feast's own; a mode that is not said is synchronous."""
    await ready(served)
    naive = "2026-01-01T00:00:00"
    events = columns({**EVENT, "at": naive, "created": naive})
    rows = columns({**ROW, "event_timestamp": "2026-01-01 00:00:00.5", "created": None})
    status, body = await served.post("/push", push_source_name="Users", df=events, to="online_and_offline")
    assert (status, body["statuses"]) == (200, ["applied"])
    assert head_of(served.log.records("test.push.Users")[0].record.headers).raw is not None
    status, body = await served.post("/push", push_source_name="Users", df=rows, allow_registry_cache=True)
    assert (status, body["statuses"]) == (200, ["applied"])
    at_source = {"at" if name == "event_timestamp" else name: column for name, column in rows.items()}
    del at_source["created"]
    status, body = await served.post("/push", push_source_name="Users", df=at_source, transform_on_write=False)
    assert (status, body["statuses"][0]) in ((200, "applied"), (200, "stale"))
    status, body = await served.post("/push", push_source_name="Users", df=events, mode="async")
    assert status == 202


@pytest.mark.parametrize(
    ("at", "read"), [(1_767_225_600, 1_767_225_600), (0, 0), (-1, -1), (253_402_300_799, 253_402_300_799)]
)
async def test_feast_sends_features_that_are_times_as_seconds(served: Served, at: int, read: int) -> None:
    await ready(served)
    rows = columns({**ROW, "seen": at})
    status, body = await served.post("/write-to-online-store", feature_view_name="Users", df=rows)
    assert (status, body) == (200, None)
    asked = {"features": ["Users:seen"], "entities": {"id": [7]}}
    assert (await served.post("/get-online-features", **asked))[1]["results"][1]["values"] == [read]


@pytest.mark.parametrize("at", [253_402_300_800, 2**62, -(2**62), True, 1.5, "1767225600"])
async def test_what_is_no_time_is_refused_by_its_name(served: Served, at: object) -> None:
    await ready(served)
    df = columns({**ROW, "seen": at})
    status, text = await served.post("/write-to-online-store", feature_view_name="Users", df=df)
    assert status == 422
    assert "rows[0]: seen: expected Timestamp" in _message(text)


async def test_feast_writes_features_that_it_has_computed(served: Served) -> None:
    await ready(served)
    body = {"feature_view_name": "Users", "df": columns({**ROW, "created": None}), "allow_registry_cache": False}
    assert await served.post("/write-to-online-store", **body) == (200, None)
    head = head_of(served.log.records("test.push.Users")[0].record.headers)
    assert (head.transform, head.to, head.raw) == (False, To.ONLINE, None)
    assert (await served.post("/v1/features", **READ))[1]["features"]["Users:large"]["values"] == [True]


async def test_a_row_that_feast_gets_wrong_refuses_the_whole_in_feasts_words(served: Served) -> None:
    """It understands no answer for single rows."""
    await ready(served)
    wrong = columns(ROW, {**ROW, "id": 1.5})
    for path, named in (("/write-to-online-store", "feature_view_name"), ("/push", "push_source_name")):
        status, text = await served.post(path, **{named: "Users", "df": wrong, "transform_on_write": False})
        assert status == 422
        assert "rows[1]: id: expected Int64" in _message(text)
        assert served.log.records("test.push.Users") == []
        status, text = await served.post(path, **{named: "Usrs", "df": wrong})
        assert status == 404
        assert "did you mean 'Users'" in _message(text)


def _message(text: Any) -> str:
    told: dict[str, str] = json.loads(text)
    assert told["module"] == "feast.errors"
    return told["message"]


def test_what_may_become_of_pushes_is_shown_before_the_first(served: Served) -> None:
    """Prometheus sees no rise in what first shows when it is 50."""
    (shown,) = [family for family in served.metrics.collect() if f"{family.name}_total" == PUSHED.name]
    began = {(sample.labels["view"], sample.labels["result"]): sample.value for sample in shown.samples}
    views = {view.name for view in DEFINITIONS.views}
    assert began == {(view, status.value): 0 for view in views for status in PushStatus}


async def test_what_was_pushed_is_counted(served: Served) -> None:
    await ready(served)
    await served.post("/v1/push", view="Users", rows=[EVENT, {**EVENT, "id": None}])
    await served.post("/v1/push", view="Places", rows=[EVENT], mode="async")
    assert served.metrics.get(PUSHED, "Users", "applied") == 1
    assert served.metrics.get(PUSHED, "Users", "rejected") == 1
    assert served.metrics.get(PUSHED, "Places", "accepted") == 1


async def test_a_push_to_what_is_no_view_says_what_it_is_and_where_to_push(served: Served) -> None:
    rows = columns(EVENT)
    for path, field, body in (
        ("/v1/push", "view", {"rows": rows}),
        ("/push", "push_source_name", {"df": rows}),
        ("/write-to-online-store", "feature_view_name", {"df": rows}),
    ):
        status, answer = await served.post(path, **{field: "User", **body})
        said = answer["error"]["message"] if path == "/v1/push" else json.loads(answer)["message"]
        assert status == 404
        assert said.startswith(f"{field}: User is an entity: push to Users")
    assert (
        "a push source is called as its view"
        in json.loads((await served.post("/push", push_source_name="user_stats", df=rows))[1])["message"]
    )
