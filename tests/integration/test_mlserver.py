"""A real MLServer with a real model of scikit-learn, trained on the flights."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwell.errors import ModelError, ModelUnavailable
from stillwell.predictions.inference import ServedModel
from stillwell.predictions.tensors import Unusable
from stillwell.spec import ModelSpec, OpenInferenceSpec
from stillwell.types import BOOL, FLOAT32, INT32, INT64, vector_of
from tests.mlserver.server import MODEL, ModelServer
from tests.predicted import model

INPUTS = {"late": BOOL, "delay": FLOAT32, "distance": INT32}
FLIGHTS: dict[str, list[Any]] = {
    "late": [True, False, False],
    "delay": [120.0, -5.0, None],
    "distance": [2475, 2475, 200],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    running = ModelServer(tmp_path_factory.mktemp("mlserver"))
    running.start()
    yield running
    running.stop()


def client(server: ModelServer, spec: ModelSpec | None = None, name: str = MODEL) -> ServedModel:
    where = OpenInferenceSpec(url=server.url, model=name, timeout=datetime.timedelta(seconds=20))
    return ServedModel(spec or model(INPUTS), where, server.url)


async def test_flights_are_predicted_in_their_order(server: ModelServer) -> None:
    asked = client(server)
    await asked.check()
    answers = await asked.infer(FLIGHTS, 3)
    minutes = [each["minutes"] for each in answers if not isinstance(each, Unusable)]
    late, early, unknown = minutes
    assert isinstance(late, float)
    assert isinstance(early, float)
    assert isinstance(unknown, float)
    assert late > 60 > early
    each_alone = [await asked.infer({name: [values[at]] for name, values in FLIGHTS.items()}, 1) for at in range(3)]
    assert [answer for (answer,) in each_alone] == answers
    await asked.close()


async def test_a_large_batch_is_answered_though_the_server_would_compress_it(server: ModelServer) -> None:
    """It packs answers of more than a thousand bytes for whoever takes them packed."""
    asked = client(server)
    answers = await asked.infer({name: values * 20 for name, values in FLIGHTS.items()}, 60)
    assert len(answers) == 60
    assert not [each for each in answers if isinstance(each, Unusable)]
    assert answers[:3] == answers[-3:] == await asked.infer(FLIGHTS, 3)
    await asked.close()


async def test_a_definition_that_differs_is_told_before_anything_is_asked(server: ModelServer) -> None:
    asked = client(server, model({**INPUTS, "distance": INT64}))
    with pytest.raises(ModelError, match="'distance' is Int64, which wants INT64, and INT32 at the server"):
        await asked.check()
    missing = client(server, name="no-such-model")
    with pytest.raises(ModelError, match="refused with 404"):
        await missing.check()
    await asked.close()
    await missing.close()


async def test_a_server_that_was_killed_is_missed_and_found_again(server: ModelServer) -> None:
    asked = client(server)
    assert len(await asked.infer(FLIGHTS, 3)) == 3
    server.kill()
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await asked.infer(FLIGHTS, 3)
    server.start()
    assert len(await asked.infer(FLIGHTS, 3)) == 3
    await asked.close()


async def test_a_shape_that_it_does_not_take_is_a_failure_with_its_own_words(tmp_path: Path) -> None:
    """It answers with a text and the status 500."""
    running = ModelServer(tmp_path, inputs=[])
    running.start()
    try:
        asked = client(running, model({"late": BOOL}))
        with pytest.raises(ModelError, match=r"failed with 500|refused with 4\d\d"):
            await asked.infer({"late": [True]}, 1)
        await asked.close()
    finally:
        running.stop()


async def test_a_vector_is_one_tensor_of_its_width(server: ModelServer, tmp_path: Path) -> None:
    """The three inputs of the model in one give what they give as three."""
    together = [{"name": "flight", "datatype": "FP32", "shape": [-1, 3]}]
    running = ModelServer(tmp_path, inputs=together, parameters={"content_type": "np"})
    running.start()
    try:
        asked = client(running, model({"flight": vector_of(FLOAT32, 3)}))
        await asked.check()
        flights = [[float(value) for value in row] for row in zip(*(FLIGHTS[name][:2] for name in INPUTS), strict=True)]
        apart = client(server)
        assert await asked.infer({"flight": flights}, 2) == (await apart.infer(FLIGHTS, 3))[:2]
        wide = client(running, model({"flight": vector_of(FLOAT32, 4)}))
        with pytest.raises(ModelError, match=r"the shape \[-1, 3\] at the server: 4 values for each entity, \[-1, 4\]"):
            await wide.check()
        for each in (asked, apart, wide):
            await each.close()
    finally:
        running.stop()
