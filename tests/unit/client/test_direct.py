"""Straight from the store and through the service: the same answers, and the same errors."""

import dataclasses
import datetime
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from stillwell.client import Behind, Client, Closed, Features, NotDefined, NotReady, Retries, Unavailable, Unsupported
from stillwell.client.direct import Direct
from stillwell.errors import FormatError, StillwellError, StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.columns import ModelReaders
from stillwell.reading import after as after_
from stillwell.reading.after import Marks
from stillwell.reading.features import FeatureReader
from stillwell.reading.online import Stored
from stillwell.spec import ViewSpec
from tests.served import DEFINITIONS, LIMITS, NOW_US, TOPIC, USERS, Served

ALL = [f"Users:{feature.name}" for feature in USERS.features]
KEYS = RedisKeys("test", "test")
SEEN = "2026-01-01T00:00:00.000001Z"


@dataclasses.dataclass
class Opened:
    """What a `Direct` reads through."""

    reader: FeatureReader
    models: ModelReaders
    marks: Marks
    now_us: Callable[[], int] = lambda: NOW_US
    closed: bool = False

    async def close(self) -> None:
        self.closed = True


NO_MODELS = ModelReaders({}, DEFINITIONS, lambda: NOW_US)


def straight(served: Served, older: Callable[[], Sequence[ViewSpec]] = lambda: ()) -> Client:
    """A client of the store behind a service."""

    def open() -> Opened:
        return Opened(FeatureReader(served.store, KEYS, lambda: served.now_us), NO_MODELS, served.marks)

    return Client.of(
        Direct(
            DEFINITIONS,
            open,
            older,
            rows=LIMITS.rows,
            values=LIMITS.values,
            retries=Retries(attempts=2, first=0.001),
            topics=[TOPIC.topic],
        )
    )


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A service over an empty store."""
    made = Served()
    await made.client.start_server()
    yield made
    await made.client.close()


@pytest.fixture
async def both(served: Served) -> AsyncIterator[tuple[Client, Client]]:
    """Through the service, and straight."""
    async with Client(str(served.client.make_url("/"))) as through, straight(served) as direct:
        yield through, direct


def comparable(found: Features) -> object:
    """With NaN, which equals nothing, as a text."""
    columns = {
        reference: dataclasses.replace(
            column,
            values=tuple("NaN" if isinstance(value, float) and math.isnan(value) else value for value in column.values),
        )
        for reference, column in found.columns.items()
    }
    return dataclasses.replace(found, columns=columns)


async def test_both_give_the_same_to_the_bit(served: Served, both: tuple[Client, Client]) -> None:
    await served.put(
        {"id": 1, "name": "ä", "amount": 0.1, "seen": SEEN, "raw": "aGk="},
        {"id": 2, "name": "b"},
        {"id": 3, "name": "NaN", "amount": -1e308},
        {"id": 4, "name": "", "amount": 5e-324, "raw": ""},
        {"id": 5, "name": "old", "at": "2025-12-31T22:30:00Z"},
    )
    served.now_us = NOW_US + 1_500_001
    entities = {"id": [5, 4, 3, 2, 1, 99, 1]}
    through, direct = [await client.features(ALL, entities, provenance=True) for client in both]
    assert comparable(through) == comparable(direct)
    assert through.to_arrow(details=True, expired=True).equals(direct.to_arrow(details=True, expired=True))
    assert {status.value for status in through.column("Users:amount").statuses} == {
        "PRESENT",
        "NULL_VALUE",
        "NOT_FOUND",
        "OUTSIDE_MAX_AGE",
    }
    made_of = [each and (each.topic, each.offset, each.version) for each in direct.column(ALL[0]).provenance or ()]
    assert made_of == [("t", 104, 1), ("t", 103, 1), ("t", 102, 1), ("t", 101, 1), ("t", 100, 1), None, ("t", 100, 1)]


@pytest.mark.parametrize(
    ("features", "entities"),
    [
        (["Users:amonut"], {"id": 1}),
        (["User:amount"], {"id": 1}),
        (["Users:amount", "Users:amount"], {"id": 1}),
        ([], {"id": 1}),
        (["Users:amount"], {}),
        (["Users:amount"], {"id": [1, "2"]}),
        (["Users:amount"], {"id": [1, 2], "name": ["a"]}),
        (["Users:amount"], {"id": 1, "idd": 2}),
        (["Users:amount"], {"id": [1] * 51}),
        (ALL, {"id": [1] * 50}),
        (["Users:amount"], {"id": object()}),
        (["Users:amount"], {"id": datetime.datetime(2026, 1, 1)}),
    ],
)
async def test_both_refuse_the_same_in_the_same_words(
    features: list[str], entities: Any, served: Served, both: tuple[Client, Client]
) -> None:
    await served.put({"id": 1, "name": "a"})
    said = []
    for client in both:
        with pytest.raises(StillwellError) as refused:
            await client.features(features, entities)
        said.append((type(refused.value), str(refused.value), getattr(refused.value, "field", None)))
    assert said[0] == said[1]


async def test_a_store_that_forgot_is_not_ready_for_both(both: tuple[Client, Client]) -> None:
    for client in both:
        with pytest.raises(NotReady, match="not ready"):
            await client.features(["Users:amount"], {"id": 1})


async def test_a_store_that_is_away_is_asked_again_and_then_unavailable() -> None:
    class Away:
        asked = 0

        async def read(self, keys: Sequence[bytes]) -> Stored:
            self.asked += 1
            raise StoreUnavailable("Redis is away")

    away = Away()
    opened = Opened(FeatureReader(away, KEYS, lambda: NOW_US), NO_MODELS, Marks(away, KEYS, "test", ()))
    source = Direct(DEFINITIONS, lambda: opened, lambda: (), rows=1, values=1, retries=Retries(attempts=3, first=0.001))
    async with Client.of(source) as client:
        with pytest.raises(Unavailable, match="away"):
            await client.features(["Users:amount"], {"id": 1})
    assert away.asked == 3
    assert opened.closed


async def test_a_row_of_an_older_version_is_read_by_what_the_registry_knows(served: Served) -> None:
    was = USERS.model_copy(update={"features": USERS.features[:1]})
    await served.put({"id": 1, "name": "a", "amount": 7.5}, views=[was])
    looked = 0

    def registered() -> list[ViewSpec]:
        nonlocal looked
        looked += 1
        return [was]

    async with straight(served, registered) as client:
        found = (await client.features(["Users:amount", "Users:name"], {"id": 1})).one()
    assert (found["Users:amount"].value, found["Users:name"].status.value) == (7.5, "NOT_FOUND")
    assert looked == 1


async def test_a_row_that_nobody_knows_is_told_and_does_not_send_every_reader_to_the_registry(served: Served) -> None:
    await served.put({"id": 1, "name": "a"}, views=[USERS.model_copy(update={"features": USERS.features[:1]})])
    looked = 0

    def registered() -> list[ViewSpec]:
        nonlocal looked
        looked += 1
        return []

    async with straight(served, registered) as client:
        for _ in range(3):
            with pytest.raises(FormatError, match="unknown layout"):
                await client.features(["Users:amount"], {"id": 1})
    assert looked == 1


async def test_what_it_cannot_do_is_said(served: Served) -> None:
    async with straight(served) as client:
        with pytest.raises(Unsupported, match=r"cannot push; the query service does.* use Client\(url\)"):
            await client.push("Users", {"id": 1})
        async with client.pusher("Users") as pusher:
            receipt = await pusher.push({"id": 1})
            with pytest.raises(Unsupported, match="cannot push"):
                await receipt


async def test_one_that_is_closed_says_so_and_opens_nothing_again(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    async with straight(served) as client:
        await client.features(["Users:amount"], {"id": 1})
    with pytest.raises(Closed, match="the client is closed"):
        await client.features(["Users:amount"], {"id": 1})


async def test_a_read_that_is_under_way_when_its_client_is_closed_is_not_made_again() -> None:
    class Away:
        async def read(self, keys: Sequence[bytes]) -> Stored:
            await client.close()
            raise StoreUnavailable("the connection was closed")

    made = []

    def open() -> Opened:
        away = Away()
        made.append(Opened(FeatureReader(away, KEYS, lambda: NOW_US), NO_MODELS, Marks(away, KEYS, "test", ())))
        return made[-1]

    client = Client.of(Direct(DEFINITIONS, open, lambda: (), rows=1, values=1, retries=Retries(first=0.001)))
    with pytest.raises(Closed, match="closed before the answer came"):
        await client.features(["Users:amount"], {"id": 1})
    assert [each.closed for each in made] == [True]


async def test_the_mark_of_a_version_that_the_registry_knows_is_waited_for_too(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a newer version has taken the push in: its mark has passed, and never will that of ours."""
    monkeypatch.setattr(after_, "_LONG", 0.02)
    await served.put({"id": 1, "name": "a"})
    newer = MarkKey(PartitionId("test.push.Users", 1, 0), "Users", 2)
    await served.store.set_marks([MarkMove(newer, 8, 8)], "epoch")
    registered: list[ViewSpec] = []
    async with straight(served, lambda: registered) as client:
        with pytest.raises(Behind):
            await client.features(["Users:name"], {"id": 1}, after="Users@1:0-7", timeout=0.5)
    registered.append(USERS.model_copy(update={"version": 2}))
    async with straight(served, lambda: registered) as client:
        found = await client.features(["Users:name"], {"id": 1}, after="Users@1:0-7", timeout=10)
    assert found.one()["Users:name"].value == "a"


async def test_both_wait_for_a_push_and_say_alike_how_far_behind_they_are(
    served: Served, both: tuple[Client, Client]
) -> None:
    await served.put({"id": 1, "name": "a"})
    through, _ = both
    pushed = await through.push("Users", {"id": 1, "name": "b", "at": "2026-01-01T00:00:01Z"}, mode="async")
    assert pushed.token is not None
    said = []
    for client in both:
        with pytest.raises(Behind) as behind:
            await client.features(["Users:name"], {"id": 1}, after=pushed.token, timeout=2.0)
        said.append((str(behind.value), behind.value.lag))
        with pytest.raises(NotDefined, match="did you mean 'Users'"):
            await client.features(["Users:name"], {"id": 1}, after="User@1:0-7")
    assert said[0] == said[1]
    assert said[0][1] == 1
    pushed = await through.push("Users", {"id": 1, "name": "c", "at": "2026-01-01T00:00:02Z"})
    for client in both:
        found = await client.features(["Users:name"], {"id": 1}, after=pushed.token)
        assert found.one()["Users:name"].value == "c"
