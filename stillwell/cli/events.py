"""Events to look at: those of a file, one JSON object a line, each the value of a record; and a topic's newest."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import click

from stillwell.cli.lines import lines

if TYPE_CHECKING:
    from stillwell.settings import KafkaSettings
    from stillwell.trial import Record

Command = TypeVar("Command", bound=Callable[..., object])


@dataclasses.dataclass(frozen=True, slots=True)
class FileEvent:
    """A line's number, and the record that it gives."""

    line: int
    value: bytes
    key: bytes | None


def key_option(command: Command) -> Command:
    """Give a command the option --key, as its argument `key`."""
    return click.option(
        "--key",
        metavar="FIELD",
        help="The field whose value becomes the record's key, as customer or buyer.id. Without: no key.",
    )(command)


async def events_of(file: BinaryIO, key: str | None) -> AsyncIterator[FileEvent]:
    """Every event of a file; what is no JSON is one as well, since a topic may hold that too.

    key: the field whose value is the record's key, names joined by dots, which names may have too. A line without it
    has a record without one.
    """
    async for number, line in lines(file):
        value = line.rstrip(b"\r")
        yield FileEvent(number, value, _key(value, key) if key else None)


def _key(value: bytes, name: str) -> bytes | None:
    """Text as it is, other values as JSON has them."""
    import msgspec

    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = _named(found, name)
    if found is None:
        return None
    return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


def _named(value: object, name: str) -> object:
    """The field of that name. A dot joins a name and one within it, or is a part of a name, as in `sensor.id`: what is
    there decides, the longest name first."""
    if not isinstance(value, dict):
        return None
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        first = ".".join(parts[:length])
        if first in value:
            rest = ".".join(parts[length:])
            found = _named(value[first], rest) if rest else value[first]
            if found is not None:
                return found
    return None


STANDARD_INPUT = "-"
"""In place of the name of a file."""


def name_of(file: str) -> str:
    """As sentences have it."""
    return "standard input" if file == STANDARD_INPUT else file


def refuse_key(key: str | None) -> None:
    """Raises UsageError where a key is named for the records of a topic: it would be taken for that of an entity."""
    if key is not None:
        raise click.UsageError("--key is for the events of a file: records of a topic have keys. Take it away")


def first_of(file: str, limit: int, key: str | None) -> "tuple[tuple[Record, ...], tuple[str, ...]]":
    """The first events of a file as records that came now, numbered in their order, and where each is: `line 3`."""
    import asyncio

    from stillwell.instants import now_ms
    from stillwell.trial import Record

    at = now_ms()
    with click.open_file(file, "rb") as opened:
        events = asyncio.run(_first_events(cast("BinaryIO", opened), key, limit))
    records = (Record(each.value, each.key, timestamp=at, offset=number) for number, each in enumerate(events))
    return tuple(records), tuple(f"line {each.line}" for each in events)


async def _first_events(file: BinaryIO, key: str | None, limit: int) -> list[FileEvent]:
    events: list[FileEvent] = []
    async for event in events_of(file, key):
        events.append(event)
        if len(events) == limit:
            break
    return events


def newest_of(settings: "KafkaSettings", topic: str, limit: int) -> "tuple[tuple[Record, ...], tuple[str, ...]]":
    """The newest records of a topic, numbered in their order, and where each is: its partition and offset, `0/17`.

    Raises SettingsError where there is no such topic, StoreUnavailable where Kafka does not answer.
    """
    import asyncio

    from stillwell.kafka_connection import connection
    from stillwell.trial import Record
    from streams.onlooker import newest_records

    found = asyncio.run(newest_records(connection(settings), topic, limit))
    records = (
        Record(each.value, each.key, tuple(each.headers), each.timestamp, offset=number)
        for number, each in enumerate(found)
    )
    return tuple(records), tuple(f"{each.partition}/{each.offset}" for each in found)
