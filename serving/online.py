"""What reading needs of the online store, as a narrow protocol. The real one is made in `serving/app.py`; its twin is
in `stillwell.testing`."""

from collections.abc import Sequence
from typing import Protocol


class OnlineRows(Protocol):
    """The newest row of every entity and view."""

    async def rows(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[bytes | None]:
        """The stored rows of entities, given view by view with their keys, in this order; None where there is none.

        One round trip, which those who ask at the same time share. Raises StoreUnavailable where no answer comes in
        time, and StoreNotReady where the store may have lost rows; also where nothing is asked for.
        """
