"""Who waits for registered versions while they are looked for."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from stillwell.reading.versions import Versions
from stillwell.spec import ViewSpec
from tests.waiting import eventually_here


def _when(let: threading.Event) -> Sequence[ViewSpec]:
    """No versions, after a while."""
    let.wait(10)
    return []


async def test_who_waits_when_it_is_closed_is_told_that_nobody_has_looked() -> None:
    """And is not cancelled, which a group of tasks would take for its own end."""
    let = threading.Event()
    versions = Versions(lambda: _when(let), found=lambda versions: None)
    waiting = [asyncio.create_task(versions.look()) for _ in range(3)]
    await eventually_here(lambda: versions._looking is not None, what="a look")
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    assert waiting[0].cancelled()
    await versions.close()
    let.set()
    assert await asyncio.gather(*waiting[1:]) == [False, False]


async def test_a_look_that_is_over_is_told_to_all() -> None:
    versions = Versions(list, found=lambda versions: None)
    assert all(await asyncio.gather(versions.look(), versions.look()))
    assert not await versions.look(), "a moment ago"
    await versions.close()


async def test_nobody_waits_longer_than_one_request_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwell.reading.versions._WAIT", 0.01)
    let = threading.Event()
    versions = Versions(lambda: _when(let), found=lambda versions: None)
    assert not await versions.look()
    let.set()
    await versions.close()
