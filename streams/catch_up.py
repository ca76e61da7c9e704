"""How Redis comes to hold every row up to a chain's end, when a partition is opened.

A mark says for a version of a view below which offset Redis has all its rows (decision 0004). Behind it only those
links matter that have a file of the version: after a version was left and taken up again, all of them may have none. A
mark that is absent was lost, or was never set: the version's debut says from where on there may be rows.

Rows are applied link by link, the earliest first. Each time the marks are raised from where they stood to the link's
end, so that a Redis which loses rows meanwhile cannot raise them; what it lost is then applied when the partition is
opened once more.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from stillwell.errors import StoreNotReady
from stillwell.layout.chain import Link, ViewAccount
from stillwell.layout.online import EncodedRows, MarkKey, MarkMove
from streams.endings import OnlineFellBehind
from streams.naming import fields
from streams.ports import OnlineStore, PartitionArchive, Threads
from streams.prepare import Preparation
from streams.retry import Retry

_log = structlog.get_logger(__name__)

MOST_LINKS_APPLIED_AGAIN = 1_000
"""Links that a worker applies to Redis again by itself after a failover; for more it asks for `stillwell rebuild`."""

Stands = Mapping[MarkKey, int]
"""Below which offset Redis has all rows of a version."""


class CatchUp:
    """One partition's, under one epoch of Redis."""

    def __init__(
        self,
        archive: PartitionArchive[Any, Any],
        preparation: Preparation,
        online: OnlineStore,
        retry: Retry,
        threads: Threads,
        epoch: str,
    ) -> None:
        self._archive = archive
        self._preparation = preparation
        self._online = online
        self._retry = retry
        self._threads = threads
        self._epoch = epoch

    async def run(self, marks: Sequence[MarkKey]) -> None:
        """Make Redis hold every row up to the chain's end, and every mark stand there or beyond.

        Raises StoreNotReady when too much is missing to be applied again by a worker, and OnlineFellBehind when Redis
        loses more meanwhile.
        """
        end = self._archive.end
        stands = await self._find_out(marks)
        moves = [MarkMove(mark, stand, stand) for mark, stand in stands.items()]
        await self._retry.until_done(lambda: self._online.set_marks(moves, self._epoch))
        behind: Stands = {mark: stand for mark, stand in stands.items() if stand < end}
        if behind:
            links = await self._links_with_rows(behind)
            for link in links:
                behind = await self._apply(await self._read(link, behind), behind, link.end)
            await self._apply([], behind, end)

    async def _find_out(self, marks: Sequence[MarkKey]) -> Stands:
        positions = await self._retry.until_done(lambda: self._online.read_marks(marks))
        return {
            mark: await self._archive.debut(mark.view, mark.version) if position is None else position
            for mark, position in zip(marks, positions, strict=True)
        }

    async def _links_with_rows(self, stands: Stands) -> list[Link]:
        """The links whose rows Redis may lack, in their order."""
        since = min(stands.values())
        found: list[Link] = []
        async with contextlib.aclosing(self._archive.links_from_end()) as links:
            async for link in links:
                if link.end <= since:
                    break
                if _with_rows(link, stands):
                    found.append(link)
                if len(found) > MOST_LINKS_APPLIED_AGAIN:
                    raise StoreNotReady(
                        f"{self._archive.id}: Redis lacks the rows of more than {MOST_LINKS_APPLIED_AGAIN} links since "
                        f"offset {since}; run `stillwell rebuild`"
                    )
        if found:
            _log.warning(
                "applying rows again that Redis lost", **fields(self._archive.id), links=len(found), since=since
            )
        return found[::-1]

    async def _read(self, link: Link, stands: Stands) -> list[EncodedRows]:
        rows = []
        for account in _with_rows(link, stands):
            assert account.file is not None  # or it has no rows
            table = await self._archive.read_rows(account.file)
            encode = self._preparation.encode_linked
            rows.append(await self._threads.call(encode, link.id, account.view, table))
        return rows

    async def _apply(self, rows: Sequence[EncodedRows], stands: Stands, end: int) -> Stands:
        """Rows, then marks up to an offset below which no more rows are missing; where the marks stand then."""
        moves = [MarkMove(mark, stand, end) for mark, stand in stands.items() if stand < end]
        applied = await self._retry.until_done(lambda: self._online.apply(rows, moves, self._epoch))
        if any(position is None or position < end for position in applied.positions):
            raise OnlineFellBehind(f"{self._archive.id}: Redis has lost rows again that it had just taken")
        return {mark: max(stand, end) for mark, stand in stands.items()}


def _with_rows(link: Link, stands: Stands) -> list[ViewAccount]:
    """What a link has of the versions of which Redis may lack its rows."""
    return [
        account
        for account in link.views
        if account.file and stands.get(MarkKey(link.id, account.view, account.version), link.end) < link.end
    ]
