"""What reading needs of the online store, as a narrow protocol. The real one is made in composition roots; its twin is
in `stillwell.testing`."""

import functools
from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from stillwell.layout.online import written_under


class Stored(NamedTuple):
    """What is stored under some keys, in their order; None where there is nothing. epoch: the one in force.
    replication_id: of the server that says so, as far as is known."""

    epoch: bytes
    values: list[bytes | None]
    replication_id: str = ""

    @property
    def under(self) -> bytes:
        """Epoch and server in one: what is there under it stays there under it. Empty where nobody knows the server, or
        there are several."""
        return under(self.epoch, self.replication_id)


@functools.lru_cache(maxsize=16)
def under(epoch: bytes, replication_id: str) -> bytes:
    """Epoch and server in one, made once for all that is read from one server."""
    if not replication_id:
        return b""
    return written_under(epoch.decode(errors="replace"), replication_id).encode()


class OnlineReader(Protocol):
    """Reads the online store."""

    def read(self, keys: Sequence[bytes]) -> Awaitable[Stored]:
        """What is stored under these keys (see `stillwell.layout.redis_keys`).

        One round trip, which those who ask at the same time share, or several where the keys are many: then they are
        read in their order, all under one epoch, and something may have been written between two of them. Raises
        StoreUnavailable where no answer comes in time, and StoreNotReady where the store may have lost rows; also where
        nothing is asked for.
        """
