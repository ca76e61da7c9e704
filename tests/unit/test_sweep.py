"""A sweep removes what no link will ever name, and nothing else, whoever sleeps or wakes up meanwhile."""

import json
import os
import pathlib
import random

import pytest

from sinks.archive import PartitionArchive, UploadedSpan
from stillwell.cli.main import run
from stillwell.errors import StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from stillwell.storage import LocalStore, ObjectStore
from stillwell.sweep import LeftBehind, find_left_behind, remove
from stillwell.testing.objects import MemoryStore
from stillwell.verify import verify
from tests.chain_support import NOON
from tests.spans import ID, batch, linked, opened, raw_offsets, uploaded


def sweep(store: ObjectStore) -> LeftBehind:
    """Find and remove."""
    found = find_left_behind(store, NOON)
    remove(store, found)
    return found


async def test_a_file_that_the_chain_has_passed_in_part_stays_until_it_is_passed_whole() -> None:
    store = MemoryStore()
    left = await uploaded(await opened(store, "dead"), batch(0, 12))
    for start in (0, 5):
        await linked(store, start, start + 5)
    assert set(sweep(store).kept) == set(left.paths)
    for start in (10, 15):
        await linked(store, start, start + 5)
    assert set(sweep(store).files) == set(left.paths)


async def test_the_last_link_does_not_count_since_no_other_vouches_for_it() -> None:
    store = MemoryStore()
    left = await uploaded(await opened(store, "dead"), batch(0, 5))
    await linked(store, 0, 5)
    assert set(sweep(store).kept) == set(left.paths)
    await linked(store, 5, 9)
    assert set(sweep(store).files) == set(left.paths)


async def test_what_holds_offsets_that_the_chain_calls_expired_stays() -> None:
    """Retention took the records while their writer slept: its file may be all that is left of them."""
    store = MemoryStore()
    left = await uploaded(await opened(store, "dead"), batch(3, 8))
    await linked(store, 0, 5)
    assert await (await opened(store, "owner")).expire(10)
    await linked(store, 10, 15)
    await linked(store, 15, 20)
    found = sweep(store)
    assert found.files == ()
    assert set(found.kept) == set(left.paths)


@pytest.mark.parametrize("damage", ["missing", "altered", "no genesis"])
async def test_a_chain_with_something_wrong_is_left_alone(damage: str) -> None:
    """What its lost link named looks unlinked, and another writer has gone on over it."""
    store = MemoryStore()
    for start in (0, 5, 10, 15):
        await linked(store, start, start + 5)
    path = {"no genesis": ID.genesis_path}.get(damage, ID.link_path(5))
    store.objects[path] = b"altered"
    if damage != "altered":
        store.delete(path)
    if damage == "missing":
        await linked(store, 5, 20, "somebody")
    before = dict(store.objects)
    found = sweep(store)
    assert (found.files, found.damaged) == ((), (ID,))
    assert store.objects == before


async def test_names_that_are_none_of_ours_and_chains_that_are_not_begun_stay() -> None:
    store = MemoryStore()
    for start in (0, 5):
        await linked(store, start, start + 5)
    strangers = [
        chain.data_path("raw/t", NOON.date(), PartitionId("t", 2, 0), 0, 3, "nonce"),
        chain.data_path("raw/t", NOON.date(), ID, 0, 3, "nonce").replace("-0-0-3-", "-0-00-3-"),
        "raw/t/notes.txt",
    ]
    for path in strangers:
        store.create(path, b"x")
    found = sweep(store)
    assert (found.files, found.kept) == ((), tuple(sorted(strangers)))


async def test_a_sweep_that_is_cut_short_is_simply_made_again() -> None:
    store = MemoryStore()
    left = await uploaded(await opened(store, "dead"), batch(0, 5))
    for start in (0, 5):
        await linked(store, start, start + 5)
    found = find_left_behind(store, NOON)
    store.faults = lambda operation, path: "refused" if path == found.files[1] else None
    with pytest.raises(StoreUnavailable):
        remove(store, found)
    store.faults = lambda operation, path: None
    assert set(sweep(store).files) == set(left.paths) - {found.files[0]}
    assert verify(store).unlinked == ()


async def test_sweeps_at_any_moment_lose_nothing_that_is_linked(rng: random.Random) -> None:
    """Writers sleep and wake up at any time, each with spans in hand; sweeps are found and carried out between them."""
    for _ in range(20):
        store = MemoryStore()
        writers: list[tuple[PartitionArchive, UploadedSpan | None]] = [(await opened(store, "first"), None)]
        found: LeftBehind | None = None
        for _ in range(40):
            archive, in_hand = rng.choice(writers)
            step = rng.randrange(4)
            if step == 0:
                writers.append((await opened(store, "next"), None))
            elif step == 1 and in_hand is None:
                end = archive.end + rng.randrange(1, 9)
                writers[writers.index((archive, None))] = (archive, await uploaded(archive, batch(archive.end, end)))
            elif step == 2 and in_hand is not None:
                await archive.link(in_hand, "", "")
                writers.remove((archive, in_hand))
                writers.append((await opened(store, "again"), None))
            elif step == 3 and found is None:
                found = find_left_behind(store, NOON)
            elif step == 3 and found is not None:
                remove(store, found)
                found = None
        report = verify(store)
        assert report.findings == ()
        assert raw_offsets(store) == list(range(report.partitions[0].end))


@pytest.fixture
async def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The offline store of a deployment, in which a crash has left files, and another one half of a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("PROJECT", "DEFINITIONS"):
        monkeypatch.setenv(f"STILLWELL_{name}", "any")
    monkeypatch.setenv("STILLWELL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_OFFLINE_URL", str(tmp_path / "offline"))
    store = LocalStore(f"{tmp_path}/offline/any/prod")
    await uploaded(await opened(store, "dead"), batch(0, 5))
    for start in (0, 5):
        await linked(store, start, start + 5)
    for name, written in ((".creating-old", 0), (".creating-new", None)):
        half = tmp_path / "offline/any/prod/raw" / name
        half.write_bytes(b"PAR1")
        if written is not None:
            os.utime(half, (written, written))
    return store


async def test_the_command_removes_what_it_lists_and_half_written_files_that_are_old(
    folder: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    unlinked = verify(folder).unlinked
    assert unlinked
    assert run(["sweep", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "removed": False,
        "files": sorted(unlinked),
        "half_written": ["raw/.creating-old"],
        "kept": [],
        "damaged": [],
    }
    assert verify(folder).unlinked == unlinked
    assert run(["sweep"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *sorted(unlinked),
        "raw/.creating-old",
        f"Removed: {len(unlinked)} files in no link, 1 half written one; kept, though in no link: 0 files",
    ]
    assert verify(folder).unlinked == ()
    assert run(["sweep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == []


async def test_the_command_names_a_chain_that_it_leaves_alone(
    folder: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.delete(ID.link_path(0))
    assert run(["sweep"]) == 1
    printed = capsys.readouterr()
    assert "t@1-0: something is wrong with its chain, `stillwell verify` says what" in printed.err
    assert "Removed: 0 files" in printed.out
