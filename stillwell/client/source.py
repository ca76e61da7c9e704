"""What answers a client: the query service, or the store itself. Narrow, so that both are the same to who asks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stillwell.client.named import asked_for
from stillwell.client.predictions import Predictions
from stillwell.client.pushing import Pushed, Pushing, jsonable
from stillwell.client.results import Features
from stillwell.pushing.token import Token

if TYPE_CHECKING:
    from stillwell.client.named import Asking

Columns = Mapping[str, tuple[Any, ...]]

After = Token | str | Sequence[Token | str] | None
"""What a read must see: the tokens of pushes."""


def to_wait(timeout: float) -> float:
    """How much of a caller's seconds a token may be waited for: the answer must still come back."""
    return timeout - min(max(timeout / 10, 0.05), timeout / 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request for features: by reference, or the feature service that lists them. entities: the keys, by column.
    provenance: whether it is to be said which record each value was made of."""

    references: tuple[str, ...]
    service: str | None
    entities: Columns
    count: int
    after: tuple[Token, ...] = ()
    provenance: bool = False

    @classmethod
    def of(
        cls,
        features: "Asking",
        entities: Mapping[str, Any] | Sequence[Mapping[str, Any]],
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

    async def predictions(self, model: str, entities: Columns, timeout: float) -> Predictions:
        """A model's predictions for each entity. timeout: seconds, as for features."""

    async def close(self) -> None:
        """Let go of what is held."""


def columns_of(entities: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Columns:
    """Entities as columns: from one entity, from lists of keys, or from a list of entities. Raises RequestError."""
    from stillwell.errors import RequestError

    if isinstance(entities, Mapping):
        listed = {name: isinstance(values, list | tuple) for name, values in entities.items()}
        if all(listed.values()):
            return {name: tuple(values) for name, values in entities.items()}
        if any(listed.values()):
            single = next(name for name, is_list in listed.items() if not is_list)
            raise RequestError(
                f"entities.{single}", "must be a list, as other keys are: give all keys as lists, or none of them"
            )
        return {name: (value,) for name, value in entities.items()}
    names = list(entities[0]) if entities else []
    for row, entity in enumerate(entities):
        if entity.keys() != set(names):
            raise RequestError(
                f"entities[{row}]", f"has the keys {', '.join(entity)}, but the first has {', '.join(names)}"
            )
    return {name: tuple(entity[name] for entity in entities) for name in names}


def json_columns(columns: Columns) -> Columns:
    """With the names of floats that JSON lacks."""
    return {
        name: tuple(map(jsonable, values)) if any(isinstance(value, float) for value in values) else values
        for name, values in columns.items()
    }
