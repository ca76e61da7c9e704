"""Hints as records: who reads one looks at the very prediction that it was written for."""

import math

import pytest

from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import Cause, Hint, decode, encode
from stillwell.predictions.inputs import ModelInputs
from stillwell.spec import InputSpec, RequestColumnSpec, RequestSpec
from stillwell.testing.online import MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import FLOAT64, vector_of
from tests.predicted import DEFINITIONS, Adding, model

TASTE = vector_of(FLOAT64, 2)
SEARCH = RequestSpec(
    name="Search",
    columns=(
        RequestColumnSpec(name="weight", type=FLOAT64, nullable=True),
        RequestColumnSpec(name="taste", type=TASTE, nullable=True),
    ),
)


def engine() -> Engine:
    """Of a model that reads a number of the request."""
    made = model()
    weight = InputSpec(name="weight", reference="Search:weight", type=FLOAT64)
    taste = InputSpec(name="taste", reference="Search:taste", type=TASTE)
    made = made.model_copy(update={"inputs": (*made.inputs, weight, taste)})
    inputs = ModelInputs(made, DEFINITIONS.model_copy(update={"requests": (SEARCH,)}))
    return Engine(made, inputs, Adding(), MemoryPredictions(MemoryRedis()), RedisKeys("test", "test"))


@pytest.mark.parametrize("weight", [1.5, -0.0, 0.1, 1e300, math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("early", [0, 1_767_225_600_000_123])
def test_a_hint_leads_to_the_prediction_that_it_was_written_for(weight: float | None, early: int) -> None:
    """Else the model is asked for another one each time, and this one is stale for ever."""
    of = engine()
    taste = None if weight is None else [weight, -weight]
    (entity,) = of.entities({"id": [7], "weight": [weight], "taste": [taste]})
    _, value = encode(Hint.of("Delay", entity, Cause.READ, early))
    found = decode(value, {"Delay": of}, 5)
    assert (found.model, found.key, found.digest, found.cause) == ("Delay", entity.key, entity.digest, Cause.READ)
    assert found.early == early
    assert repr(found.values["weight"]) == repr(weight)
    assert repr(found.values["taste"]) == repr(taste)


def test_a_hint_with_a_vector_of_another_size_is_none() -> None:
    of = engine()
    (entity,) = of.entities({"id": [7], "weight": [None], "taste": [[1.0, 2.0]]})
    _, value = encode(Hint.of("Delay", entity, Cause.READ))
    with pytest.raises(ValueError, match="does not fit: Expected a list of 2, got one of 1"):
        decode(value.replace(b"[1.0,2.0]", b"[1.0]"), {"Delay": of}, 5)
