"""What answers a client: the query service, or the store itself. Narrow, so that both are the same to who asks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from stillwell.client.named import asked_for
from stillwell.client.predictions import Predictions
from stillwell.client.pushed import Pushed, Pushing
from stillwell.client.results import Features
from stillwell.client.rows import jsonable
from stillwell.errors import RequestError
from stillwell.pushing.token import Token

if TYPE_CHECKING:
    from stillwell.client.named import Asking

EntityColumns = Mapping[str, tuple[Any, ...]]
"""A value for each entity, by the names of its keys and of what a request brings besides."""

After = Token | str | Sequence[Token | str] | None
"""What a read must see: the tokens of pushes."""


@runtime_checkable
class Table(Protocol):
    """A frame of Polars or pandas, or a table of Arrow: what hands its columns over in Arrow's way."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The columns."""


Entities = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Table
"""One entity, as its keys; several, as lists of keys; a list of entities; or a table with the keys as its columns."""


def to_wait(timeout: float) -> float:
    """How much of a caller's seconds a token may be waited for: the answer must still come back."""
    return timeout - min(max(timeout / 10, 0.05), timeout / 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request for features: by reference, or the feature service that lists them. entities: the keys, by column.
    provenance: whether it is to be said which record each value was made of."""

    references: tuple[str, ...]
    service: str | None
    entities: EntityColumns
    count: int
    after: tuple[Token, ...] = ()
    provenance: bool = False

    @classmethod
    def of(
        cls,
        features: "Asking",
        entities: Entities,
        after: After = None,
        provenance: bool = False,
    ) -> "Asked":
        """From what a caller may give. Raises RequestError."""
        columns = columns_of(entities)
        given = () if after is None else (after,) if isinstance(after, Token | str) else after
        tokens = tuple(Token.parse(each) if isinstance(each, str) else each for each in given)
        count = len(next(iter(columns.values()), ()))
        references, service = asked_for(features)
        return cls(references, service, columns, count, tokens, provenance)


class Source(Protocol):
    """Answers what a client asks, within the time that it has; raises what `stillwell.client.errors` draws."""

    async def features(self, asked: Asked, timeout: float) -> Features:
        """The features of each entity. timeout: seconds, until an answer is there or TimedOut is raised."""

    async def push(self, pushing: Pushing, timeout: float) -> Pushed:
        """What became of each row. timeout: seconds, until there is an answer or Unconfirmed is raised."""

    async def predictions(self, model: str, entities: EntityColumns, timeout: float) -> Predictions:
        """A model's predictions for each entity. timeout: seconds, as for features."""

    async def close(self) -> None:
        """Let go of what is held."""


def columns_of(entities: Entities) -> EntityColumns:
    """Entities as columns: from one entity, from lists of keys, from a list of entities, or a table. Raises
    RequestError."""
    if isinstance(entities, Mapping):
        several = {name: _several(values) for name, values in entities.items()}
        columns = {name: values for name, values in several.items() if values is not None}
        if len(columns) == len(several):
            return columns
        if columns:
            single = next(name for name, values in several.items() if values is None)
            raise RequestError(
                f"entities.{single}",
                "must be a list, as other keys are: give all keys as lists, or none of them; where a value is itself a "
                "list, give a list of entities",
            )
        return {name: (value,) for name, value in entities.items()}
    if isinstance(entities, Table):
        import pyarrow as pa

        return {name: tuple(values) for name, values in pa.table(entities).to_pydict().items()}
    names = list(entities[0]) if entities else []
    for row, entity in enumerate(entities):
        if entity.keys() != set(names):
            raise RequestError(
                f"entities[{row}]", f"has the keys {', '.join(entity)}, but the first has {', '.join(names)}"
            )
    return {name: tuple(entity[name] for entity in entities) for name in names}


def _several(values: Any) -> tuple[Any, ...] | None:
    """The values of a list, an array or a series; None for one value."""
    if isinstance(values, list | tuple):
        return tuple(values)
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        return None
    for in_python in ("to_pylist", "to_list", "tolist"):  # of Arrow, of Polars and pandas, of NumPy
        if hasattr(values, in_python):
            listed = getattr(values, in_python)()
            return tuple(listed) if isinstance(listed, list) else None
    return None


def json_columns(columns: EntityColumns) -> EntityColumns:
    """With the names of floats that JSON lacks."""
    return {
        name: tuple(map(jsonable, values)) if any(isinstance(value, float | list) for value in values) else values
        for name, values in columns.items()
    }
