"""Every answer that a store can give to a writer of the chain, in every order: one link wins, and all know which.

A case says for each of the first three calls what happens before it and what becomes of it; later calls succeed. All
cases are tried.
"""

import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Literal, TypeVar

import msgspec
import pytest

from sinks import chain as writing
from sinks.archive import PartitionArchive, UploadedSpan
from sinks.compressing import Compressing
from stillwell.errors import AlreadyExists, ChainError, OutcomeUnknown, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, DataFile, Genesis, Link
from stillwell.testing.objects import MemoryStore, Operation
from tests.chain_support import DEPARTURES, NOON, Inline, a_chain, a_genesis, a_link, at_once

T = TypeVar("T")

Answer = Literal["done", "refused", "lost answer", "lost call", "late call", "repeated"]
"""refused: not done, and told so. lost answer: done; lost call: not done; late call: done only before the next call, or
when all is over; of these three nothing is heard. repeated: done, but the client asked twice and reports the refusal
of its own repetition."""

ANSWERS: tuple[Answer, ...] = ("done", "refused", "lost answer", "lost call", "late call", "repeated")
DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Step:
    """What becomes of one call; rival: another writer's object lands just before it."""

    answer: Answer
    rival: bool = False


Case = Sequence[Step]
ALONE: Sequence[Case] = list(itertools.product([Step(answer) for answer in ANSWERS], repeat=DEPTH))
CONTESTED: Sequence[Case] = [
    tuple(dataclasses.replace(step, rival=at == index) for index, step in enumerate(case))
    for case in ALONE
    for at in range(DEPTH)
]
LATE_CALLS_LAND = ("before the next call", "when all is over")


