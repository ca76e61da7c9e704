"""Looking for registered versions: once for all who ask, not too often, and never in the way of an answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog

from stillwell.errors import FormatError, StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.layout.projection import UnknownLayout
from stillwell.reading import after
from stillwell.spec import ViewSpec
from stillwell.types import STRING
from tests.batches import feature
from tests.served import PLACES, USERS, Served


class Registry:
    """What a thread is told when it looks."""

    def __init__(self) -> None:
        self.versions: list[ViewSpec] = []
        self.looks = 0
        self.fails: Exception | None = None
        self.let = threading.Event()
        self.let.set()

    def load(self) -> Sequence[ViewSpec]:
        self.looks += 1
        assert self.let.wait(10)
        if self.fails:
            raise self.fails
        return self.versions


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def served(registry: Registry, clock: Clock) -> AsyncIterator[Served]:
    """A service over an empty store, and a registry."""
    made = Served(registered=registry.load, clock=clock)
    await made.client.start_server()
    yield made
    await made.client.close()


@pytest.fixture
def newer() -> ViewSpec:
    """Users at version 2, with another feature."""
    more = feature("more", STRING, USERS.features[2].expression)
    return USERS.model_copy(update={"version": 2, "features": (*USERS.features, more)})


ASKED = {"features": ["Users:name"], "entities": {"id": [1]}}


async def test_a_row_that_nobody_knows_has_everybody_wait_for_one_look(
    served: Served, registry: Registry, newer: ViewSpec
) -> None:
    await served.put({"id": 1, "name": "a"}, views=[newer, PLACES])
    registry.versions = [newer]
    registry.let.clear()
    asking = [asyncio.create_task(served.post("/v1/features", **ASKED)) for _ in range(20)]
    await asyncio.sleep(0)
    registry.let.set()
    answers = await asyncio.gather(*asking)
    assert {status for status, _ in answers} == {200}
    assert all(answer["features"]["Users:name"]["values"] == ["a"] for _, answer in answers)
    assert registry.looks == 1


async def test_a_row_that_stays_unknown_is_a_500_and_is_looked_for_now_and_then(
    served: Served, registry: Registry, clock: Clock, newer: ViewSpec
) -> None:
    await served.put({"id": 1, "name": "a"}, views=[newer, PLACES])
    seen: list[float] = []
    for tenths in range(1_000):
        clock.now = tenths / 10
        status, answer = await served.post("/v1/features", **ASKED)
        assert (status, answer["error"]["kind"]) == (500, UnknownLayout.__name__)
        if registry.looks > len(seen):
            seen.append(clock.now)
    assert seen == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]
    clock.now = 130.0
    registry.versions = [newer]
    assert (await served.post("/v1/features", **ASKED))[0] == 200


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (StoreUnavailable("the bucket does not answer"), "until the offline store can"),
        (
            FormatError("Users/2.json is of format 2, this version of Stillwell reads 1: upgrade"),
            "what is unknown here",
        ),
    ],
    ids=["a store that is away", "a document of a later release"],
)
async def test_the_log_tells_a_store_to_wait_for_from_a_registry_to_upgrade_for(
    served: Served, registry: Registry, newer: ViewSpec, fails: Exception, says: str
) -> None:
    await served.put({"id": 1, "name": "a"}, views=[newer, PLACES])
    registry.fails = fails
    with structlog.testing.capture_logs() as lines:
        status, answer = await served.post("/v1/features", **ASKED)
    assert (status, answer["error"]["kind"]) == (500, UnknownLayout.__name__)
    (warned,) = (line for line in lines if line["log_level"] == "warning")
    assert says in warned["event"]
    assert warned["error"] == str(fails)


async def test_a_read_that_waits_for_a_push_looks_for_versions_whose_workers_take_it_in(
    served: Served, registry: Registry, clock: Clock, newer: ViewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after, "_LONG", 0.02)
    await served.put({"id": 1, "name": "a"}, views=[newer, PLACES])  # which the waiting read has no plan for
    mark = MarkKey(PartitionId("test.push.Users", 1, 0), "Users", 2)
    await served.store.set_marks([MarkMove(mark, 8, 8)], "epoch")
    asked = {**ASKED, "after": "Users@1:0-7", "timeout_ms": 200}
    assert (await served.post("/v1/features", **asked))[0] == 504
    assert registry.looks == 1
    clock.now = 1.0
    registry.versions = [newer]
    status, answer = await served.post("/v1/features", **{**asked, "timeout_ms": 10_000})
    assert (status, answer["features"]["Users:name"]["values"]) == (200, ["a"])


async def test_a_registry_that_is_away_is_asked_again(
    served: Served, registry: Registry, clock: Clock, newer: ViewSpec
) -> None:
    await served.put({"id": 1, "name": "a"}, views=[newer, PLACES])
    registry.fails = StoreUnavailable("the bucket does not answer")
    assert served.features.known.versions is not None
    assert not await served.features.known.versions.look()
    registry.fails, registry.versions = None, [newer]
    assert (await served.post("/v1/features", **ASKED))[0] == 500
    clock.now = 1.0
    assert (await served.post("/v1/features", **ASKED))[0] == 200
