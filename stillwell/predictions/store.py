"""What the refresh of predictions needs of the online store, as a narrow protocol. The real one is made in composition
roots; its twin is in `stillwell.testing`."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stillwell.reading.online import under


class StoredAt(NamedTuple):
    """What is stored under some keys at one instant. epoch: the one in force; at_us: the store's own time then;
    replication_id: of the server that says so."""

    epoch: bytes
    values: list[bytes | None]
    at_us: int
    replication_id: str

    @property
    def under(self) -> bytes:
        """See `stillwell.reading.online.Stored`."""
        return under(self.epoch, self.replication_id)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What to hold, and the prediction that it is about: keys (see `stillwell.layout.redis_keys`)."""

    lease: bytes
    record: bytes


class Claimed(NamedTuple):
    """held: whether the lease is ours now. record: what stands at the prediction's key at that instant."""

    held: bool
    record: bytes | None


class Listing(NamedTuple):
    """Of a prediction that reads rows through aliases. entity: the key of the model's entity; places: where the readers
    of each of those rows stand (see `stillwell.layout.redis_keys`), one for each alias."""

    entity: bytes
    places: Sequence[bytes]


class Put(NamedTuple):
    """What became of records. stored: whether each changed what stands at its key; listed: whether each is newly among
    the readers of a row; dropped: how many others are no longer, because there were too many."""

    stored: list[bool]
    listed: list[bool]
    dropped: int


class Readers(NamedTuple):
    """Who reads rows. keys: for each row, of the entities whose predictions do, the newest first; left: how many more
    there are than were asked for."""

    keys: list[list[bytes]]
    left: int


class PredictionStore(Protocol):
    """Predictions, and who computes them. Every call is harmless to repeat.

    All raise StoreUnavailable or OutcomeUnknown where there is no clear answer, StoreNotReady where the store may have
    lost rows, or is of another epoch than the caller's, and FormatError for a record that is none.
    """

    async def read_at(self, keys: Sequence[bytes]) -> StoredAt:
        """What is stored under these keys, all at one instant."""

    async def claim(self, claims: Sequence[Claim], owner: bytes, lease_ms: int, epoch: bytes) -> list[Claimed]:
        """Take each lease that nobody else holds, for so long."""

    async def renew(self, leases: Sequence[bytes], owner: bytes, lease_ms: int, epoch: bytes) -> list[bool]:
        """Hold our leases for so long from now; False for one that is no longer ours."""

    async def release(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> None:
        """Give up those that are ours."""

    async def put(
        self,
        records: Sequence[tuple[bytes, bytes]],
        kept_ms: int,
        epoch: bytes,
        listings: Sequence[Listing] = (),
        most: int = 0,
    ) -> Put:
        """Merge each record with the one at its key (`stillwell.layout.prediction.merged`).

        kept_ms: how long a record lives from `stillwell.layout.prediction.lived_from` on; one that is past that is not
        written. listings: of each record, where there are any, all of equally many places: it is listed there for as
        long as it lives, in the same step. most: how many a place holds; those that expire first leave it.
        """

    async def readers(self, places: Sequence[bytes], each: int, most: int, epoch: bytes) -> Readers:
        """Who is listed at each place and not expired: so many of each, and so many altogether."""
