"""A chain read from its end back gives what a walk from genesis gives, and reads no more than it must."""

import random

import pytest

from sinks.backwards import WalkBack
from stillwell.errors import ChainError, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, Link
from stillwell.testing.objects import Fault, MemoryStore, Operation
from tests.chain_support import DEPARTURES, a_chain, a_genesis, a_link


class Counting(MemoryStore):
    """Knows what was asked of it."""

    def __init__(self) -> None:
        super().__init__(self._note)
        self.read_paths: list[str] = []
        self.listed: list[str] = []

    def _note(self, operation: Operation, path: str) -> Fault | None:
        if operation == "read":
            self.read_paths.append(path)
        elif operation == "list":
            self.listed.append(path)
        return None


def whole(store: MemoryStore, end: ChainEnd) -> list[Link]:
    """All links, by the walk back, from genesis on."""
    walk, found = WalkBack(DEPARTURES, end), []
    while links := walk.read(store):
        found += links
    return found[::-1]


@pytest.mark.parametrize("longest", [1, 3, 50, 12_345, 10**7, 10**12])
@pytest.mark.parametrize("start", [0, 7, 9_999, 10**15])
def test_it_gives_what_a_walk_from_genesis_gives(longest: int, start: int, rng: random.Random) -> None:
    """However long the links are, and wherever they begin."""
    for count in (0, 1, 2, 40):
        store, ends, end = MemoryStore(), [], start
        for _ in range(count):
            end += rng.randint(1, longest)
            ends.append(end)
        links = a_chain(store, ends, start=start)
        last = chain.end_at(links[-1]) if links else ChainEnd(start, chain.digest(chain.encode(a_genesis(start))))
        assert whole(store, last) == links
        assert list(chain.walk(store, DEPARTURES)[1]) == links


def test_it_begins_at_the_end_that_is_held_and_not_behind_it() -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10, 15, 20])
    assert whole(store, chain.end_at(links[1])) == links[:2]


def test_objects_that_are_not_on_the_chain_mean_nothing() -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10, 15])
    stray = a_link(7, 12, nonce="stray", previous=links[0].previous)
    store.create(stray.path, chain.encode(stray))
    assert whole(store, chain.end_at(links[-1])) == links


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_link_that_was_altered_is_found(which: int) -> None:
    """Put in its place by somebody, as well formed as it may be."""
    store = MemoryStore()
    links = a_chain(store, [5, 10, 15])
    forged = a_link(links[which].start, links[which].end, nonce="forged", previous=links[which].previous)
    store.objects[forged.path] = chain.encode(forged)
    with pytest.raises(ChainError, match="one of the two has been altered"):
        whole(store, chain.end_at(links[-1]))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_link_that_is_missing_is_found(which: int) -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10, 15])
    del store.objects[links[which].path]
    with pytest.raises(ChainError, match="links are missing"):
        whole(store, chain.end_at(links[-1]))


def test_genesis_must_be_the_one_that_the_first_link_follows() -> None:
    store = MemoryStore()
    links = a_chain(store, [5])
    store.objects[DEPARTURES.genesis_path] = chain.encode(a_genesis(1))
    with pytest.raises(ChainError, match="does not follow from it"):
        whole(store, chain.end_at(links[-1]))
    del store.objects[DEPARTURES.genesis_path]
    with pytest.raises(ChainError, match="somebody has removed it"):
        whole(store, chain.end_at(links[-1]))


def test_a_walk_that_failed_is_taken_up_where_it_stood() -> None:
    """At any of its calls."""
    store = MemoryStore()
    links = a_chain(store, list(range(10, 1000, 10)))
    for at in range(200):
        calls = iter(range(1000))
        store.faults = lambda operation, path, calls=calls, at=at: "refused" if next(calls) == at else None  # type: ignore[misc]
        walk, found, failed = WalkBack(DEPARTURES, chain.end_at(links[-1])), [], 0
        while True:
            try:
                some = walk.read(store)
            except StoreUnavailable:
                failed += 1
                continue
            if not some:
                break
            found += some
        assert found == links[::-1]
        if not failed:
            break
    assert at > 100


def test_the_last_links_of_a_long_chain_take_a_few_reads() -> None:
    """Ten thousand links; a reader who stops after three has listed and read a handful."""
    store = Counting()
    links = a_chain(store, list(range(700, 7_000_001, 700)))
    walk = WalkBack(DEPARTURES, chain.end_at(links[-1]))
    found: list[Link] = []
    while len(found) < 3:
        found += walk.read(store)
    assert found[:3] == links[:-4:-1]
    assert len(store.read_paths) <= 30
    assert len(store.listed) <= 3
    assert sum(len(MemoryStore.list(store, prefix)) for prefix in store.listed[:3]) < 200
