"""What goes to and from the online store, whichever it is: rows, applied marks, and what the store says of itself."""

import dataclasses
import enum
from collections.abc import Sequence

from stillwell.layout.chain import PartitionId


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows of one view version, ready to be put: at most one for each entity, or the later ones only confirm the rule.

    keys: entity keys (`stillwell.layout.entity_key`); values: what `stillwell.layout.value` encodes, in the same order.
    lifetime_ms: how long after its event time a row lives in the store, TTL and grace together; None is for ever.
    """

    view: str
    version: int
    keys: list[bytes]
    values: list[bytes]
    lifetime_ms: int | None


class Answer(enum.Enum):
    """What became of one row. The value is the letter in the script's answer."""

    APPLIED = "a"
    STALE = "s"
    DUPLICATE = "d"
    EXPIRED = "e"


@dataclasses.dataclass(frozen=True, slots=True)
class PutCounts:
    """What became of the rows of one put: written; older than, or the same as, the row in their place; newer than it,
    but past their lifetime by the store's own clock."""

    applied: int
    stale: int
    duplicate: int
    expired: int

    @classmethod
    def of(cls, letters: Sequence[bytes]) -> "PutCounts":
        """From the script's answers."""
        joined = b"".join(letters)
        return cls(*(joined.count(answer.value.encode()) for answer in Answer))


@dataclasses.dataclass(frozen=True, slots=True)
class MarkKey:
    """Whose applied mark it is: a view version's, in a partition."""

    id: PartitionId
    view: str
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class MarkMove:
    """A mark and the offsets [start, end) whose rows are now in the store."""

    mark: MarkKey
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class OnlineState:
    """What the store says of itself.

    epoch: the one in force, None while the store is not ready. replication_id: changes when another server takes over.
    role: `master`, or `slave` for one that cannot be written to.
    """

    epoch: str | None
    replication_id: str
    role: str
    version: str
    maxmemory_policy: str
