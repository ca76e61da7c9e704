"""A sweep over a folder, a bucket and the twin: what it removes nobody can link, and what may be linked it leaves."""

from stillwell.storage import ObjectStore
from stillwell.sweep import LeftBehind, find_left_behind, remove
from stillwell.verify import verify
from tests.chain_support import NOON
from tests.spans import batch, linked, opened, raw_offsets, uploaded


def sweep(store: ObjectStore) -> LeftBehind:
    """Find and remove."""
    found = find_left_behind(store, NOON)
    remove(store, found)
    return found


async def test_what_was_swept_no_zombie_can_link(store: ObjectStore) -> None:
    """It had uploaded its files, slept through another's links and the sweep, and wakes up to link."""
    zombie = await opened(store, "zombie")
    in_hand = await uploaded(zombie, batch(0, 5))
    for start in (0, 7, 9):
        await linked(store, start, start + 2 if start else 7)
    found = sweep(store)
    assert found == LeftBehind(tuple(sorted(in_hand.paths)), (), (), ())
    assert not await zombie.link(in_hand, "", "")
    report = verify(store)
    assert report.is_good
    assert report.unlinked == ()
    assert raw_offsets(store) == list(range(11))


async def test_what_may_still_be_linked_stays(store: ObjectStore) -> None:
    """A span at the chain's end, and one prepared ahead; both are linked after the sweep."""
    for start in (0, 5):
        await linked(store, start, start + 5)
    writer = await opened(store, "slow")
    first, ahead = [await uploaded(writer, batch(start, start + 5)) for start in (10, 15)]
    found = sweep(store)
    assert (found.files, found.damaged) == ((), ())
    assert set(found.kept) == {*first.paths, *ahead.paths}
    assert await writer.link(first, "", "")
    assert await writer.link(ahead, "", "")
    assert verify(store).is_good
    assert raw_offsets(store) == list(range(20))