class Unreliable(MemoryStore):
    """A store whose next calls go as a case says, once it is told to follow one."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: Iterator[Step] = iter(())
        self._late = LATE_CALLS_LAND[0]
        self._rival: tuple[str, bytes] | None = None
        self._on_their_way: list[tuple[str, bytes]] = []

    def follow(self, case: Case, late: str = LATE_CALLS_LAND[0], rival: Genesis | Link | None = None) -> None:
        """From the next call on; rival: what the other writer creates."""
        self._steps, self._late = iter(case), late
        self._rival = (rival.path, chain.encode(rival)) if rival else None

    def end(self) -> None:
        """All is over: what is still on its way arrives, and calls succeed again."""
        self._steps = iter(())
        self._arrive()

    def create(self, path: str, data: bytes) -> None:
        """As the case says."""
        match self._next_answer():
            case "done":
                super().create(path, data)
            case "refused":
                raise StoreUnavailable("refused")
            case "lost answer":
                self.objects.setdefault(path, data)
                raise OutcomeUnknown("no answer")
            case "lost call":
                raise OutcomeUnknown("no answer")
            case "late call":
                self._on_their_way.append((path, data))
                raise OutcomeUnknown("no answer")
            case "repeated":
                self.objects.setdefault(path, data)
                raise AlreadyExists("exists")

    def read(self, path: str) -> bytes:
        """Whatever is no clear answer leaves the caller without one."""
        self._answer()
        return super().read(path)

    def list(self, prefix: str) -> list[str]:
        """As a read."""
        self._answer()
        return super().list(prefix)

    def delete(self, path: str) -> None:
        """Carried out or not, without an answer."""
        answer = self._next_answer()
        if answer in ("done", "lost answer"):
            super().delete(path)
        if answer not in ("done", "repeated"):
            raise StoreUnavailable("no answer")

    def _arrive(self) -> None:
        for path, data in self._on_their_way:
            self.objects.setdefault(path, data)
        self._on_their_way = []

    def _answer(self) -> None:
        if self._next_answer() not in ("done", "repeated"):
            raise StoreUnavailable("no answer")

    def _next_answer(self) -> Answer:
        if self._late == LATE_CALLS_LAND[0]:
            self._arrive()
        step = next(self._steps, Step("done"))
        if step.rival and self._rival:
            self.objects.setdefault(*self._rival)
        return step.answer


PATH = "views/Late/dt=2026-03-01/x.parquet"


def a_store(case: Case, late: str = LATE_CALLS_LAND[0], rival: Genesis | Link | None = None) -> Unreliable:
    """An empty store that follows a case."""
    store = Unreliable()
    store.follow(case, late, rival)
    return store


@pytest.mark.parametrize("late", LATE_CALLS_LAND)
async def test_a_file_is_there_with_its_bytes_when_its_creation_returns(late: str) -> None:
    for case in ALONE:
        store = a_store(case, late)
        await writing.create_object(Inline(store), at_once, PATH, b"rows")
        assert store.objects == {PATH: b"rows"}, case
        store.end()
        assert store.objects == {PATH: b"rows"}, case


OURS, THEIRS = a_genesis(3), a_genesis(4)


@pytest.mark.parametrize("late", LATE_CALLS_LAND)
async def test_what_is_settled_is_what_is_there_for_good(late: str) -> None:
    for case in [*ALONE, *CONTESTED]:
        store = a_store(case, late, THEIRS)
        settled = await writing.settle(Inline(store), at_once, THEIRS.path, b"ours")
        assert store.objects == {THEIRS.path: settled}, case
        store.end()
        assert store.objects == {THEIRS.path: settled}, case


async def test_alone_everybody_wins() -> None:
    for case in ALONE:
        assert await writing.settle(Inline(a_store(case)), at_once, PATH, b"ours") == b"ours", case


async def test_either_writer_can_win() -> None:
    """Both outcomes occur among the cases, else the tests above would prove less than they say."""
    stores = [a_store(case, rival=THEIRS) for case in CONTESTED]
    settled = {await writing.settle(Inline(store), at_once, THEIRS.path, b"ours") for store in stores}
    assert settled == {b"ours", chain.encode(THEIRS)}


async def test_whatever_goes_wrong_is_asked_again() -> None:
    """Also a refusal of what nobody finds afterwards: whoever asks again knows two errors, and no other."""
    seen = []

    async def until_done(call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown) as error:
                seen.append(type(error))

    store = a_store([Step("refused"), Step("done"), Step("lost call"), Step("refused"), Step("repeated")])
    await writing.settle(Inline(store), until_done, PATH, b"ours")
    assert seen == [OutcomeUnknown] * 2
    store = a_store([Step("refused"), Step("lost call")])
    await writing.create_object(Inline(store), until_done, PATH, b"ours")
    assert seen[2:] == [StoreUnavailable, OutcomeUnknown]


# ---- links ----


def the_end(store: MemoryStore) -> ChainEnd:
    """Begin a chain; where its first link goes."""
    a_chain(store, [])
    return ChainEnd(0, chain.digest(chain.encode(a_genesis())))


@pytest.mark.parametrize("late", LATE_CALLS_LAND)
async def test_exactly_one_link_wins_and_the_other_writer_knows(late: str) -> None:
    """The rival's span is longer, from the same start. Asked afterwards, it is told the opposite of what we are."""
    for case in CONTESTED:
        store = Unreliable()
        digest = the_end(store).digest
        ours = a_link(0, 5, nonce="ours", previous=digest)
        theirs = a_link(0, 9, nonce="theirs", previous=digest)
        store.follow(case, late, theirs)
        end = await writing.append(Inline(store), at_once, ours)
        store.end()
        (linked,) = chain.walk(store, DEPARTURES)[1]
        assert linked == (ours if end else theirs), case
        if end:
            assert end == chain.end_at(ours), case
            assert await writing.append(Inline(store), at_once, theirs) is None
        else:
            assert await writing.append(Inline(store), at_once, theirs) == chain.end_at(theirs)


