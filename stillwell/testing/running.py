"""A view over events, in a test: the worker's own pipeline, without any service."""

import base64
import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from stillwell.definitions.golden import MAX_FUTURE
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View
from stillwell.instants import EPOCH, MILLISECOND, instant_us, now
from stillwell.spec import ColumnSpec, Origin, TopicSpec
from stillwell.trial import Record as KafkaRecord
from stillwell.trial import Trial, TriedRow
from stillwell.wire import US_PER_UNIT

Value = Mapping[str, object] | str | bytes | None
"""A record's value: an object that becomes JSON, or text or bytes as they are; None for a record without one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """An event with what Kafka knows of it beside its value. at: the record's timestamp, that of the run if None."""

    value: Value
    key: str | bytes | None = None
    headers: Mapping[str, str | bytes | None] = dataclasses.field(default_factory=dict)
    at: datetime.datetime | None = None


Event = Value | Record | Topic
"""What `run` takes for an event. One of a topic's class, as `Order(at=…, amount=…)`, becomes the record that gives it.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """An event that gave nothing by mistake. event: its place among those that were given, from 0; reason: one word, as
    dead letters and metrics have it; error: the sentence for a person."""

    event: int
    reason: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """What a view made of events.

    rows: in the order of the events, each with every key, `event_timestamp` and every feature by name; floats have the
    width of their columns, so that a Float32 of 0.1 is 0.10000000149011612. newest: of each entity the one that the
    online store keeps, in no order. rejected, filtered: the events that gave none. warned: how many events broke each
    rule that warns, as ("amount", "<= 10000").
    """

    rows: tuple[Mapping[str, Any], ...]
    newest: tuple[Mapping[str, Any], ...]
    rejected: tuple[Rejected, ...]
    filtered: tuple[int, ...]
    warned: Mapping[tuple[str, str], int]


def run(view: type[View], events: Iterable[Event], *, at: datetime.datetime | None = None) -> Ran:
    """What a view makes of events, as a worker would that reads them one behind the other from one partition.

    at: the timestamp of their records where they bring none, now unless given. An event more than an hour past it is
    rejected, as by a worker that was told nothing else. Raises TypeError for what is no view and what is no event.
    """
    if not (isinstance(view, type) and issubclass(view, View)):
        raise TypeError(f"run takes the class of a view, got {view!r}; import it from the definitions")
    if isinstance(events, Mapping | str | bytes | Record | Topic | BaseModel):
        raise TypeError(f"run takes a list of events, got {type(events).__name__}; put brackets around the one")
    timestamp = _ms(at or now())
    topic = view.spec.source
    records = [_record(topic, number, event, timestamp) for number, event in enumerate(events)]
    tried = Trial(view.spec, MAX_FUTURE).run(records)
    return Ran(
        rows=_values(tried.rows),
        newest=_values(tried.newest),
        rejected=tuple(Rejected(reject.offset, reject.reason, reject.error) for reject in tried.rejects),
        filtered=tried.filtered,
        warned={(each.rule.column, each.rule.rule): each.count for each in tried.broken if each.rule.action == "warn"},
    )


def _values(rows: Iterable[TriedRow]) -> tuple[Mapping[str, Any], ...]:
    return tuple(row.values for row in rows)


def _record(topic: TopicSpec, offset: int, event: Event, timestamp: int) -> KafkaRecord:
    """The Kafka record of an event."""
    if isinstance(event, Topic):
        return _record_of(topic, offset, event, timestamp)
    if isinstance(event, Record):
        headers = tuple((name, _bytes(value)) for name, value in event.headers.items())
        at = timestamp if event.at is None else _ms(event.at)
        return KafkaRecord(_bytes(event.value), _bytes(event.key), headers, at, offset)
    return KafkaRecord(_bytes(event), timestamp=timestamp, offset=offset)


def _record_of(topic: TopicSpec, offset: int, event: Topic, timestamp: int) -> KafkaRecord:
    """The record of which the decoder makes this event: each column where it comes from."""
    if event.spec.name != topic.name:
        raise TypeError(f"the view reads {topic.name}, got an event of {event.spec.name}")
    value: dict[str, Any] = {}
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = []
    for column in topic.columns:
        given = _plain(column, getattr(event, column.name))
        match column.origin:
            case Origin.VALUE:
                _put(value, column.path, given)
            case Origin.KEY:
                key = _bare(given)
            case Origin.HEADER:
                headers.append((column.path[0], _bare(given)))
            case Origin.RECORD_TIMESTAMP:
                timestamp = timestamp if given is None else _ms(getattr(event, column.name))
    return KafkaRecord(_bytes(value), key, tuple(headers), timestamp, offset)


def _put(value: dict[str, Any], path: tuple[str, ...], given: object) -> None:
    """A null is left out: an object of nothing but nulls need not be there."""
    if given is None:
        return
    for name in path[:-1]:
        value = value.setdefault(name, {})
    value[path[-1]] = given


def _plain(column: ColumnSpec, given: object) -> object:
    """A column's value as JSON has it."""
    if isinstance(given, list):
        return [_plain(column, each) for each in given]
    if isinstance(given, datetime.datetime) and column.unit is not None:
        factor, divisor = US_PER_UNIT[column.unit]
        return instant_us(given) * divisor // factor
    return given


def _bare(given: object) -> bytes | None:
    """A value as a key or a header has it: without the quotes of JSON, and bytes as they are."""
    if isinstance(given, datetime.datetime):
        given = _in_json(given)
    return _bytes(given if given is None or isinstance(given, bytes | str) else json.dumps(given, default=_in_json))


def _bytes(value: object) -> bytes | None:
    """Raises TypeError for what is neither text, bytes, an object nor None."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Mapping):
        return json.dumps(value, default=_in_json).encode()
    if isinstance(value, BaseModel):
        name = type(value).__name__
        raise TypeError(f"an event is what its producer sends: of a {name}, as value.model_dump_json()")
    expected = "a mapping, text, bytes, None, a Record or an event of the view's topic"
    raise TypeError(f"an event is {expected}, got {value!r}")


def _in_json(value: object) -> object:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has no {type(value).__name__}, got {value!r}")


def _ms(at: datetime.datetime) -> int:
    if at.tzinfo is None:
        raise TypeError(f"a time has a zone, got {at!r}; add tzinfo=datetime.UTC")
    return (at - EPOCH) // MILLISECOND
