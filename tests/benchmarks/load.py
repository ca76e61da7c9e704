"""The load: JSON events of 12 fields, about 300 bytes each, and the definitions that read them.

    {"user_id": 4711, "ts": 1767000000000000, "f0": 0.1…, …, "f7": 0.9…, "f8": 17, "f9": "abc17"}

Event times rise by a microsecond an event, but for a tenth of the events, which are up to 50 ms late: a stream in
perfect order would spare the worker a sort of every batch. Each float is random, so that files compress as floats do.
"""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

PACKAGE = "bench_definitions"
VIEW = "UserNow"
ALWAYS_NEW = 1 << 48
"""As many keys as this, and nearly every event has one of its own."""

_LATE_US = 50_000
_FLUSH_SECONDS = 60

_DEFINITIONS = '''\
from datetime import timedelta

from stillwell import Bool, Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View, col, feature


class User(Entity, owner="benchmarks"):
    user_id: Key[Int64]


class Event(Topic, name="{topic}", event_time="ts", start="earliest"):
    user_id: Col[Int64]
    ts: Col[Timestamp] = col(unit="us")
    f0: Col[Float64]
    f1: Col[Float64]
    f2: Col[Float64]
    f3: Col[Float64]
    f4: Col[Float64]
    f5: Col[Float64]
    f6: Col[Float64]
    f7: Col[Float64]
    f8: Col[Int64]
    f9: Col[String]


class UserNow(View, source=Event, entity=User, keys={{"user_id": Event.user_id}}, ttl=timedelta(days=7)):
    """The latest event of a user: as it came, and a little computed."""

    f0: Feature[Float64] = feature(Event.f0)
    f1: Feature[Float64] = feature(Event.f1)
    f2: Feature[Float64] = feature(Event.f2)
    f3: Feature[Float64] = feature(Event.f3)
    scaled: Feature[Float64] = feature(Event.f4 * 100)
    clipped: Feature[Float64] = feature(Event.f5.clip(0.1, 0.9))
    total: Feature[Float64] = feature(Event.f6 + Event.f7)
    high: Feature[Bool] = feature(Event.f0 > 0.5)
    count: Feature[Int64] = feature(Event.f8)
    city: Feature[String] = feature(Event.f9)
'''


def write_definitions(folder: Path, topic: str) -> None:
    """The package of definitions over a topic, in a folder."""
    package = folder / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(_DEFINITIONS.format(topic=topic))


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """So many events over so many keys, the same for the same seed. Times in µs since the epoch."""

    events: int
    keys: int
    first_ts: int
    seed: int = 1

    def users(self) -> Iterator[int]:
        """The key of each event."""
        chance = random.Random(self.seed)
        return (chance.randrange(self.keys) for _ in range(self.events))

    def distinct_users(self) -> int:
        """How many of the keys occur."""
        return len(set(self.users()))

    def bodies(self) -> Iterator[tuple[int, bytes]]:
        """Each event's key and its JSON."""
        chance = random.Random(f"body {self.seed}")
        for number, user in enumerate(self.users()):
            yield user, body(user, self.first_ts + number - lateness(number, chance), number, chance)

    def produce(self, bootstrap: str, topic: str) -> None:
        """Produce all of it, keyed by user, uncompressed, and wait until the broker has it."""
        producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
        )
        for number, (user, value) in enumerate(self.bodies()):
            producer.produce(topic, value, key=b"%d" % user)
            if number % 10_000 == 0:
                producer.poll(0)
        if left := producer.flush(_FLUSH_SECONDS):
            raise TimeoutError(f"Kafka took all but {left} of {self.events} events within {_FLUSH_SECONDS} s")


def lateness(number: int, chance: random.Random) -> int:
    """By how many µs an event is late: a tenth of them are."""
    return chance.randrange(_LATE_US) if number % 10 == 9 else 0


def body(user: int, ts: int, number: int, chance: random.Random) -> bytes:
    """One event."""
    floats = {f"f{field}": chance.random() for field in range(8)}
    return json.dumps({"user_id": user, "ts": ts, **floats, "f8": number, "f9": f"abc{number % 50}"}).encode()
