"""Versions of views that come, go and come back, on the twins: Redis holds all rows of all that were ever linked.

Each version adds a thousand times its number to what it reads, so that every row tells which version made it.
"""

import asyncio
import json
import random
from collections.abc import Callable

import polars as pl
import pytest

from stillwell.errors import StoreNotReady
from stillwell.layout import value
from stillwell.layout.entity_key import entity_key
from stillwell.layout.online import MarkKey
from stillwell.spec import ViewSpec
from stillwell.testing.online import MemoryOnlineStore, Operation
from stillwell.types import INT64
from stillwell.verify import verify
from streams import catch_up
from streams.endings import OnlineFellBehind
from tests.batches import feature
from tests.twin_line import KEYS, PARTITION, VIEW, Worker, World, links, some_log


def version(number: int, name: str = VIEW.name) -> ViewSpec:
    """A version of the twins' view, or of another one of the same kind."""
    reads = feature("number", INT64, pl.col("T.number") + 1000 * number)
    return VIEW.model_copy(update={"name": name, "version": number, "features": (reads,)})


class History:
    """A log that is read part by part, each by a worker of its own with the versions of that day."""

    def __init__(self, rng: random.Random, length: int = 60) -> None:
        self.world = World(some_log(rng, length))
        self._all = self.world.log.values
        self.world.log.values = []
        self._read: dict[tuple[str, int], set[int]] = {}
        self._writes = 0
        write = self.world.server.write

        def counted(key: bytes, value: bytes, expires: int | None = None) -> None:
            self._writes += 1
            write(key, value, expires)

        self.world.server.write = counted  # type: ignore[method-assign]

    @property
    def end(self) -> int:
        """Up to where it was read."""
        return self.world.log.end

    def read(
        self, count: int, *views: ViewSpec, faults: Callable[[Operation], None] = lambda operation: None, size: int = 5
    ) -> Worker:
        """Let a worker read so many more offsets."""
        start = max(self.end, self.world.log.start)
        self.world.log.values = self._all[: self.end + count]
        worker = Worker(self.world, "a", batch=3, window_rows=size, views=views)
        worker.online.faults = faults
        for view in views:
            self._read.setdefault((view.name, view.version), set()).update(range(start, self.end))
        asyncio.run(asyncio.wait_for(worker.work(), 20))
        return worker

    def expire(self, count: int) -> None:
        """Retention takes so many offsets before anybody has read them."""
        self.world.log.values = self._all[: self.end + count]
        self.world.log.start = self.end

    def fail_over(self, keep: int = 1) -> None:
        """Redis forgets all writes but the first so many; the very first one makes it ready."""
        self.world.server.fail_over(lost=max(0, self._writes - keep))
        self._writes = min(self._writes, keep)

    def newest(self, view: ViewSpec, below: int = 1_000) -> dict[str, tuple[int, int]]:
        """The oracle: each customer's newest offset among those that a version has read, and the number it made."""
        found: dict[str, tuple[str, int, int]] = {}
        for offset in sorted(each for each in self._read[view.name, view.version] if each < below):
            body = self._all[offset]
            if body not in (None, b"{"):
                event = json.loads(body or b"")
                if event["number"] >= 0 and (event["at"], offset) > found.get(event["customer"], ("", 0, 0))[:2]:
                    found[event["customer"]] = event["at"], offset, event["number"] + 1000 * view.version
        return {customer: (offset, number) for customer, (_, offset, number) in found.items()}

    def stored(self, view: ViewSpec) -> dict[str, tuple[int, int]]:
        """What Redis holds of every customer: the offset of its row, and the number."""
        found = {}
        for customer in (f"c{number}" for number in range(5)):
            (place,) = KEYS.rows(view.name, [entity_key(view.entity.keys, {"customer": customer})])
            if row := self.world.server.read(place):
                decoded = value.decode(value.RowLayout.of(view), row)
                found[customer] = decoded.stamp.offset, int(str(decoded.values["number"]))
        return found

    def lacks(self, *views: ViewSpec, below: int = 1_000) -> list[str]:
        """The customers of whom Redis holds neither their row of a version nor a newer one."""
        return [
            f"{customer} of {view.name}"
            for view in views
            for customer, row in self.newest(view, below).items()
            if (found := self.stored(view).get(customer)) is None or (found != row and not self._is_newer(found, row))
        ]

    def assert_holds(self, *views: ViewSpec) -> None:
        """Redis holds each row of these versions, or one that is newer; the chain is in order."""
        assert self.lacks(*views) == []
        assert verify(self.world.store).findings == ()
        assert links(self.world)[-1].end == self.end

    def _is_newer(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        def order(row: tuple[int, int]) -> tuple[str, int, int]:
            return json.loads(self._all[row[0]] or b"")["at"], row[0], row[1] // 1000

        return order(one) > order(other)


@pytest.fixture
def history(rng: random.Random) -> History:
    """Sixty offsets, not read yet."""
    return History(rng)


ONE, TWO, OTHER = version(1), version(2), version(1, "Other")


def reads(history: History) -> list[str]:
    """The paths that are read in the object store from now on."""
    paths: list[str] = []

    def note(operation: str, path: str) -> None:
        if operation == "read":
            paths.append(path)

    history.world.store.faults = note
    return paths


def test_going_back_to_an_older_version_takes_up_where_it_was_left(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis lacks no row, however many links there are since: no file is read, and nobody is asked to rebuild."""
    monkeypatch.setattr(catch_up, "MOST_LINKS_APPLIED_AGAIN", 0)
    history.read(20, ONE)
    history.read(20, TWO)
    paths = reads(history)
    history.read(20, ONE)
    assert not [path for path in paths if path.startswith(("views/", "raw/"))]
    history.assert_holds(ONE, TWO)
    one, two, stored = history.newest(ONE), history.newest(TWO), history.stored(ONE)
    assert all(row in (one.get(customer), two.get(customer)) for customer, row in stored.items())
    assert any(row == one.get(customer) for customer, row in stored.items())


def test_going_back_to_an_older_version_brings_back_its_lost_rows(history: History) -> None:
    """Also where its mark is lost with them, and the last links do not list it."""
    history.read(30, ONE)
    history.read(20, TWO)
    history.fail_over()
    history.read(0, ONE)
    history.assert_holds(ONE, TWO)
    history.read(10, ONE)
    history.assert_holds(ONE, TWO)


@pytest.mark.parametrize("linked", [0, 10])
def test_the_rows_of_a_version_that_runs_no_more_come_back_too(history: History, linked: int) -> None:
    """A failover at a rollout, before or after the first link of the new version: nobody else would miss them."""
    history.read(30, ONE)
    kept = history._writes - 4
    history.read(linked, TWO)
    history.fail_over(kept)
    history.read(0, TWO)
    history.assert_holds(ONE, TWO)


@pytest.mark.parametrize("linked", [0, 10])
@pytest.mark.parametrize("again", [ONE, TWO], ids=["the older", "the newer"])
def test_no_mark_of_any_version_passes_rows_that_are_lacking_still(
    history: History, again: ViewSpec, linked: int
) -> None:
    """A read behind a push is content with the mark of any version: at each call while Redis catches up."""
    history.read(30, ONE)
    kept = history._writes - 12
    history.read(linked, TWO)
    history.fail_over(kept)
    assert history.lacks(ONE)
    passed: list[int] = []
    lacking: list[str] = []

    def look(operation: Operation) -> None:
        marks = [history.world.server.read(KEYS.mark(MarkKey(PARTITION, VIEW.name, each))) for each in (1, 2)]
        passed.append(max((int(mark[:20]) for mark in marks if mark), default=0))
        lacking.extend(history.lacks(ONE, TWO, below=passed[-1]))

    history.read(0, again, faults=look)
    assert lacking == []
    assert len(set(passed)) > 2, "marks that rise"
    history.assert_holds(ONE, TWO)


@pytest.mark.parametrize("more", [1, 3])
def test_a_redis_that_forgets_again_gets_the_rows_of_a_version_that_runs_no_more_too(
    more: int, rng: random.Random
) -> None:
    """At each call that the catching up makes it forgets the rows that were applied again, and not all of the marks."""
    seed = rng.random()
    for at in range(1_000):
        history = History(random.Random(seed))
        history.read(30, ONE)
        kept = history._writes - 12
        history.read(10, TWO)
        history.fail_over(kept)
        calls = 0

        def fail_over(operation: Operation, history: History = history, at: int = at, kept: int = kept) -> None:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                history.fail_over(kept + more)

        history.read(0, TWO, faults=fail_over)
        history.read(0, TWO)
        history.assert_holds(ONE, TWO)
        if calls <= at:
            break
    assert at > 10


def test_the_rows_of_a_version_that_runs_no_more_come_back_from_behind_expired_links(history: History) -> None:
    history.read(30, ONE)
    history.fail_over(history._writes - 4)
    history.expire(5)
    history.read(5, TWO)
    history.assert_holds(ONE, TWO)


def test_rows_that_nobody_knows_how_to_encode_are_not_passed_over(history: History) -> None:
    """The registry has lost the version that wrote them; a rebuild says what to do about that."""
    history.read(30, ONE)
    history.fail_over(history._writes - 4)
    for path in [path for path in history.world.store.objects if path.startswith("_registry/")]:
        del history.world.store.objects[path]
    with pytest.raises(StoreNotReady, match="Last version 1, which does not run here and is not in the registry"):
        history.read(0, TWO)


def test_each_version_gets_back_what_it_lacks_itself(history: History) -> None:
    """One has all its rows, another has lost its latest: the mark that stands back further counts."""
    history.read(20, ONE, OTHER)
    before = history.world.server.dump()
    history.read(20, ONE, OTHER)
    for key in history.world.server.dump():
        if b"Other" in key and key in before:
            stored, expires = before[key]
            history.world.server.write(key, stored, expires)
        elif b"Other" in key:
            history.world.server.evict(key)
    history.world.server.fail_over()
    history.read(0, ONE, OTHER)
    history.assert_holds(ONE, OTHER)


@pytest.mark.parametrize("at", range(8))
def test_a_mark_that_is_lost_as_soon_as_it_was_read_is_not_made_anew_at_the_end(history: History, at: int) -> None:
    """Redis had everything at the first look, and forgets before one of the next calls."""
    history.read(40, ONE)
    calls = iter(range(1_000))

    def fail_over(operation: Operation) -> None:
        if next(calls) == at:
            history.fail_over()

    history.read(0, ONE, faults=fail_over)
    history.read(0, ONE)
    history.assert_holds(ONE)


def test_only_files_with_rows_that_redis_lacks_are_read(history: History) -> None:
    history.read(20, ONE, OTHER)
    kept = history.world.server.dump()
    history.read(20, TWO, OTHER)
    history.fail_over()
    for key, (stored, expires) in kept.items():
        history.world.server.write(key, stored, expires)  # as it was before the second version came
    paths = reads(history)
    history.read(0, ONE, OTHER)
    files = [path for path in paths if path.startswith("views/")]
    lacking = [account.file for link in links(history.world) for account in link.views if link.start >= 20]
    assert sorted(files) == sorted(file.path for file in lacking if file)
    assert files
    history.assert_holds(ONE, TWO, OTHER)


def test_each_version_is_applied_again_from_its_own_mark_on(history: History) -> None:
    """Redis lacks all rows of one view, and the later ones of another."""
    history.read(20, ONE, OTHER)
    kept = history.world.server.dump()
    history.read(20, ONE, OTHER)
    history.fail_over()
    for key, (stored, expires) in kept.items():
        if b"Other" not in key:
            history.world.server.write(key, stored, expires)
    paths = reads(history)
    history.read(0, ONE, OTHER)
    accounts = [(link, account) for link in links(history.world) for account in link.views if account.file]
    assert sorted(path for path in paths if path.startswith("views/")) == sorted(
        account.file.path
        for link, account in accounts
        if account.file and (account.view == OTHER.name or link.start >= 20)
    )
    history.assert_holds(ONE, OTHER)


@pytest.mark.parametrize("expired", [[10], [10, 7], [3, 1, 5]], ids=["one", "two in a row", "three in a row"])
def test_a_mark_that_is_lost_behind_expired_links_is_not_taken_for_a_new_view(
    history: History, expired: list[int]
) -> None:
    """They list no version at all, and the rows before them are lost with the mark."""
    history.read(20, ONE)
    for count in expired:
        history.expire(count)
        history.read(0, ONE)
    history.fail_over()
    history.read(10, ONE)
    history.assert_holds(ONE)
    assert [link.end - link.start for link in links(history.world) if link.expired] == expired


def test_a_mark_that_is_lost_while_retention_overtakes_the_worker_is_not_taken_for_a_new_view(history: History) -> None:
    history.read(20, ONE)
    history.fail_over()
    history.expire(10)
    history.read(10, ONE)
    history.assert_holds(ONE)


def test_a_view_that_is_added_begins_at_the_end_of_the_chain_without_reading_it(history: History) -> None:
    """However long it is. What the view has not seen is a hole, for a backfill to fill."""
    history.read(40, ONE)
    paths = reads(history)
    history.read(0, ONE, OTHER)
    assert [path for path in paths if path.startswith(PARTITION.folder)] == [
        PARTITION.genesis_path,
        links(history.world)[-1].path,
        PARTITION.link_path(40),
    ]
    history.read(20, ONE, OTHER)
    history.assert_holds(ONE, OTHER)
    assert {offset for offset, _ in history.stored(OTHER).values()} <= set(range(40, 60))


@pytest.mark.parametrize("lost", ["at once", "later"])
def test_a_view_whose_first_rows_are_lost_with_its_mark_gets_them_back(history: History, lost: str) -> None:
    """Redis is as it was before the view was added. Later: after the view was removed, and brought back."""
    history.read(20, ONE)
    kept = history._writes
    history.read(20, ONE, OTHER)
    if lost == "later":
        history.read(10, ONE)
        history.expire(5)
    history.fail_over(kept)
    history.read(5, ONE, OTHER)
    history.assert_holds(ONE, OTHER)


def test_a_view_that_was_removed_and_brought_back_begins_at_the_end_again(history: History) -> None:
    history.read(20, ONE, OTHER)
    history.read(20, ONE)
    history.read(20, ONE, OTHER)
    history.assert_holds(ONE, OTHER)
    assert {offset for offset, _ in history.stored(OTHER).values()} <= {*range(20), *range(40, 60)}


def test_whatever_comes_and_goes_and_is_lost_all_versions_have_all_their_rows(rng: random.Random) -> None:
    """Random lives of a partition: versions in any order, expired links, failovers back to any moment."""
    for _ in range(8):
        history = History(rng)
        while history.end < 50:
            views = rng.choice([(ONE,), (TWO,), (ONE, OTHER), (TWO, OTHER), (OTHER,)])
            if history.end and rng.random() < 0.2:
                history.expire(rng.randrange(1, 4))
            if history.end and rng.random() < 0.4:
                history.fail_over(rng.randrange(1, history._writes + 1))
            history.read(rng.randrange(0 if history.end else 1, 9), *views)
            if links(history.world):
                history.assert_holds(
                    *(view for view in (ONE, TWO, OTHER) if (view.name, view.version) in history._read)
                )


def test_a_redis_that_loses_rows_again_while_they_are_applied_again_gets_them_all(rng: random.Random) -> None:
    """At each call that the catching up makes it is once more as it was in the beginning."""
    seed = rng.random()
    for at in range(1_000):
        history = History(random.Random(seed), 40)
        history.read(40, ONE, OTHER)
        history.fail_over()
        calls = 0

        def fail_over(operation: Operation, history: History = history, at: int = at) -> None:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                history.fail_over(1 + at % 4)

        history.read(0, ONE, OTHER, faults=fail_over)
        history.read(0, ONE, OTHER)
        history.assert_holds(ONE, OTHER)
        if calls <= at:
            break
    assert at > 10


def test_a_partition_is_open_only_once_redis_holds_its_rows(rng: random.Random) -> None:
    """Whatever it loses meanwhile: either the flow ends before it began, or every mark stands at the chain's end."""
    seed = rng.random()
    opened = ended = 0
    for at in range(1_000):
        history = History(random.Random(seed), 40)
        history.read(40, ONE, OTHER)
        history.fail_over()
        worker = Worker(history.world, "b", views=(ONE, OTHER))
        calls = 0

        def fail_over(operation: Operation, history: History = history, at: int = at) -> None:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                history.fail_over(1 + at % 4)

        worker.online.faults = fail_over
        try:
            asyncio.run(worker.open())
        except OnlineFellBehind:
            ended += 1
        else:
            opened += 1
            marks = [MarkKey(PARTITION, view.name, view.version) for view in (ONE, OTHER)]
            assert asyncio.run(MemoryOnlineStore(history.world.server, KEYS).read_marks(marks)) == [40, 40]
            history.assert_holds(ONE, OTHER)
        if calls <= at:
            break
    assert opened
    assert ended


def test_a_redis_that_lacks_too_many_links_asks_for_a_rebuild(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.read(60, ONE)
    with_rows = sum(1 for link in links(history.world) if link.files[1:])
    for most, asks in ((with_rows, False), (with_rows - 1, True)):
        monkeypatch.setattr(catch_up, "MOST_LINKS_APPLIED_AGAIN", most)
        history.fail_over()
        if asks:
            with pytest.raises(StoreNotReady, match=rf"more than {most} links since offset 0; run `stillwell rebuild`"):
                history.read(0, ONE)
        else:
            history.read(0, ONE)
            history.assert_holds(ONE)
