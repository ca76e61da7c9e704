"""`stillwell get`: what it says of rows that are in a real Redis."""

import asyncio
import dataclasses
import datetime
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from sinks.redis import RedisOnlineStore
from stillwell.cli.main import run
from stillwell.definitions.loading import load_definitions
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import LocalStack
from stillwell.pipeline import compile_pipeline
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec
from tests.batches import records

DEFINITIONS = """
from datetime import timedelta
from stillwell import Bool, Bytes, Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View, feature

class Seat(Entity):
    flight: Key[Int64]
    seat: Key[String]

class Booking(Topic, name="bookings", event_time="at", sequence="number"):
    at: Col[Timestamp]
    number: Col[Int64]
    flight: Col[Int64]
    seat: Col[String]
    price: Col[Float64 | None]
    note: Col[String | None]
    code: Col[Bytes | None]

class LastBooking(
    View, source=Booking, entity=Seat, keys={"flight": Booking.flight, "seat": Booking.seat}, ttl=timedelta(hours=6)
):
    price: Feature[Float64 | None] = feature(Booking.price)
    note: Feature[String | None] = feature(Booking.note)
    code: Feature[Bytes | None] = feature(Booking.code)
    booked_at: Feature[Timestamp] = feature(Booking.at)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Bookings:
    """A deployment without workers: rows are put by the test."""

    settings: Settings
    definitions: DefinitionsSpec

    def put(self, topic: str = "bookings", **fields: object) -> None:
        """Put the row of one booking, the record of which has offset 42 in partition 3."""
        value = {"number": 1, "flight": 12, "seat": "7A", **fields}
        (spec,) = self.definitions.topics
        now_ms = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
        taken = records([json.dumps(value).encode()], start=42, timestamps=[now_ms])
        batch = dataclasses.replace(taken, topic=spec.topic, partition=3)
        (rows,) = compile_pipeline(spec, self.definitions.views).run(batch).rows
        assert rows.frame.height == 1
        encoded, _ = ViewEncoder(self.definitions.views[0], self.settings.redis_grace).encode(
            rows.frame, PartitionId(topic, 2, 3)
        )

        async def put() -> None:
            online = await RedisOnlineStore.open(self.settings)
            epoch = await online.initialise("an-epoch")
            counts = await online.put(encoded, epoch)
            assert counts.applied == 1
            await online.close()

        asyncio.run(put())


@pytest.fixture
def bookings(stack: LocalStack, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bookings:
    """Settings in the environment, and definitions under a name that no other test has imported."""
    package = f"bookings_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{package}.py").write_text(DEFINITIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {
        **stack.environment,
        "STILLWELL_PROJECT": "test",
        "STILLWELL_NAMESPACE": namespace,
        "STILLWELL_DEFINITIONS": package,
        "STILLWELL_OFFLINE_URL": str(tmp_path / "offline"),
    }.items():
        monkeypatch.setenv(name, value)
    return Bookings(Settings.load(), load_definitions(package))


def ago(**units: float) -> str:
    """A time before now."""
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(**units)).isoformat()


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `get --json` printed."""
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_row_is_shown_with_its_values_its_age_and_where_it_comes_from(
    bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ago(minutes=90)
    bookings.put(at=at, price=0.1, note="two\x9b2J lines\n", code="aGk=")
    assert run(["get", "LastBooking", "seat=7A", "flight=12", "--json"]) == 0
    answer = said(capsys)
    assert answer["entity"] == {"flight": 12, "seat": "7A"}
    assert answer["ttl_s"] == 6 * 3600
    features = answer["features"]
    assert all(90 * 60 <= each["age_s"] < 95 * 60 for each in features.values())
    times = features.pop("LastBooking:booked_at")
    assert datetime.datetime.fromisoformat(times["value"]) == datetime.datetime.fromisoformat(at)
    assert {name: (each["value"], each["status"]) for name, each in features.items()} == {
        "LastBooking:price": (0.1, "PRESENT"),
        "LastBooking:note": ("two\x9b2J lines\n", "PRESENT"),
        "LastBooking:code": ("aGk=", "PRESENT"),
    }
    row = answer["row"]
    assert row["event_time"] == times["value"]
    assert 90 * 60 <= row["age_s"] < 95 * 60
    assert (row["topic"], row["incarnation"], row["partition"], row["offset"]) == ("bookings", 2, 3, 42)
    assert (row["version"], row["row"], row["sequence"]) == (1, 0, 1)
    assert row["record_timestamp"] > row["event_time"]

    assert run(["get", "LastBooking", "flight=12", "seat=7A"]) == 0
    printed = capsys.readouterr().out
    assert "from bookings, partition 3, offset 42 of incarnation 2" in printed
    assert "\x9b" not in printed


def test_nulls_old_rows_and_missing_rows_are_told_apart(bookings: Bookings, capsys: pytest.CaptureFixture[str]) -> None:
    bookings.put(at=ago(hours=1), price=1.5)
    bookings.put(at=ago(hours=6, minutes=10), price=1.5, seat="8B")
    statuses = {}
    for seat in ("7A", "8B", "9C"):
        assert run(["get", "LastBooking", "flight=12", f"seat={seat}", "--json"]) == 0
        answer = said(capsys)
        statuses[seat] = tuple(answer["features"][f"LastBooking:{name}"]["status"] for name in ("price", "note"))
        assert (answer["row"] is None) == (seat == "9C")
    assert statuses == {
        "7A": ("PRESENT", "NULL_VALUE"),
        "8B": ("OUTSIDE_MAX_AGE", "OUTSIDE_MAX_AGE"),
        "9C": ("NOT_FOUND", "NOT_FOUND"),
    }
    assert run(["get", "LastBooking", "flight=12", "seat=9C"]) == 0
    assert "there is no row\n" in capsys.readouterr().out


def test_who_asks_by_a_wrong_key_is_told_which_there_are(
    bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    for seat in ("7A", "8}:B"):
        bookings.put(at=ago(hours=1), price=1.5, seat=seat)
    assert run(["get", "LastBooking", "flight=12", "seat=7a"]) == 0
    (told,) = capsys.readouterr().out.partition("there is no row\n")[2].splitlines()
    assert told.startswith("others have one, such as ")
    assert set(told.removeprefix("others have one, such as ").split("; ")) == {
        'flight=12, seat="7A"',
        'flight=12, seat="8}:B"',
    }


def test_who_asks_a_view_without_rows_is_told_that_it_has_none(
    bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under the namespace of somebody else."""

    async def make_ready() -> None:
        online = await RedisOnlineStore.open(bookings.settings)
        await online.initialise("an-epoch")
        await online.close()

    asyncio.run(make_ready())
    assert run(["get", "LastBooking", "flight=12", "seat=7A"]) == 0
    assert (
        f"LastBooking has no row of any entity in the namespace {bookings.settings.namespace} of test; `stillwell try "
        "LastBooking` shows what the records of its topic give"
    ) in capsys.readouterr().out


def test_some_features_are_shown_without_the_rest(bookings: Bookings, capsys: pytest.CaptureFixture[str]) -> None:
    bookings.put(at=ago(minutes=90), price=0.1)
    asked = ["get", "LastBooking:note", "LastBooking:price", "flight=12", "seat=7A"]
    assert run([*asked, "--json"]) == 0
    answer = said(capsys)
    assert answer["entity"] == {"flight": 12, "seat": "7A"}
    assert list(answer["features"]) == ["LastBooking:note", "LastBooking:price"]
    price = answer["features"]["LastBooking:price"]
    assert (price["value"], price["status"]) == (0.1, "PRESENT")
    assert 90 * 60 <= price["age_s"] < 95 * 60
    assert run(asked) == 0
    assert "LastBooking:price  PRESENT          0.1  (1 hour 30 minutes" in capsys.readouterr().out


def test_a_topic_that_nobody_knows_is_said_by_its_digest(
    bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    bookings.put(topic="forgotten", at=ago(hours=1))
    assert run(["get", "LastBooking", "flight=12", "seat=7A", "--json"]) == 0
    row = said(capsys)["row"]
    assert row["topic"] is None
    assert len(row["topic_digest"]) == 16


@pytest.mark.parametrize("ready", [False, True])
def test_a_redis_that_may_have_forgotten_gives_no_answer(
    ready: bool, bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    if ready:
        bookings.put(at=ago(hours=1))
        with redis.Redis.from_url(bookings.settings.redis_url.get_secret_value()) as client:
            client.delete(RedisKeys("test", bookings.settings.namespace).ready)
    assert run(["get", "LastBooking", "flight=12", "seat=7A"]) == 1
    printed = capsys.readouterr()
    assert "run `stillwell rebuild`" in printed.err
    assert "NOT_FOUND" not in printed.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["LastBoking", "flight=1", "seat=x"], "there is no view 'LastBoking'; did you mean 'LastBooking'?"),
        (["LastBooking", "flight=1", "saet=x"], "Seat has no key 'saet'; did you mean 'seat'?"),
        (["LastBooking", "flight=1"], "Seat needs seat=… too"),
        (["LastBooking", "flight=1", "flight=2", "seat=x"], "the key flight is given twice"),
        (["LastBooking", "flight", "seat=x"], "'flight' is no KEY=VALUE"),
        (["flight=1", "seat=x"], "name a view, a feature or a feature service"),
        (["LastBooking:prise", "flight=1", "seat=x"], "LastBooking has no feature 'prise'; did you mean 'price'?"),
        (["LastBooking", "flight=one", "seat=x"], "the key flight must be a whole number"),
        (["LastBooking", "flight=1", f"seat={'x' * 600}"], "512 are allowed"),
    ],
)
def test_a_wrong_call_is_told_what_is_right(
    arguments: list[str], says: str, bookings: Bookings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["get", *arguments]) == 2
    assert says in capsys.readouterr().err
