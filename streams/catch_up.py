"""How Redis comes to hold every row up to a chain's end, when a partition is opened.

A mark says for a version of a view below which offset Redis has all its rows (decision 0004). Behind it only those
links matter that have a file of the version: after a version was left and taken up again, all of them may have none. A
mark that is absent was lost, or was never set: the version's debut says from where on there may be rows.

Versions that run here no more have rows in Redis too, and nobody else who would look after them. A Redis that forgets
forgets the latest writes: so those are looked at that are in the links behind the least mark, and in the link before
it, which is the last one in a partition that nothing happened to.

Rows are applied link by link, the earliest first. Each time the marks are raised from where they stood to the link's
end, so that a Redis which loses rows meanwhile cannot raise them; what it lost is then applied when the partition is
opened once more.

A mark that is absent is made at 0, where it claims nothing, and raised when its turn comes. Made where its version
began it would claim no row of its own too many; but a read behind a push is content with the mark of any version, and
those before may lack rows that they had made below.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import structlog

from stillwell.errors import StoreNotReady
from stillwell.layout.chain import Link, ViewAccount
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows, MarkKey, MarkMove
from stillwell.layout.parquet import frame_of
from streams.endings import OnlineFellBehind
from streams.flow import RefreshOnWrite
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
        refresh: RefreshOnWrite | None = None,
    ) -> None:
        """refresh: what writes ask for; what is applied again was written again, and a prediction that knew it may be
        lost as it was."""
        self._refresh = refresh
        self._archive = archive
        self._preparation = preparation
        self._online = online
        self._retry = retry
        self._threads = threads
        self._epoch = epoch
        self._made: set[MarkKey] = set()
        """Marks that claim nothing yet."""
        self._encoders = {(view.name, view.version): preparation.encoder(view) for view in preparation.views}

    async def run(self, marks: Sequence[MarkKey], last: Link | None) -> None:
        """Make Redis hold every row up to the chain's end, and every mark stand there or beyond.

        marks: those of the versions that run. last: the chain's last link. Raises StoreNotReady when too much is
        missing to be applied again by a worker, or nobody knows how, and OnlineFellBehind when Redis loses more
        meanwhile.
        """
        end = self._archive.end
        stands: Stands = await self._find_out(marks)
        links, others = await self._look_back(stands, last)
        while others:
            stands = {**stands, **await self._find_out_others(others)}
            links, others = await self._look_back(stands, last)
        behind: Stands = {mark: stand for mark, stand in stands.items() if stand < end or mark in self._made}
        if behind:
            for link in self._to_be_applied(links, behind):
                behind = await self._apply(await self._read(link, behind), behind, link.end)
            if self._made or min(behind.values()) < end:
                await self._apply([], behind, end)

    async def _find_out(self, marks: Sequence[MarkKey]) -> dict[MarkKey, int]:
        """Where the marks stand; those that are absent are made. One that is lost in between stays absent, and is
        missed as soon as it is to be raised."""
        positions = await self._retry.until_done(lambda: self._online.read_marks(marks))
        found = dict(zip(marks, positions, strict=True))
        # One at 0 was made by somebody who did not come to raise it, or there is nothing below.
        stands = {
            mark: position or await self._archive.debut(mark.view, mark.version) for mark, position in found.items()
        }
        self._made |= {mark for mark in marks if not found[mark] and stands[mark]}
        if absent := [MarkMove(mark, 0, 0) for mark in marks if found[mark] is None]:
            await self._retry.until_done(lambda: self._online.set_marks(absent, self._epoch))
        return stands

    async def _find_out_others(self, listed: Stands) -> dict[MarkKey, int]:
        """Where the marks of versions stand that run no more; the chain's end for those that lack nothing.

        listed: where the last link ends that lists each.
        """
        stands = await self._find_out(list(listed))
        return {mark: self._archive.end if stand >= listed[mark] else stand for mark, stand in stands.items()}

    async def _look_back(self, stands: Stands, last: Link | None) -> tuple[list[Link], Stands]:
        """The links whose rows Redis may lack, the latest first, and the versions in them, and in the one before them,
        of which it is not known where their marks stand: with the end of the last link that lists each."""
        since = min(stands.values())
        links: list[Link] = []
        others: dict[MarkKey, int] = {}
        async with contextlib.aclosing(self._back_from(last, since)) as found:
            async for link in found:
                for account in link.views:
                    mark = MarkKey(link.id, account.view, account.version)
                    if mark not in stands:
                        others.setdefault(mark, link.end)
                if _with_rows(link, stands):
                    links.append(link)
                if len(links) > MOST_LINKS_APPLIED_AGAIN:
                    raise StoreNotReady(
                        f"{self._archive.id}: Redis lacks the rows of more than {MOST_LINKS_APPLIED_AGAIN} links since "
                        f"offset {since}; run `stillwell rebuild`"
                    )
        return links, others

    async def _back_from(self, last: Link | None, since: int) -> AsyncGenerator[Link, None]:
        """From the chain's end back to the first link that tells of a version and has nothing behind an offset."""
        if last is None:
            return
        yield last
        if _tells(last) and last.end <= since:
            return
        async with contextlib.aclosing(self._archive.links_from_end()) as links:
            async for link in links:
                if link.start < last.start:
                    yield link
                if _tells(link) and link.end <= since:
                    return

    def _to_be_applied(self, links: Sequence[Link], stands: Stands) -> list[Link]:
        """The earliest first."""
        if links:
            since = min(stands.values())
            _log.warning(
                "applying rows again that Redis lost", **fields(self._archive.id), links=len(links), since=since
            )
        return list(reversed(links))

    async def _read(self, link: Link, stands: Stands) -> list[EncodedRows]:
        rows = []
        for account in _with_rows(link, stands):
            assert account.file is not None  # or it has no rows
            encoder = await self._encoder(account)
            table = await self._archive.read_rows(account.file)
            encoded, _ = await self._threads.call(encoder.encode, frame_of(table), link.id)
            rows.append(encoded)
        return rows

    async def _encoder(self, account: ViewAccount) -> ViewEncoder:
        version = account.view, account.version
        if version not in self._encoders:
            view = await self._archive.registered(*version)
            if view is None:
                raise StoreNotReady(
                    f"{self._archive.id}: Redis has lost rows of {account.view} version {account.version}, which does "
                    "not run here and is not in the registry; run `stillwell rebuild`"
                )
            self._encoders[version] = self._preparation.encoder(view)
        return self._encoders[version]

    async def _apply(self, rows: Sequence[EncodedRows], stands: Stands, end: int) -> Stands:
        """Rows, then marks up to an offset below which no more rows are missing; where the marks stand then."""
        concerned = [
            (each.view, each.keys)
            for each in rows
            if self._refresh is not None and each.keys and self._refresh.triggers.concern(each.view)
        ]
        if self._refresh is not None and concerned:
            # Hints between rows and marks: before the rows they would find nothing to do, and behind the marks who dies
            # would leave nobody to send them. The rows are then duplicates.
            await self._retry.until_done(lambda: self._online.apply(rows, [], self._epoch))
            await self._refresh.ask(concerned, self._epoch)
        moves = [
            MarkMove(mark, 0 if mark in self._made else stand, end)
            for mark, stand in stands.items()
            if stand < end or (stand == end and mark in self._made)
        ]
        self._made.difference_update(move.mark for move in moves)
        applied = await self._retry.until_done(lambda: self._online.apply(rows, moves, self._epoch))
        if any(position is None or position < end for position in applied.positions):
            raise OnlineFellBehind(f"{self._archive.id}: Redis has lost rows again that it had just taken")
        return {mark: max(stand, end) for mark, stand in stands.items()}


def _tells(link: Link) -> bool:
    """Whether it lists the versions that ran. One over a hole that retention left lists none."""
    return not link.expired


def _with_rows(link: Link, stands: Stands) -> list[ViewAccount]:
    """What a link has of the versions of which Redis may lack its rows."""
    return [
        account
        for account in link.views
        if account.file and stands.get(MarkKey(link.id, account.view, account.version), link.end) < link.end
    ]