async def test_a_link_like_ours_with_another_nonce_is_not_ours() -> None:
    """Two writers may cut their spans alike; their files differ."""
    store = MemoryStore()
    ours = a_link(0, 5, nonce="ours", previous=the_end(store).digest)
    store.create(ours.path, chain.encode(msgspec.structs.replace(ours, nonce="theirs")))
    assert await writing.append(Inline(store), at_once, ours) is None


async def test_a_damaged_object_in_our_place_is_no_answer() -> None:
    """Neither won nor lost: somebody has to look at it."""
    store = MemoryStore()
    ours = a_link(0, 5, nonce="ours", previous=the_end(store).digest)
    store.create(ours.path, b"damaged")
    with pytest.raises(ChainError, match=ours.path):
        await writing.append(Inline(store), at_once, ours)


@pytest.mark.parametrize("late", LATE_CALLS_LAND)
async def test_everybody_agrees_on_one_genesis(late: str) -> None:
    """Two workers that start together have looked at the log at different moments."""
    for case in [*ALONE, *CONTESTED]:
        store = a_store(case, late, THEIRS)
        agreed = await writing.agree_on(Inline(store), at_once, OURS, OURS.path)
        store.end()
        assert store.objects == {OURS.path: agreed}, case
        assert chain.decode_genesis(agreed, OURS.path) in (OURS, THEIRS)
        assert await writing.agree_on(Inline(store), at_once, THEIRS, THEIRS.path) == agreed


# ---- a span with its files ----


def a_span(nonce: str, end: int) -> tuple[UploadedSpan, dict[str, bytes]]:
    """A span [0, end) with a raw file that holds its nonce, and that file."""
    path = chain.data_path("raw/flights.departures", NOON.date(), DEPARTURES, 0, end, nonce)
    file = DataFile(path=path, size=len(nonce), sha256=chain.digest(nonce.encode()), rows=end)
    span = UploadedSpan(start=0, end=end, nonce=nonce, opened_at=NOON, records=end, raw=file, views=())
    return span, {path: nonce.encode()}


async def an_archive(store: MemoryStore, writer: str) -> PartitionArchive:
    """A writer that has walked to the chain's end."""
    archive = PartitionArchive(Inline(store), at_once, DEPARTURES, (), lambda: NOON, writer, Compressing())
    assert await archive.find_end(None)
    return archive


@pytest.mark.parametrize("late", LATE_CALLS_LAND)
async def test_the_loser_removes_its_own_files_alone_and_the_winners_stay(late: str) -> None:
    """Removing may fail, and is then left to the sweep; but a file that is linked is never touched."""
    (ours, our_files), (theirs, their_files) = a_span("ours", 5), a_span("theirs", 5)
    left_behind = 0
    for case in CONTESTED:
        store = Unreliable()
        the_end(store)
        store.objects.update(our_files | their_files)
        rival = a_link(0, 5, nonce="theirs", previous=the_end(MemoryStore()).digest, raw=theirs.raw)
        archive = await an_archive(store, "we")
        store.follow(case, late, rival)
        won = await archive.link(ours, "epoch", "id")
        store.end()
        assert archive.end == (5 if won else 0)
        (linked,) = chain.walk(store, DEPARTURES)[1]
        assert linked.nonce == ("ours" if won else "theirs"), case
        for file in linked.files:
            assert chain.read_file(store, file)
        assert their_files.items() <= store.objects.items(), case
        if not won:
            left_behind += our_files.items() <= store.objects.items()
    assert 0 < left_behind < len(CONTESTED) / 2


async def test_discarding_gives_up_at_the_first_failure() -> None:
    store = MemoryStore()
    for path in "abc":
        store.create(path, b"x")
    store.faults = lambda operation, path: "refused" if path == "b" else None
    await writing.discard(Inline(store), "abc")
    assert set(store.objects) == {"b", "c"}


