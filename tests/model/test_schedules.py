"""The code that writes the chain keeps its promises under every schedule, and each of its rules is needed."""

import asyncio
import re
from collections.abc import Callable, Iterable

import pytest

from sinks import archive
from sinks import chain as writing
from sinks.archive import PartitionArchive, UploadedSpan
from sinks.chain import Objects
from stillwell.errors import AlreadyExists, NotFound, OutcomeUnknown, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, Genesis, Link
from stillwell.retrying import UntilDone
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from tests.model.schedules import GIVEN_NONCES, Habits, Search

# The writers cut their spans differently, so that a link at a wrong place is a fork, and have seen the log begin at
# different offsets, so that it matters whose genesis it is.
TWO = (Habits(span=2), Habits(span=1, first=1))
THREE = (*TWO, Habits(span=3))
STUBBORN = (Habits(span=2, stubborn=True), Habits(span=1))


@pytest.fixture(autouse=True)
def _nonces_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "secrets", GIVEN_NONCES)


@pytest.mark.parametrize(
    "search",
    [
        pytest.param(Search(TWO, log_end=3, faults=1, crashes=1), id="two writers, a fault and a crash"),
        pytest.param(Search(TWO, log_end=2, faults=2), id="two writers, two faults"),
        pytest.param(Search(TWO, log_end=2, crashes=2), id="two writers, two crashes"),
        pytest.param(Search(THREE, log_end=3), id="three writers"),
        pytest.param(Search(STUBBORN, log_end=3, crashes=1), id="a writer that does not give up"),
    ],
)
def test_under_every_schedule_the_chain_is_one_and_every_writer_knows_its_part(search: Search) -> None:
    found = search.run()
    assert found.wrong is None, "\n".join([found.wrong or "", *found.schedule])
    assert found.worlds > 5_000


# ---- what happens without each rule; a mutant replaces a piece of the code ----

settle, append, create_object = writing.settle, writing.append, writing.create_object
link, begin, find_end = PartitionArchive.link, PartitionArchive.begin, PartitionArchive.find_end


def loss(data: bytes) -> bytes:
    """What settle would have found, had another writer been there first."""
    return re.sub(rb"nonce(?=\d)", b"another", data)


