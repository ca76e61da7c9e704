"""A chain read from its end back: for what is wanted of its latest links, however long it has grown.

Links name their predecessors by digest alone, but their own names carry their starts. So names are listed, from the end
back, and an object is taken for the predecessor if its bytes have the digest that its successor holds: every link is
proven by the end that one began with, as a walk from genesis proves it by genesis.
"""

import concurrent.futures

from stillwell.errors import ChainError, NotFound
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, Link, PartitionId
from stillwell.storage import ObjectStore

_THREADS = 16
_FIRST_READS, _MOST_READS = 16, 256
"""Objects that are read at a time, four times as many each time: mostly the first few are enough."""

_FIRST_DIGITS = 4
"""Names are listed by all but their last digits, one digit fewer each time. With more at first, a chain of tiny links
answers with thousands of names that nobody asked for; with fewer, one of long links costs a request more."""


class WalkBack:
    """Keeps its place: a `read` that failed can be made again."""

    def __init__(self, id: PartitionId, end: ChainEnd) -> None:
        self._id = id
        self._at = end
        """Where the links that were read begin, and the digest of the object before them."""
        self._names: list[str] = []
        """Listed and not read; the last one comes next."""
        self._listed = end.offset
        """All names from this offset on are listed."""
        self._digits = _FIRST_DIGITS
        self._reads = _FIRST_READS

    def read(self, store: ObjectStore) -> list[Link]:
        """The next links, the latest first; none once genesis is reached.

        Raises StoreUnavailable, and ChainError where an object that should follow is missing or altered.
        """
        while self._names or self._listed:
            if not self._names:
                self._list(store)
                continue
            if links := self._read_some(store):
                return links
        self._require_genesis(store)
        return []

    def _list(self, store: ObjectStore) -> None:
        size = 10**self._digits
        first = (self._listed - 1) // size * size
        names = store.list(f"{self._id.folder}{first:020d}"[: -self._digits])
        self._names = [name for name in names if name < self._id.link_path(self._listed)]
        self._listed = first
        self._digits = min(self._digits + 1, 20)

    def _read_some(self, store: ObjectStore) -> list[Link]:
        """Those links among the next few objects that are on the chain; others may lie there, and mean nothing."""
        paths = self._names[: -self._reads - 1 : -1]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            contents = list(threads.map(lambda path: _read(store, path), paths))
        links = []
        at = self._at
        for path, data in zip(paths, contents, strict=True):
            link = chain.decode_link(data, path)
            if chain.digest(data) == at.digest:
                links.append(link)
                at = ChainEnd(link.start, link.previous)
            elif link.end == at.offset:
                raise ChainError(f"{path}: is not what the object behind it follows, one of the two has been altered")
        del self._names[-len(paths) :]
        self._at = at
        self._reads = min(4 * self._reads, _MOST_READS)
        return links

    def _require_genesis(self, store: ObjectStore) -> None:
        path = self._id.genesis_path
        if chain.digest(_read(store, path)) != self._at.digest:
            raise ChainError(f"{path}: the link at offset {self._at.offset} does not follow from it: links are missing")


def _read(store: ObjectStore, path: str) -> bytes:
    try:
        return store.read(path)
    except NotFound as error:
        raise ChainError(f"{path}: was there a moment ago, now it is gone; somebody has removed it") from error
