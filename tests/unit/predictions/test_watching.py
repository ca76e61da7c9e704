"""What came of asking a model: counted alike by a worker and by the query service, under one name on both pages."""

import datetime
import math
from collections.abc import Callable

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from serving import metrics as of_service
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import free_port
from stillwell.predictions.engine import Engine
from stillwell.predictions.inference import open_inference
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.watching import MODEL_CALLS, MODEL_SECONDS, Call, Watcher
from stillwell.spec import OpenInferenceSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from streams import metrics as of_worker
from streams.engine_metrics import EngineMetrics
from tests.predicted import DEFINITIONS, Handler, OddServer, encoded_rows, model, outputs, text

KEYS = RedisKeys("test", "test")
ENTITIES = 3

Watched = tuple[Watcher, Callable[[], bytes]]
"""Who counts, and the page on which it stands."""


def worker() -> Watched:
    metrics = of_worker.Metrics()
    metrics.begin_model("Delay")
    return EngineMetrics(metrics), metrics.text


def service() -> Watched:
    metrics = of_service.Metrics()
    metrics.begin_model("Delay")
    return metrics, lambda: of_service.page([of_service.snapshot([metrics])])


@pytest.fixture(params=[worker, service])
def watched(request: pytest.FixtureRequest) -> Watched:
    made: Watched = request.param()
    return made


def counted(page: bytes) -> tuple[dict[str, float], float]:
    """How many entities a model was asked about, by what came of it; and how many calls were timed."""
    samples = [sample for family in text_string_to_metric_families(page.decode()) for sample in family.samples]
    (calls,) = [each.value for each in samples if each.name == f"{MODEL_SECONDS.name}_count"]
    return {each.labels["answer"]: each.value for each in samples if each.name == MODEL_CALLS.name}, calls


def became(**entities: int) -> dict[str, float]:
    return {call.value: entities.get(call.value, 0) for call in Call}


async def ask(watched: Watched, url: str, patience: float = 10.0) -> None:
    """Have a model asked about some entities, as whoever computes predictions does."""
    spec = OpenInferenceSpec(url=url, model="delay", timeout=datetime.timedelta(seconds=patience), retries=0)
    asked = model().model_copy(update={"server": spec})
    server = MemoryRedis()
    server.write(KEYS.ready, b"epoch")
    delays: dict[int, float | None] = {id: float(id) for id in range(ENTITIES)}
    await MemoryOnlineStore(server).put(encoded_rows(delays, 1_767_225_600_000_000), "epoch")
    inference = open_inference(asked, {})
    engine = Engine(asked, ModelInputs(asked, DEFINITIONS), inference, MemoryPredictions(server), KEYS, watched[0])
    await engine.compute(engine.entities({"id": list(delays)}), 10.0)
    await inference.close()


async def odd(request: web.Request) -> web.StreamResponse:
    """Answers NaN for the first entity."""
    (first, *others) = (await request.json())["inputs"][0]["data"]
    return web.json_response(outputs([math.nan * first, *others]))


@pytest.mark.parametrize(
    ("answer", "entities"),
    [
        (None, {"answered": 3}),
        (odd, {"answered": 2, "unusable": 1}),
        (text(400, "expected 3 features"), {"failed": 3}),
        (text(200, "hello"), {"failed": 3}),
        (text(500, "broken"), {"unavailable": 3}),
        (text(503, "busy"), {"unavailable": 3}),
    ],
    ids=["answers", "NaN", "400", "no JSON", "500", "503"],
)
async def test_what_a_model_answers_is_counted_by_what_it_is_worth(
    watched: Watched, answer: Handler | None, entities: dict[str, int]
) -> None:
    page = watched[1]
    assert counted(page()) == (became(), 0)
    async with OddServer().running() as server:
        server.answer = answer
        await ask(watched, server.url)
    assert counted(page()) == (became(**entities), 1)


async def test_a_server_that_is_down_or_slow_is_counted_as_unavailable(watched: Watched) -> None:
    page = watched[1]
    await ask(watched, f"http://127.0.0.1:{free_port()}")
    assert counted(page()) == (became(unavailable=3), 1)
    async with OddServer().running() as server:
        server.hold.clear()
        await ask(watched, server.url, patience=0.2)
        server.hold.set()
    assert counted(page()) == (became(unavailable=6), 2)


async def test_a_model_that_is_left_alone_was_not_asked(watched: Watched) -> None:
    await ask(watched, "env:DELAY_URL_THAT_NOBODY_HAS_SET")
    assert counted(watched[1]()) == (became(), 0)