async def a_refusal_is_taken_for_a_loss(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> bytes:
    while True:
        try:
            await objects.call(lambda store: store.create(path, data))
            return data
        except AlreadyExists:
            return loss(data)
        except (OutcomeUnknown, StoreUnavailable):
            pass
        try:
            return await objects.call(lambda store: store.read(path))
        except (NotFound, StoreUnavailable):
            pass


async def doubt_is_taken_for_a_loss(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> bytes:
    try:
        await objects.call(lambda store: store.create(path, data))
        return data
    except (OutcomeUnknown, AlreadyExists, StoreUnavailable):
        return loss(data)


async def doubt_is_taken_for_success(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> bytes:
    try:
        await objects.call(lambda store: store.create(path, data))
        return data
    except OutcomeUnknown:
        return data
    except (AlreadyExists, StoreUnavailable):
        return await settle(objects, until_done, path, data)


async def absence_is_taken_for_a_loss(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> bytes:
    try:
        await objects.call(lambda store: store.create(path, data))
        return data
    except (OutcomeUnknown, AlreadyExists, StoreUnavailable):
        pass
    try:
        return await objects.call(lambda store: store.read(path))
    except (NotFound, StoreUnavailable):
        return loss(data)


async def nonces_are_not_compared(objects: Objects, until_done: UntilDone, link: Link) -> ChainEnd | None:
    data = await settle(objects, until_done, link.path, chain.encode(link))
    return ChainEnd(chain.decode_link(data, link.path).end, chain.digest(data))


async def a_file_without_an_answer_is_taken_for_created(
    objects: Objects, until_done: UntilDone, path: str, data: bytes
) -> None:
    try:
        await objects.call(lambda store: store.create(path, data))
    except (OutcomeUnknown, AlreadyExists, StoreUnavailable):
        return


async def the_loser_discards_by_name(objects: Objects, paths: Iterable[str]) -> None:
    def remove(store: ObjectStore, name: str) -> None:
        for path in store.list(name):
            store.delete(path)

    for path in paths:
        name, _, _ = path.rpartition("-")
        await objects.call(lambda store, name=name: remove(store, name))  # type: ignore[misc]


async def whoever_is_cut_short_discards(archive: PartitionArchive, span: UploadedSpan, epoch: str, id: str) -> bool:
    try:
        return await link(archive, span, epoch, id)
    except asyncio.CancelledError:
        await writing.discard(archive._objects, span.paths)
        raise


async def a_link_is_made_wherever_the_span_begins(archive: PartitionArchive, link: Link) -> bool:
    end = await append(archive._objects, archive._until_done, link)
    if end:
        archive._end = end
    return end is not None


async def genesis_is_believed_to_be_ours(archive: PartitionArchive, start: int, topic_id: str) -> None:
    await begin(archive, start, topic_id)
    genesis = Genesis(created_at=archive._now(), id=archive.id, start=start, topic_id=topic_id)
    archive._end = ChainEnd(start, chain.digest(chain.encode(genesis)))


async def the_walk_is_left_out_after_genesis(
    archive: PartitionArchive, hint: tuple[int, str] | None
) -> tuple[Genesis, Link | None] | None:
    if archive._end is None:
        return await find_end(archive, hint)
    return Genesis(created_at=archive._now(), id=archive.id, start=archive._end.offset, topic_id=""), None


def create_overwrites(store: MemoryStore, path: str, data: bytes) -> None:
    store.objects[path] = data


FORK = "the chain forks"
BACK = "what a walk has seen is no longer seen"
GONE = "a linked file is gone"
WON = "told that it won, and lost"
LOST = "told that it lost, and won"

OTHERWISE_ALIKE = (Habits(span=2), Habits(span=2))
Replaced = list[tuple[object, str, Callable[..., object]]]
WITHOUT_A_WALK: Replaced = [
    (PartitionArchive, "begin", genesis_is_believed_to_be_ours),
    (PartitionArchive, "find_end", the_walk_is_left_out_after_genesis),
]
MUTANTS: list[tuple[Replaced, Search, str]] = [
    ([(writing, "settle", a_refusal_is_taken_for_a_loss)], Search(TWO, log_end=3, faults=1), LOST),
    ([(writing, "settle", doubt_is_taken_for_a_loss)], Search(TWO, log_end=3, faults=1), LOST),
    ([(writing, "settle", absence_is_taken_for_a_loss)], Search(TWO, log_end=3, faults=1), GONE),
    ([(writing, "settle", doubt_is_taken_for_success)], Search(TWO, log_end=3, faults=1), WON),
    ([(writing, "append", nonces_are_not_compared)], Search(TWO, log_end=3), WON),
    (
        [(writing, "create_object", a_file_without_an_answer_is_taken_for_created)],
        Search(TWO, log_end=3, faults=1),
        GONE,
    ),
    ([(writing, "discard", the_loser_discards_by_name)], Search(OTHERWISE_ALIKE, log_end=3), GONE),
    ([(PartitionArchive, "link", whoever_is_cut_short_discards)], Search(TWO, log_end=3, crashes=1), GONE),
    ([(PartitionArchive, "_append", a_link_is_made_wherever_the_span_begins)], Search(STUBBORN, log_end=3), FORK),
    (WITHOUT_A_WALK, Search(TWO, log_end=3), FORK),
    ([(MemoryStore, "create", create_overwrites)], Search(TWO, log_end=3), BACK),
]


@pytest.mark.parametrize(
    ("replaced", "search", "says"), [pytest.param(*mutant, id=mutant[0][-1][-1].__name__) for mutant in MUTANTS]
)
def test_without_a_rule_the_search_finds_what_goes_wrong(
    replaced: Replaced, search: Search, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, name, mutant in replaced:
        monkeypatch.setattr(where, name, mutant)
    found = search.run()
    assert found.wrong is not None, f"{found.worlds} worlds, and nothing is wrong in any"
    assert says in found.wrong, "\n".join([found.wrong, *found.schedule])