async def test_a_writer_links_only_at_the_end_that_it_knows() -> None:
    """A link ahead of the chain would be a fork as soon as another writer fills the gap differently."""
    store = MemoryStore()
    the_end(store)
    archive = await an_archive(store, "we")
    span = dataclasses.replace(a_span("ours", 5)[0], start=3)
    with pytest.raises(ValueError, match="link 3→5 does not begin at the chain's end 0"):
        await archive.link(span, "epoch", "id")
    assert list(chain.walk(store, DEPARTURES)[1]) == []


async def test_a_zombie_that_wakes_up_behind_the_chain_is_told_that_it_lost() -> None:
    store = MemoryStore()
    the_end(store)
    zombie = await an_archive(store, "zombie")
    heir = await an_archive(store, "heir")
    (theirs, their_files), (ours, our_files) = a_span("theirs", 9), a_span("ours", 5)
    store.objects.update(their_files | our_files)
    assert await heir.link(theirs, "epoch", "id")
    assert await heir.expire(20)
    assert not await zombie.link(ours, "epoch", "id")
    assert not await zombie.expire(30)
    await zombie.find_end(None)
    assert zombie.end == 20
    assert our_files.keys().isdisjoint(store.objects)
    assert their_files.items() <= store.objects.items()


# ---- walking under faults ----


def reads() -> Iterator[tuple[Step, ...]]:
    """Cases for calls that only read: each fails or not, and a rival's link may land before any."""
    answers = [Step("done"), Step("refused"), Step("lost answer")]
    yield from itertools.product(answers, repeat=DEPTH)
    for case in itertools.product(answers, repeat=DEPTH):
        for at in range(DEPTH):
            yield tuple(dataclasses.replace(step, rival=at == index) for index, step in enumerate(case))


@pytest.mark.parametrize("hint", [None, (0, "n0")])
async def test_the_end_is_found_through_any_failures_and_never_an_older_one(hint: tuple[int, str] | None) -> None:
    """A link that lands during the walk may be seen or not; the writer learns of it when it appends."""
    for case in reads():
        store = Unreliable()
        links = a_chain(store, [5, 10])
        rival = a_link(10, 15, nonce="rival", previous=chain.end_at(links[-1]).digest)
        store.follow(case, rival=rival)
        found = await writing.find_end(Inline(store), at_once, DEPARTURES, hint)
        assert found is not None
        genesis, end, last = found
        assert genesis == a_genesis()
        assert last in (links[-1], rival), case
        assert last == links[-1] or rival.path in store.objects, case
        assert end == chain.end_at(last), case


async def test_reading_asks_again_while_the_store_is_unavailable_and_no_longer() -> None:
    store = Unreliable()
    links = a_chain(store, [5, 10, 15])
    for refusals in range(4):
        case = [Step("refused")] * refusals
        store.follow(case)
        walked = writing.links_from_end(Inline(store), at_once, DEPARTURES, chain.end_at(links[-1]))
        assert [link async for link in walked] == links[::-1]
        store.follow(case)
        assert await writing.has_links(Inline(store), at_once)
        store.follow(case)
        assert await writing.newest_incarnation(Inline(store), at_once, "other") is None
    missing = DataFile(path="raw/x", size=1, sha256="0" * 64, rows=1)
    with pytest.raises(ChainError, match="raw/x: is linked, but missing"):
        await writing.read_rows(Inline(store), at_once, missing)
    store.create("raw/x", b"y")
    with pytest.raises(ChainError, match="raw/x: has been altered"):
        await writing.read_rows(Inline(store), at_once, missing)


async def test_a_damaged_chain_is_not_asked_again() -> None:
    store = MemoryStore()
    a_chain(store, [5])
    store.objects[DEPARTURES.link_path(0)] = b"damaged"
    operations: list[Operation] = []
    store.faults = lambda operation, path: operations.append(operation)
    with pytest.raises(ChainError):
        await writing.find_end(Inline(store), at_once, DEPARTURES, None)
    assert operations == ["read", "list", "read"]
