"""Predictions over HTTP, and beside features: over a store in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import polars as pl
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from serving import described, v1
from serving.features import Features
from serving.limits import Limits
from serving.metrics import MODEL_CALLS, PREDICTIONS, Metrics
from serving.openapi import Names
from serving.pages import FeastPages, OwnPages
from serving.predictions import PredictionPages
from serving.web import Bounds, Site
from stillwell.errors import ModelError
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import NoHints
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.prediction import Refresh
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.store import StoredAt
from stillwell.predictions.watching import Call
from stillwell.reading.features import FeatureReader
from stillwell.reading.online import Stored
from stillwell.reading.status import Freshness, Status
from stillwell.spec import InputSpec, ModelSpec, RequestColumnSpec, RequestSpec, ViewSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import FLOAT32, FLOAT64
from tests.batches import feature
from tests.predicted import DEFINITIONS, Adding, V, encoded_row, model
from tests.served import Listening, Served

NOW_MS = 1_767_225_600_000
KEYS = RedisKeys("test", "test")
DELAY = model()


class Service:
    """The service with a model whose readers wait, unless a test says otherwise; the time is what the test says."""

    def __init__(
        self, model: ModelSpec = DELAY, server: MemoryRedis | None = None, requests: tuple[RequestSpec, ...] = ()
    ) -> None:
        self.ms = NOW_MS
        self.registered: list[ViewSpec] = []
        self.server = server or MemoryRedis(clock=lambda: self.ms)
        self.server.write(KEYS.ready, b"epoch")
        self.store = MemoryOnlineStore(self.server)
        self.model = Adding()
        self.metrics = Metrics()
        definitions = DEFINITIONS.model_copy(update={"models": (model,), "requests": requests})
        engine = Engine(
            model,
            ModelInputs(model, definitions),
            self.model,
            MemoryPredictions(self.server),
            KEYS,
            self.metrics,
            chance=lambda: 0.0,
        )
        reader = ModelReader(engine, self.store, KEYS, NoHints(), self._now_us, self.metrics, chance=lambda: 0.0)
        self.readers = ModelReaders({"Delay": reader}, definitions, self._now_us)
        features = Features(
            definitions,
            FeatureReader(self.store, KEYS, self._now_us, self.readers),
            Limits(50, 10, 200),
            self.metrics,
            models=self.readers,
            registered=lambda: self.registered,
        )
        pages = [*FeastPages(features).pages(), *OwnPages(features).pages()]
        pages += PredictionPages(features, self.readers, self._now_us).pages()
        site = Site(pages, v1.error_body, Bounds(), self.metrics.request)
        self.client: TestClient[web.BaseRequest, None] = TestClient(Listening(site))

    def _now_us(self) -> int:
        return self.ms * 1_000

    async def put(self, id: int, delay: float | None) -> None:
        await self.store.put(encoded_row(id, delay, self.ms * 1_000), "epoch")

    async def post(self, path: str, **body: object) -> tuple[int, Any]:
        async with self.client.post(path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.client.get(path) as response:
            return response.status, await response.json()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    async with made.client:
        yield made
    await made.readers.close()


async def test_a_prediction_comes_with_all_that_is_known_of_it(service: Service) -> None:
    await service.put(7, 30.0)
    status, body = await service.post("/v1/predictions", model="Delay", entities={"id": [7, 8]})
    assert status == 200
    assert (body["model"], body["version"], body["entities"]) == ("Delay", "3", {"id": [7, 8]})
    assert body["types"] == {"minutes": "Float32"}
    known, unknown = body["predictions"]
    assert known == {
        "state": "FRESH",
        "outputs": {"minutes": 31.0},
        "computed_at": known["computed_at"],
        "read_at": "2026-01-01T00:00:00Z",
        "age_s": 0.0,
        "inputs": {"V": {"event_time": "2026-01-01T00:00:00Z", "age_s": 0.0}},
        "refresh": "inline",
        "reason": None,
    }
    assert (unknown["state"], unknown["outputs"], unknown["reason"]) == ("FAILED", None, "delay is unknown")
    described_as = described.schemas(Names(None, None, None, (), Limits(50, 10, 200)))["Prediction"]
    assert known.keys() == described_as["properties"].keys() == set(described_as["required"])
    status, body = await service.get("/v1/predictions?model=Delay")
    assert (status, body["error"]["field"]) == (422, "id")
    assert body["error"]["message"] == "id: is missing; a prediction of Delay needs id"
    service.ms += 1_500
    _, body = await service.get("/v1/predictions?model=Delay&id=7")
    assert body["entity"] == {"id": 7}
    assert (body["prediction"]["state"], body["prediction"]["age_s"], body["prediction"]["refresh"]) == (
        "FRESH",
        1.5,
        "none",
    )
    assert service.model.calls == 1


async def test_an_output_stands_beside_features(service: Service) -> None:
    await service.put(7, 30.0)
    status, body = await service.post("/v1/features", features=["Delay:minutes", "V:delay"], entities={"id": [7, 8]})
    assert status == 200
    minutes = body["features"]["Delay:minutes"]
    assert (minutes["type"], minutes["values"], minutes["statuses"], minutes["freshness"]) == (
        "Float32",
        [31.0, None],
        ["PRESENT", "NOT_FOUND"],
        ["FRESH", None],
    )
    assert minutes["event_times"] == ["2026-01-01T00:00:00Z", None]
    assert body["features"]["V:delay"]["values"] == [30.0, None]
    _, body = await service.post("/get-online-features", features=["Delay:minutes"], entities={"id": [7]})
    assert body["metadata"]["feature_names"] == ["id", "minutes"]
    assert body["results"][1] == {
        "values": [31.0],
        "statuses": ["PRESENT"],
        "event_timestamps": ["2026-01-01T00:00:00Z"],
    }


@pytest.mark.parametrize("ids", [[7], [7, 8]])
async def test_features_beside_a_prediction_that_was_just_computed_are_of_the_rows_that_the_model_was_asked_about(
    service: Service, monkeypatch: pytest.MonkeyPatch, ids: list[int]
) -> None:
    """Rows change behind the read of features, whose prediction is missing, and before its inputs are read."""
    for id in ids:
        await service.put(id, 30.0)
    read_at = MemoryPredictions.read_at

    async def changed(store: MemoryPredictions, keys: Sequence[bytes]) -> StoredAt:
        service.ms += 1_000
        await service.put(7, 40.0)
        return await read_at(store, keys)

    monkeypatch.setattr(MemoryPredictions, "read_at", changed)
    _, body = await service.post("/v1/features", features=["V:delay", "Delay:minutes"], entities={"id": ids})
    delay, minutes = body["features"]["V:delay"], body["features"]["Delay:minutes"]
    assert (minutes["values"][0], minutes["freshness"]) == (41.0, ["FRESH"] * len(ids))
    assert (delay["values"], delay["ages_s"]) == ([40.0, 30.0][: len(ids)], [0.0, 1.0][: len(ids)])


@pytest.mark.parametrize("ids", [[7], [7, 8]])
async def test_features_beside_a_prediction_that_was_read_later_are_of_the_rows_that_it_is_of(
    service: Service, monkeypatch: pytest.MonkeyPatch, ids: list[int]
) -> None:
    """As where one call to the store does not hold all: rows change between two, and are predicted from."""
    for id in ids:
        await service.put(id, 30.0)
    (reader,) = service.readers._readers.values()
    read, first, changed = service.store.read, asyncio.Lock(), asyncio.Event()

    async def read_by_parts(keys: Sequence[bytes]) -> Stored:
        if first.locked():
            await changed.wait()
            return await read(keys)
        await first.acquire()
        found = await read(keys)
        service.ms += 1_000
        await service.put(7, 40.0)
        await reader.engine.compute(reader.engine.entities({"id": ids}), 1.0)
        changed.set()
        return found

    monkeypatch.setattr(service.store, "read", read_by_parts)
    _, body = await service.post("/v1/features", features=["V:delay", "Delay:minutes"], entities={"id": ids})
    delay, minutes = body["features"]["V:delay"], body["features"]["Delay:minutes"]
    assert (minutes["values"][0], minutes["freshness"]) == (41.0, ["FRESH"] * len(ids))
    assert (delay["values"], delay["ages_s"]) == ([40.0, 30.0][: len(ids)], [0.0, 1.0][: len(ids)])
    assert service.model.calls == 1


async def test_a_prediction_that_ends_while_another_model_of_the_answer_is_waited_for_is_late() -> None:
    server = MemoryRedis(clock=lambda: ms)
    server.write(KEYS.ready, b"epoch")
    store, ms = MemoryOnlineStore(server), NOW_MS
    models = (DELAY, DELAY.model_copy(update={"name": "Other"}))
    definitions = DEFINITIONS.model_copy(update={"models": models})

    def now_us() -> int:
        return ms * 1_000

    async def slowly(delays: list[Any]) -> None:
        nonlocal ms
        ms += 60_000

    asked = {each.name: Adding() for each in models}
    readers = {}
    for each in models:
        inputs, predictions = ModelInputs(each, definitions), MemoryPredictions(server)
        engine = Engine(each, inputs, asked[each.name], predictions, KEYS, chance=lambda: 0.0)
        readers[each.name] = ModelReader(engine, store, KEYS, NoHints(), now_us, chance=lambda: 0.0)
    together = ModelReaders(readers, definitions, now_us)
    features = Features(definitions, FeatureReader(store, KEYS, now_us, together), Limits(50, 10, 200), models=together)
    await store.put(encoded_row(7, 30.0, now_us()), "epoch")
    await together.read("Delay", {"id": [7]})
    asked["Other"].before = slowly
    ms += 1
    found = await features.find(features.plan(["Delay:minutes", "Other:minutes"]), {"id": [7]})
    assert [(each.values[0], each.statuses[0], each.freshness) for each in found.columns] == [
        (31.0, Status.OUTSIDE_MAX_AGE, [Freshness.LATE]),
        (31.0, Status.PRESENT, [Freshness.FRESH]),
    ]
    await together.close()


async def test_each_prediction_that_is_read_is_counted_once(service: Service) -> None:
    await service.put(7, 30.0)

    def counted() -> tuple[float, ...]:
        return tuple(service.metrics.get(PREDICTIONS, "Delay", "FRESH", refresh) for refresh in ("inline", "none"))

    await service.post("/get-online-features", features=["Delay:minutes"], entities={"id": [7]})
    assert counted() == (1, 0)
    await service.post("/get-online-features", features=["Delay:minutes"], entities={"id": [7]})
    assert counted() == (1, 1)
    await service.post("/get-online-features", features=["Delay:minutes"], entities={"id": [7, 7]})
    assert counted() == (1, 3)
    await service.get("/v1/predictions?model=Delay&id=7")
    assert counted() == (1, 4)


async def test_predictions_that_are_read_are_counted_by_what_they_were_worth(service: Service) -> None:
    await service.put(7, 30.0)
    service.model.error = ModelError("the shape is wrong")
    for _ in range(2):  # the second does not ask: the model has just failed over the same inputs
        await service.get("/v1/predictions?model=Delay&id=7")
    service.model.error = None
    service.ms += 10_000
    await service.get("/v1/predictions?model=Delay&id=7")
    service.readers._readers["Delay"].engine.model = DELAY.model_copy(update={"policy": "cached"})
    await service.put(7, 40.0)
    await service.post("/v1/predictions", model="Delay", entities={"id": [7, 8, 8, 7, 8]})
    counted = {
        (state, refresh): service.metrics.get(PREDICTIONS, "Delay", state.value, refresh.value)
        for state in State
        for refresh in Refresh
    }
    assert {what: count for what, count in counted.items() if count} == {
        (State.FAILED, Refresh.INLINE): 1,
        (State.FAILED, Refresh.NONE): 1,
        (State.FRESH, Refresh.INLINE): 1,
        (State.STALE, Refresh.NONE): 2,
        (State.MISSING, Refresh.NONE): 3,
    }


async def test_what_a_model_said_to_readers_who_waited_is_counted(service: Service) -> None:
    await service.put(7, 30.0)
    await service.post("/v1/predictions", model="Delay", entities={"id": [7, 8]})
    service.ms += 10
    await service.put(7, 40.0)
    service.model.error = ModelError("the shape is wrong")
    await service.get("/v1/features?features=Delay:minutes&id=7")
    counted = {call: service.metrics.get(MODEL_CALLS, "Delay", call.value) for call in Call}
    assert counted == {Call.ANSWERED: 1, Call.UNUSABLE: 1, Call.FAILED: 1, Call.UNAVAILABLE: 0}


async def test_each_value_of_a_request_has_a_prediction_of_its_own() -> None:
    inputs = [("delay", "Search:late", FLOAT64), ("stored", "V:delay", FLOAT32)]
    asked = DELAY.model_copy(
        update={"inputs": tuple(InputSpec(name=name, reference=of, type=kind) for name, of, kind in inputs)}
    )
    search = RequestSpec(name="Search", columns=(RequestColumnSpec(name="late", type=FLOAT64, nullable=False),))
    service = Service(asked, requests=(search,))

    async def minutes_of_one(late: float) -> tuple[float, str]:
        status, body = await service.get(f"/v1/predictions?model=Delay&id=7&late={late}")
        assert status == 200, body
        return body["prediction"]["outputs"]["minutes"], body["prediction"]["refresh"]

    async with service.client:
        await service.put(7, 30.0)
        found = [await minutes_of_one(late) for late in (900.0, 901.0, 900.0)]
        assert found == [(901.0, "inline"), (902.0, "inline"), (901.0, "none")]
        assert service.model.asked == [[900.0], [901.0]]
        of_many = {"id": [7] * 4, "late": [901.0, 902.0, 900.0, 902.0]}
        _, body = await service.post("/v1/predictions", model="Delay", entities=of_many)
        assert [each["outputs"]["minutes"] for each in body["predictions"]] == [902.0, 903.0, 901.0, 903.0]
        assert service.model.asked == [[900.0], [901.0], [902.0]]
    await service.readers.close()


async def test_beside_features_it_is_late_when_its_inputs_changed_and_outside_when_it_is_too_old(
    service: Service,
) -> None:
    await service.put(7, 30.0)
    await service.post("/v1/predictions", model="Delay", entities={"id": [7]})
    service.readers._readers["Delay"].engine.model = DELAY.model_copy(update={"policy": "cached"})

    async def worth() -> tuple[object, object, object]:
        _, body = await service.get("/v1/features?features=Delay:minutes&id=7")
        found = body["features"]["Delay:minutes"]
        return found["value"], found["status"], found["freshness"]

    assert await worth() == (31.0, "PRESENT", "FRESH")
    service.ms += 10
    await service.put(7, 40.0)
    assert await worth() == (31.0, "PRESENT", "LATE")
    service.ms += 60_000
    assert await worth() == (31.0, "OUTSIDE_MAX_AGE", "LATE")
    service.ms += 600_000
    assert await worth() == (None, "NOT_FOUND", None)


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "telling"),
    [
        ("/v1/predictions", {"model": "Delai", "entities": {}}, 404, "model", "did you mean 'Delay'"),
        ("/v1/predictions", {"model": "Delay", "entities": {}}, 422, "entities.id", "is missing"),
        ("/v1/predictions", {"model": "Delay", "entities": {"id": ["7"]}}, 422, "entities.id[0]", "Int64"),
        ("/v1/predictions", {"model": "Delay", "entities": {"id": list(range(51))}}, 422, "entities", "at most 50"),
        ("/v1/predictions", {"model": "Delay", "entities": {"id": [7], "x": [1]}}, 422, "entities.x", "no key"),
        ("/v1/predictions", {"entities": {"id": [7]}}, 422, "model", "is missing; write a text"),
        ("/v1/predictions", {"model": "Delay", "entities": {"id": 7}}, 422, "entities.id", "as [7], not a number"),
        (
            "/v1/features",
            {"features": ["Delay:hours"], "entities": {"id": [7]}},
            404,
            "features[0]",
            "no output 'hours'",
        ),
    ],
)
async def test_what_is_wrong_is_told_by_its_field(
    service: Service, path: str, body: dict[str, Any], status: int, field: str, telling: str
) -> None:
    found, answer = await service.post(path, **body)
    assert (found, answer["error"]["field"]) == (status, field)
    assert telling in answer["error"]["message"]


async def test_a_store_that_may_have_lost_rows_answers_503(service: Service) -> None:
    service.server.evict(KEYS.ready)
    for path, body in (
        ("/v1/predictions", {"model": "Delay", "entities": {"id": [7]}}),
        ("/v1/features", {"features": ["Delay:minutes"], "entities": {"id": [7]}}),
    ):
        assert (await service.post(path, **body))[0] == 503


async def test_rows_of_a_version_that_was_registered_meanwhile_are_read(service: Service) -> None:
    newer = V.model_copy(
        update={"version": 2, "features": (*V.features, feature("more", FLOAT32, pl.col("T.delay"), nullable=True))}
    )
    service.registered = [newer]
    await service.store.put(encoded_row(7, 30.0, NOW_MS * 1_000, of=newer), "epoch")
    status, answer = await service.post("/v1/predictions", model="Delay", entities={"id": [7]})
    assert (status, answer["predictions"][0]["outputs"]) == (200, {"minutes": 31.0})


async def test_definitions_without_a_model_are_told_to_who_asks_for_a_prediction(served: Served) -> None:
    for status, answer in (
        await served.post("/v1/predictions", model="Delay", entities={"id": [1]}),
        await served.get("/v1/predictions?model=Delay&id=1"),
    ):
        assert (status, answer["error"]["kind"], answer["error"]["field"]) == (404, "NotDefined", "model")
        assert "the definitions have no model" in answer["error"]["message"]
        assert "write a Model, and start workers and query service anew" in answer["error"]["message"]


async def test_a_view_that_is_asked_for_as_a_model_is_told_with_how_to_read_it(service: Service) -> None:
    status, answer = await service.post("/v1/predictions", model="V", entities={"id": [1]})
    assert (status, answer["error"]["message"]) == (404, "model: V is no model; read its features, as V:delay")
