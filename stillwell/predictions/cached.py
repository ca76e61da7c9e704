"""Predictions as they are there, for who has none computed: whatever a model's policy is, nobody is asked or told.

What is read is what the query service reads, by the same look, and judged as there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stillwell.errors import ModelUnavailable
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import NoHints
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.store import PredictionStore
from stillwell.predictions.tensors import Said
from stillwell.reading.online import OnlineReader
from stillwell.spec import DefinitionsSpec


def cached_readers(
    definitions: DefinitionsSpec,
    online: OnlineReader,
    store: PredictionStore,
    keys: RedisKeys,
    now_us: Callable[[], int],
) -> ModelReaders:
    """Reads the predictions of every model. now_us: the clock that ages are counted by, in µs since the epoch."""
    made = {}
    for model in definitions.models:
        cached = model.model_copy(update={"policy": "cached"})
        engine = Engine(cached, ModelInputs(cached, definitions), _Unasked(), store, keys)
        made[model.name] = ModelReader(engine, online, keys, NoHints(), now_us)
    return ModelReaders(made, definitions, now_us)


class _Unasked:
    """A model that nobody asks: see `stillwell.predictions.inference.Inference`."""

    async def check(self) -> None:
        """There is nothing to look at."""

    async def infer(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[Said]:
        """Raises ModelUnavailable."""
        raise ModelUnavailable("predictions are read here, and not computed")

    async def close(self) -> None:
        """Nothing is open."""
