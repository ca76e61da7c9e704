"""What is served: the same rows for Stillwell and for Feast, the definitions that they belong to, and the requests.

A user has 250 features, of four types. Views cut them in different ways: the first 10, 50 or 250 of them in one view,
the first 40 in one view, or in twenty views of two.
"""

import dataclasses
import datetime
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PACKAGE = "bench_served"
TOPIC = "served"
USERS = 2_000
COLUMNS = 250
KEY = "user_id"
TTL_DAYS = 7

VIEWS: Mapping[str, range] = {
    **{f"Of{count}": range(count) for count in (10, 40, 50, 250)},
    **{f"Pair{number}": range(2 * number, 2 * number + 2) for number in range(20)},
}
"""The views, and which features each has."""

ONE_VIEW = ("Of40",)
ON_DEMAND = ("Computed:ratio",)
PREDICTION = ("Score:score",)
TWENTY_VIEWS = tuple(name for name in VIEWS if name.startswith("Pair"))

PUSHED, PUSHED_AT = "Pushed", "at"
"""The view that rows are pushed to: as Of10, of a topic of its own whose events have no more fields than those."""

_WIDTHS = {"Event": 50, "WideEvent": COLUMNS}
"""The topics' events, and how many columns each has. Most views are of the narrow one: what takes long to check is the
topic's width."""

_BODIES = 2_000
_BODIES_OF_MANY = 200

_DEFINITIONS = """\
from datetime import timedelta

from stillwell import Bool, Col, Entity, Feature, Float64, Int64, Key, Model, OnDemandView, Output, String, Timestamp
from stillwell import Topic, View, col, feature


class User(Entity, owner="benchmarks"):
    {key}: Key[Int64]


"""

_TOPIC = """

class {event}(Topic, name="{topic}", event_time="ts", start="earliest"):
    {key}: Col[Int64]
    ts: Col[Timestamp] = col(unit="us")
{columns}
"""

_PUSHED_TOPIC = """

class PushedEvent(Topic, name="{topic}", event_time="at", start="earliest"):
    {key}: Col[Int64]
    at: Col[Timestamp]
{columns}
"""

_VIEW = """

class {name}(View, source={event}, entity=User, keys={{"{key}": {event}.{key}}}, ttl=timedelta(days={days})):
{features}
"""

_COMPUTED = """

class Computed(OnDemandView, inputs=(Of10,)):
    ratio: Feature[Float64 | None] = feature(Of10.f0 / (Of10.f1 + 1))


def mean(inputs):
    return {{"score": [sum(row) / len(row) for row in zip(*inputs.values(), strict=True)]}}


class Score(Model, entity=User, version="1", policy="wait", max_staleness=timedelta(days={days}), server=mean,
            inputs={{{inputs}}}):
    score: Output[Float64]
"""


def kind(column: int) -> str:
    """The type of a column, by the name that Stillwell and Feast both have for it: of ten, seven are floats."""
    return {7: "Bool", 8: "Int64", 9: "String"}.get(column % 10, "Float64")


def write_definitions(folder: Path, topic: str = TOPIC) -> None:
    """The package of definitions, in a folder."""
    parts = [_DEFINITIONS.format(key=KEY)]
    for event, width in _WIDTHS.items():
        columns = "\n".join(f"    f{column}: Col[{kind(column)}]" for column in range(width))
        parts.append(_TOPIC.format(event=event, topic=f"{topic}-{width}", key=KEY, columns=columns))
    columns = "\n".join(f"    f{column}: Col[{kind(column)}]" for column in VIEWS["Of10"])
    parts.append(_PUSHED_TOPIC.format(topic=f"{topic}-pushed", key=KEY, columns=columns))
    events_of = {
        name: next(event for event, width in _WIDTHS.items() if of.stop <= width) for name, of in VIEWS.items()
    }
    for name, event in {**events_of, PUSHED: "PushedEvent"}.items():
        of_view = VIEWS["Of10"] if name == PUSHED else VIEWS[name]
        features = "\n".join(f"    f{each}: Feature[{kind(each)}] = feature({event}.f{each})" for each in of_view)
        parts.append(_VIEW.format(name=name, key=KEY, event=event, days=TTL_DAYS, features=features))
    floats = ", ".join(f'"f{each}": Of10.f{each}' for each in VIEWS["Of10"] if kind(each) == "Float64")
    parts.append(_COMPUTED.format(days=TTL_DAYS, inputs=floats))
    (folder / PACKAGE).mkdir(parents=True, exist_ok=True)
    (folder / PACKAGE / "__init__.py").write_text("".join(parts))


def values(chance: random.Random, columns: Sequence[int] = range(COLUMNS)) -> dict[str, object]:
    """The values of one user."""
    made: dict[str, object] = {}
    for column in columns:
        of_kind = kind(column)
        if of_kind == "Bool":
            made[f"f{column}"] = chance.random() < 0.5
        elif of_kind == "Int64":
            made[f"f{column}"] = chance.randrange(1_000_000)
        elif of_kind == "String":
            made[f"f{column}"] = f"abc{chance.randrange(50)}"
        else:
            made[f"f{column}"] = chance.random()
    return made


def events(first_us: int) -> Iterator[dict[str, object]]:
    """One event for each user, a microsecond apart."""
    chance = random.Random("served")
    for user in range(USERS):
        yield {KEY: user, "ts": first_us + user, **values(chance)}


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A kind of request: so many users, all features of these views, and what else is named."""

    rows: int
    views: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def features(self) -> list[str]:
        """As a request names them."""
        return [*(f"{view}:f{column}" for view in self.views for column in VIEWS[view]), *self.more]

    def body(self, users: Sequence[int]) -> bytes:
        """A request, as Feast's clients send it."""
        asked = {"features": self.features, "entities": {KEY: list(users)}, "full_feature_names": False}
        return json.dumps(asked).encode()

    def users(self) -> Iterator[list[int]]:
        """Whom the requests ask for, in the same order every time."""
        chance = random.Random("users")
        for _ in range(_BODIES if self.rows == 1 else _BODIES_OF_MANY):
            yield chance.sample(range(USERS), self.rows)

    def write(self, file: Path) -> Path:
        """All requests, a line each."""
        file.write_bytes(b"\n".join(self.body(users) for users in self.users()))
        return file

    def __str__(self) -> str:
        return f"{self.rows} x {len(self.features)}"


def pushes(rows: int, count: int, first: datetime.datetime, time: str, mode: str | None) -> Iterator[bytes]:
    """So many requests to push so many rows, as Feast's server takes them; each row is a microsecond newer than the one
    before. time: the name of the column that says so. mode: a word that Stillwell's service alone knows."""
    chance = random.Random(f"pushes {first}")
    columns = VIEWS["Of10"]
    for number in range(count):
        made = [values(chance, columns) for _ in range(rows)]
        times = (first + datetime.timedelta(microseconds=number * rows + place) for place in range(rows))
        frame = {
            KEY: [chance.randrange(USERS) for _ in range(rows)],
            **{name: [each[name] for each in made] for name in made[0]},
            time: [at.isoformat(timespec="microseconds") for at in times],  # or Feast wants a fraction in all or none
        }
        words = {"mode": mode} if mode else {}
        yield json.dumps({"push_source_name": PUSHED, "df": frame, "to": "online", **words}).encode()


def of(rows: int, features: int) -> Shape:
    """So many users, and a view of so many features."""
    return Shape(rows, (f"Of{features}",))
