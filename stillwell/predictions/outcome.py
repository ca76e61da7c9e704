"""What is to be predicted, and how it stands."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stillwell.layout.prediction import Record
from stillwell.predictions.freshness import State, judge


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """One thing to be predicted. key: its entity key; digest: of its request values, b"" where the model has none;
    values: of its keys and its request columns, by name."""

    key: bytes
    digest: bytes
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How one entity stands, after all was done that could be.

    record: what is known of it; state: what that is worth to the inputs as they were read at `read_at` (Redis's time);
    rows: those inputs; under: the epoch and server that had them. asked: whether this call asked the model. retry_in_s:
    after how long another attempt makes sense, 0 where none has failed. unavailable: whether the model was not reached,
    so that its inputs are not to blame. broke: … because its server answered that it has failed, over these inputs
    perhaps.
    listed: whether writes to aliased views refresh it from now on, and did not when its inputs were read.
    """

    record: Record | None
    state: State
    fingerprint: bytes
    read_at: int
    rows: tuple[bytes | None, ...]
    asked: bool
    under: bytes
    retry_in_s: float = 0.0
    reason: str = ""
    unavailable: bool = False
    broke: bool = False
    listed: bool = False

    def judged(self, record: Record | None, max_staleness_us: int) -> "Outcome":
        """The same, where this is what is known of it."""
        state = judge(record, self.fingerprint, max_staleness_us, self.read_at)
        failure = record.failure if record and state is State.FAILED else None
        return dataclasses.replace(
            self,
            record=record,
            state=state,
            reason=failure.reason if failure else "",
            retry_in_s=max(0, failure.retry_at - self.read_at) / 1_000_000 if failure else 0.0,
        )


def columns_of(entities: Sequence[Entity]) -> dict[str, list[Any]]:
    """The values of entities by column."""
    return {name: [each.values[name] for each in entities] for name in (entities[0].values if entities else ())}


def digests_of(entities: Sequence[Entity]) -> list[bytes]:
    """Of their request values; none where the model has none."""
    return [each.digest for each in entities] if entities and entities[0].digest else []
