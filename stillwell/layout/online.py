"""What goes to and from the online store, whichever it is: rows, applied marks, and what the store says of itself."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Self

from stillwell.errors import FormatError, StoreNotReady
from stillwell.layout.chain import PartitionId
from stillwell.layout.stamp import Order, Stamp, judge
from stillwell.layout.value import FORMAT, HEADER_BYTES, stamp_of

LIFETIME_STEPS = 64
"""A lifetime has so many steps, and rows expire at the end of one. With more, more updates must tell Redis of a new
expiry (0.7 µs each); with fewer, rows stay longer than they live: one step is 1.6 %."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows of one view version, ready to be put.

    keys: entity keys (`stillwell.layout.entity_key`); values: what `stillwell.layout.value` encodes, in the same order;
    a key may come twice.
    lifetime_ms: how long after its event time a row lives in the store, TTL and grace together; None is for ever. It is
    the same for all rows that a view ever puts into a namespace.
    """

    view: str
    version: int
    keys: list[bytes]
    values: list[bytes]
    lifetime_ms: int | None


def not_ready(where: str) -> StoreNotReady:
    """What to raise where there is no epoch. where: the server, for a person."""
    return StoreNotReady(
        f"{where} is not ready: no worker has ever written there for this project and namespace, or it has lost what "
        "was written. At a first start, see that a worker runs with the same STILLWELL_PROJECT and "
        "STILLWELL_NAMESPACE: it makes Redis ready. If there have been rows, run `stillwell rebuild`"
    )


class Answer(enum.Enum):
    """What became of one row. The value is the letter in the script's answer."""

    APPLIED = "a"
    STALE = "s"
    DUPLICATE = "d"
    EXPIRED = "e"


ANSWERS = {ord(each.value): each for each in Answer}
"""Answers by what a letter is in bytes."""


def expires_at(value: bytes, lifetime_ms: int | None) -> int | None:
    """When a row expires, in ms since the epoch; None for never.

    That is its event time plus its lifetime, rounded up to a multiple of a 64th of the lifetime, so that a row which
    soon takes the place of another mostly expires with it, and Redis need not be told. Exact for event times within
    2^53 µs of 1970 (until 2255); beyond, the script's doubles may round to another step.
    """
    if lifetime_ms is None:
        return None
    step = max(1, lifetime_ms // LIFETIME_STEPS)
    return -(-(Stamp.unpack(stamp_of(value)).event_time // 1000 + lifetime_ms) // step) * step


def answer(stored: bytes | None, value: bytes, lifetime_ms: int | None, now_ms: int) -> Answer:
    """What is to become of a row, given the value in its place and the store's clock: the whole rule of a put.

    Raises FormatError where either value is of another format: then nothing is written.
    """
    if stored:  # to Redis, an empty string reads as none at all
        _require_format(stored)
        match judge(stamp_of(value), stamp_of(stored)):
            case Order.OLDER:
                return Answer.STALE
            case Order.DUPLICATE:
                return Answer.DUPLICATE
    _require_format(value)
    expires = expires_at(value, lifetime_ms)
    return Answer.EXPIRED if expires is not None and expires <= now_ms else Answer.APPLIED


def _require_format(value: bytes) -> None:
    if value[0] != FORMAT or len(value) < HEADER_BYTES:
        raise FormatError(
            f"{value[:8]!r}… is no row of format {FORMAT}, the only one that this version knows: upgrade if "
            "a newer Stillwell writes there too, fill a new namespace, or find out who else writes to these keys"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class PutCounts:
    """What became of the rows of one put: written; older than, or the same as, the row in their place; newer than it,
    but past their lifetime by the store's own clock."""

    applied: int
    stale: int
    duplicate: int
    expired: int

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Self:
        """Count answers."""
        return cls(*(answers.count(each) for each in Answer))

    @classmethod
    def of_letters(cls, letters: bytes) -> Self:
        """Count answers that are written as letters, as the script gives them."""
        return cls(*(letters.count(each.value.encode()) for each in Answer))


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
class Applied:
    """What became of rows and marks that were written together.

    counts: of each view's rows; positions: where each mark stands now, None for one that is absent or of another epoch.
    """

    counts: list[PutCounts]
    positions: list[int | None]


@dataclasses.dataclass(frozen=True, slots=True)
class AppliedEach:
    """What became of each row, by view. replication_id: of the server that has taken them, from before it did."""

    answers: list[list[Answer]]
    replication_id: str


def written_under(epoch: str, replication_id: str) -> str:
    """What says that rows are in Redis: the epoch, and the server that has taken them.

    After a failover the epoch stands, but the server that took over may lack the latest rows. Twelve digits of its id
    tell servers apart, and keep tokens short.
    """
    return f"{epoch}-{replication_id[-12:]}"


@dataclasses.dataclass(frozen=True, slots=True)
class OnlineState:
    """What is looked at before every link.

    epoch: the one in force, None while the store is not ready. replication_id: changes when another server takes over.
    """

    epoch: str | None
    replication_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class OnlineServer:
    """What the server says of itself.

    role: `master`, or `slave` for one that cannot be written to. maxmemory_policy: `noeviction`, or it drops rows when
    memory is short.
    """

    role: str
    version: str
    maxmemory_policy: str
