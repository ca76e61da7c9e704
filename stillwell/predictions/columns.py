"""The predictions of all models of a deployment: by entity with all that is known, and as columns beside features.

Beside features, a prediction has the same four statuses. It is PRESENT (or NULL_VALUE) while its inputs were read no
longer ago than the model's max_staleness, which is what the model's owner has declared to be good enough, and
OUTSIDE_MAX_AGE after that; NOT_FOUND where there is none. Whether it is of the inputs as they are now is told beside
it, as for a view's objective: FRESH, or LATE. Its event time is when its inputs were read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stillwell.errors import RequestError
from stillwell.layout.entity_key import WrongKey
from stillwell.predictions.freshness import State
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.prediction import Prediction
from stillwell.predictions.reading import Asked, Fresh, ModelReader
from stillwell.reading.online import Stored
from stillwell.reading.plan import Place
from stillwell.reading.predicted import PredictedColumns
from stillwell.reading.status import Freshness, Status, present
from stillwell.spec import DefinitionsSpec, ModelSpec, ViewSpec


class ModelReaders:
    """Reads the predictions of every model."""

    def __init__(
        self, readers: Mapping[str, ModelReader], definitions: DefinitionsSpec, now_us: Callable[[], int]
    ) -> None:
        self._readers = readers
        self._definitions = definitions
        self._now_us = now_us

    def know(self, versions: Iterable[ViewSpec]) -> None:
        """Read rows of these versions of views too, in the place of those that were told before."""
        versions = tuple(versions)
        for reader in self._readers.values():
            reader.engine.inputs = ModelInputs(reader.engine.model, self._definitions, versions)

    async def read(self, model: str, columns: Mapping[str, Sequence[Any]]) -> list[Prediction]:
        """The predictions for entities, typed, in their order. Raises RequestError, and what the store raises."""
        reader = self._readers[model]
        return await reader.told(await reader.look(self._asked(reader, columns)))

    def _asked(self, reader: ModelReader, columns: Mapping[str, Sequence[Any]]) -> Asked:
        try:
            return reader.asked(columns)
        except WrongKey as error:
            raise RequestError(f"entities.{error.key}[{error.row}]", error.problem) from None

    async def columns(self, model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> PredictedColumns:
        """See `stillwell.reading.predicted.Predictions`."""
        reader = self._readers[model.name]
        asked, places = self._asked(reader, columns), reader.engine.inputs.places
        answer = await reader.stored(asked)
        if len(asked.keys) == 1 and (fresh := reader.fresh(answer)):
            return _of_one(fresh, answer, places)
        looked = reader.looked(asked, answer)
        if looked.all_fresh and looked.fresh:
            return _of_fresh(looked.fresh, answer, places)  # type: ignore[arg-type]
        found = await reader.told(looked)
        # What was computed since may be of rows of another server, which do not have all that these had.
        under = looked.under if all(each.under == looked.under for each in found) else b""
        oldest = self._now_us() - reader.engine.max_staleness_us
        width = range(len(model.outputs))
        values = [[None if each.values is None else each.values[at] for each in found] for at in width]
        rows = [_status(each, oldest) for each in found]
        return PredictedColumns(
            under=under,
            values=values,
            statuses=[
                [
                    Status.NULL_VALUE if value is None and row is Status.PRESENT else row
                    for value, row in zip(column, rows, strict=True)
                ]
                for column in values
            ],
            read_at=[each.read_at for each in found],
            freshness=[
                None if each.values is None else Freshness.FRESH if each.state is State.FRESH else Freshness.LATE
                for each in found
            ],
            places=places,
            rows=[each.rows[at] for at in range(len(places)) for each in found],
        )

    async def close(self) -> None:
        """End what is computed."""
        for reader in self._readers.values():
            await reader.close()


_ONE_FRESH = (Freshness.FRESH,)
"""Made once: nothing is asked of an enumeration for each request."""


def _of_one(fresh: Fresh, answer: Stored, places: Sequence[Place]) -> PredictedColumns:
    """Columns of one prediction that is fresh. answer: it, and behind it its rows."""
    read_at, _, _, values = fresh
    return PredictedColumns(
        answer.under,
        [(value,) for value in values],
        (present(1),) * len(values),
        (read_at,),
        _ONE_FRESH,
        places,
        answer.values[1:],
        True,
    )


def _of_fresh(found: Sequence[Fresh], answer: Stored, places: Sequence[Place]) -> PredictedColumns:
    """Columns of predictions that are all fresh, as they mostly are."""
    count = len(found)
    read_at, _, _, rows = zip(*found, strict=True)
    values = list(zip(*rows, strict=True))
    return PredictedColumns(
        answer.under,
        values,
        [present(count)] * len(values),
        read_at,
        (Freshness.FRESH,) * count,
        places,
        answer.values[count:],
        whole=True,
    )


def _status(prediction: Prediction, oldest: int) -> Status:
    if prediction.read_at is None:
        return Status.NOT_FOUND
    return Status.PRESENT if prediction.read_at >= oldest else Status.OUTSIDE_MAX_AGE
