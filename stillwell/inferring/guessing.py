"""What the fields of records may be: columns with types, the time of the event, and whom it is about.

Every guess comes with the reason that it was made for, since a person is to look at it.
"""

import dataclasses
import datetime
import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

import stillwell
from stillwell.counting import counted
from stillwell.definitions.names import MAX_NAME_LENGTH, RESERVED
from stillwell.errors import StillwellError
from stillwell.inferring.observing import Field, Kind, Observed, Path
from stillwell.wire import INSTANT, INT64_RANGE, US_PER_UNIT
from stillwell.wording import shown

MOSTLY = 0.9
"""The share of records that decides: what the rest has is a mistake of theirs, and is rejected."""

_YEARS_FROM, _YEARS_TO = 946_684_800, 4_102_444_800
"""2000 and 2100, in seconds: numbers between them may be times."""

_FUTURE_S = 3_600
"""An event further past its record's timestamp would be rejected."""

_TIME_WORDS = frozenset(
    {
        "at",
        "created",
        "date",
        "datetime",
        "happened",
        "occurred",
        "on",
        "published",
        "received",
        "sent",
        "time",
        "timestamp",
        "ts",
        "updated",
        "when",
    }
)
_EVENT_TIME_NAMES = (
    "event_time",
    "event_timestamp",
    "event_at",
    "occurred_at",
    "happened_at",
    "timestamp",
    "ts",
    "time",
    "at",
    "created_at",
)
_KEY_WORDS = frozenset(
    {
        "account",
        "client",
        "customer",
        "device",
        "driver",
        "host",
        "id",
        "key",
        "member",
        "session",
        "user",
        "uuid",
    }
)
WRITTEN_WITH = frozenset((*stillwell.__all__, "timedelta", "list"))
"""Names that a module of definitions is written with: a field of one of them would hide it from the lines below."""

_CANNOT_BE_NAMED = re.compile(r'["\\\x00-\x1f]')
"""What the decoder takes in no name of a field."""


class NothingToGuess(StillwellError):
    """The records hold nothing that definitions could be made of. The message says what they hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its type as it is written, whether it may be null, where it is from, and why all that.

    options: what `col(…)` says of it.
    """

    name: str
    type: str
    nullable: bool
    options: tuple[str, ...]
    note: str
    field: Field | None
    """None for one that is not in the value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Guess:
    """What a topic may be. left_out: fields that no column reads, and why."""

    observed: Observed
    columns: tuple[Column, ...]
    event_time: Column
    event_time_note: str
    key: Column
    key_note: str
    left_out: tuple[tuple[str, str], ...]


def guess(topic: str, observed: Observed, file: str = "") -> Guess:
    """file: what the records are from, if not from the topic. Raises NothingToGuess."""
    if not observed.count:
        raise NothingToGuess(_without_objects(topic, observed.others, file))
    names = _Names()
    columns: list[Column] = []
    left_out = [(".".join(path), "a map: its fields are data") for path in observed.crowded]
    fields, mixed = _apart(observed.fields)
    left_out += mixed
    for field in fields:
        found = _column(field, observed, names)
        if isinstance(found, str):
            left_out.append((".".join(field.path), found))
        else:
            columns.append(found)
    event_time, event_time_note = _event_time(columns, observed, names)
    key, key_note = _key(topic, [column for column in columns if column is not event_time], observed, names)
    given = [column for column in (event_time, key) if column not in columns]
    required = {event_time.name, key.name}
    columns = [
        dataclasses.replace(each, nullable=False, note=_missing(each.field, observed, rejected=True) or each.note)
        if each.name in required and each.nullable
        else each
        for each in (*given, *columns)
    ]
    by_name = {each.name: each for each in columns}
    return Guess(
        observed,
        tuple(columns),
        by_name[event_time.name],
        event_time_note,
        by_name[key.name],
        key_note,
        tuple(left_out),
    )


def _without_objects(topic: str, values: Sequence[bytes | None], file: str) -> str:
    """What there is instead, and what to do."""
    if not values and file:
        return f"{file} holds no record"
    if not values:
        return (
            f"{topic} holds no record that could be looked at. `stillwell produce {topic} FILE` sends it some; "
            "`--from FILE` looks at those of a file"
        )
    held = counted(len(values), "record")
    said = f"{file or topic} holds {held} that could be looked at, and none that is a JSON object"
    newest = next((value for value in reversed(values) if value is not None), None)
    if newest is None:
        return f"{said}: all are without a value"
    framed = "; a zero byte in front is mostly that of a schema registry, before Avro or Protobuf"
    more = framed if newest.startswith(b"\0") else ""
    return f"{said}, and nothing else is read. The newest is {shown(newest)}{more}"


def _apart(fields: Sequence[Field]) -> tuple[list[Field], list[tuple[str, str]]]:
    """The fields of which none leads through another's value, and those that are left out for it, with the reason.

    What is an object in some records and a value in others is what it is in most; where it is null in the others, it
    is an object.
    """
    by_path = {field.path: field for field in fields}
    within: dict[Path, list[Field]] = {}
    for field in fields:
        for length in range(1, len(field.path)):
            if (path := field.path[:length]) in by_path:
                within.setdefault(path, []).append(field)
    gone: set[Path] = set()
    left_out: list[tuple[str, str]] = []
    for path, inner in within.items():
        values = len(by_path[path].values)
        objects = len({at for field in inner for at in field.at})
        if values > objects:
            gone |= {field.path for field in inner}
            left_out.append(
                (f"{'.'.join(path)}.…", f"an object in {counted(objects, 'record')}, where most have a value")
            )
        else:
            gone.add(path)
            if values:
                left_out.append((".".join(path), f"no object in {counted(values, 'record')}: they are rejected"))
    return [field for field in fields if field.path not in gone], left_out


# ---- columns ----


class _Names:
    """Names of columns that definitions take, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, path: Path) -> str:
        """A name for the field at a path."""
        joined = re.sub(r"[^A-Za-z0-9_]+", "_", "_".join(path), flags=re.ASCII).strip("_") or "field"
        base = joined if joined[0].isalpha() else f"field_{joined}"
        base = base[: MAX_NAME_LENGTH - 4]
        if keyword.iskeyword(base) or base in RESERVED | WRITTEN_WITH or base == "at_":
            base = f"{base}_"
        name, number = base, 2
        while name.casefold() in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name.casefold())
        return name


@dataclasses.dataclass(frozen=True, slots=True)
class _Type:
    """A type as it is written, what `col` says of it, and why it was taken. fits: which of the values do."""

    name: str
    options: tuple[str, ...] = ()
    note: str = ""
    fits: Callable[[Any], bool] = lambda value: True


def _column(field: Field, observed: Observed, names: _Names) -> Column | str:
    """The column that a field may be, or why it is none."""
    if any(_CANNOT_BE_NAMED.search(name) for name in field.path):
        return "its name holds a quotation mark, a backslash or a control character"
    if not all(field.path):
        return "its name is empty"
    kind = _type(field)
    if isinstance(kind, str):
        return kind
    unfit = sum(not kind.fits(value) for value in field.values)
    name = names.of(field.path)
    options = [*([] if field.path == (name,) else [_path_option(field.path)]), *kind.options]
    notes = [kind.note, _missing(field, observed, rejected=False)]
    if unfit:
        notes.append(f"{counted(unfit, 'record')} of {observed.count:,} had something else: rejected")
    nullable = len(field.values) < observed.count
    return Column(name, kind.name, nullable, tuple(options), "; ".join(filter(None, notes)), field)


def _path_option(path: Path) -> str:
    dotted = any("." in name for name in path)
    return f"path={path!r}" if dotted else f'path="{".".join(path)}"'


def _missing(field: Field | None, observed: Observed, *, rejected: bool) -> str:
    """In how many records a field is null or missing, where it is in some."""
    without = observed.count - len(field.values) if field else 0
    fate = ": rejected" if rejected else ""
    return f"null or missing in {without:,} of {observed.count:,}{fate}" if without else ""


def _type(field: Field) -> _Type | str:
    """The type that most values of a field have, or why it has none."""
    if not field.values:
        return "always null"
    kinds = field.kinds
    counts = {"number": kinds["whole"] + kinds["number"], "bool": kinds["bool"], "text": kinds["text"]}
    counts |= {"list": kinds["list"], "object": kinds["object"]}
    most = max(counts, key=lambda kind: counts[kind])
    if counts[most] < MOSTLY * len(field.values):
        return f"of several kinds: {_shares(kinds)}"
    match most:
        case "bool":
            return _Type("Bool", fits=lambda value: isinstance(value, bool))
        case "number":
            return _number(field)
        case "text":
            return _text(field)
        case "list":
            return _list(field)
    return "an object without fields"


def _list(field: Field) -> _Type | str:
    """Lists of one type, as their elements are."""
    lists = [value for value in field.values if isinstance(value, list)]
    elements = [element for each in lists for element in each]
    if not elements:
        return "a list that is always empty"
    if None in elements:
        return "a list with nulls in it"
    if sum(isinstance(element, dict) for element in elements) >= MOSTLY * len(elements):
        return "a list of objects: lists that a column holds are of single values; the raw archive keeps them"
    of_one = Field(field.path, elements, [0] * len(elements))
    element = _type(of_one)
    if isinstance(element, str):
        return f"a list of elements {element}"
    if element.name.startswith("list"):
        return "a list of lists"

    def fits(value: object) -> bool:
        return isinstance(value, list) and all(map(element.fits, value))

    note = _vector(lists) if element.name == "Float64" else ""
    return _Type(f"list[{element.name}]", element.options, note, fits)


def _vector(lists: Sequence[list[Any]]) -> str:
    """That lists of numbers may be vectors, where most are of one length, and how many records that would cost."""
    size, count = Counter(map(len, lists)).most_common(1)[0]
    if len(lists) < 2 or size < 2 or count < MOSTLY * len(lists):
        return ""
    others = len(lists) - count
    of_size = f"{size} elements in {count:,} of {len(lists):,}" if others else f"always {size} elements"
    fate = f" It would reject {counted(others, 'record')}" if others else ""
    return f"{of_size}: a vector, Annotated[list[Float32], Size({size})]?{fate}"


def _shares(kinds: "dict[Kind, int]") -> str:
    called = {"bool": "boolean", "whole": "whole number", "number": "number", "text": "text", "list": "list"}
    return ", ".join(counted(count, called.get(kind, kind)) for kind, count in kinds.items())


def _number(field: Field) -> _Type:
    numbers = [value for value in field.values if _is_number(value)]
    whole = [value for value in numbers if isinstance(value, int)]
    beyond = _beyond(numbers)
    if len(whole) < MOSTLY * len(numbers) or beyond:
        # Whoever reads an identity or a total there must know that its last digits are not kept.
        note = f"{beyond:,} of {len(numbers):,} are beyond Int64; of a Float64 15 digits are sure" if beyond else ""
        return _Type("Float64", note=note, fits=_is_number)
    # A price that happened to be whole in most records must not lose those that are not.
    if len(whole) < len(numbers):
        return _Type("Float64", note="mostly whole", fits=_is_number)
    unit = _unit(field, whole)
    if unit is None:
        return _Type("Int64", fits=_is_whole)
    return _Type("Timestamp", (f'unit="{unit}"',), _times(whole, unit), _is_whole)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _times(values: Sequence[int], unit: str) -> str:
    """What the first of the numbers is as a time, and how many would be times that are hardly meant."""
    factor, divisor = US_PER_UNIT[unit]
    times = [value for value in values if value in _of_this_century(unit)]
    first = datetime.datetime.fromtimestamp(times[0] * factor / divisor / 1e6, datetime.UTC)
    others = len(values) - len(times)
    doubt = f"; {others:,} of {len(values):,} are before 2000 or after 2100" if others else ""
    return f"as numbers, {times[0]} is {first:%Y-%m-%d %H:%M:%S} UTC{doubt}"


def _beyond(values: Iterable[object]) -> int:
    """How many are whole numbers that Int64 does not hold."""
    least, greatest = INT64_RANGE
    return sum(isinstance(value, int) and not least <= value <= greatest for value in values)


def _unit(field: Field, values: Sequence[int]) -> str | None:
    """The unit in which most whole numbers would be times of this century; None where they are no times."""
    for unit in ("s", "ms", "us", "ns"):
        century = _of_this_century(unit)
        if sum(value in century for value in values) >= MOSTLY * len(values):
            # A number of ten digits may be anything; a longer one that is a time of this century seldom is.
            return unit if unit != "s" or _words(field.path[-1]) & _TIME_WORDS else None
    return None


def _of_this_century(unit: str) -> range:
    """The numbers that are times of 2000 to 2100 in a unit."""
    factor, divisor = US_PER_UNIT[unit]
    per_second = 1_000_000 * divisor // factor
    return range(_YEARS_FROM * per_second, _YEARS_TO * per_second)


def _text(field: Field) -> _Type:
    texts = [value for value in field.values if isinstance(value, str)]
    times = sum(map(_is_time, texts))
    if times >= MOSTLY * len(field.values):
        return _Type("Timestamp", fits=_is_time)
    note = ""
    if sum(map(_is_time_without_zone, texts)) >= MOSTLY * len(texts):
        note = "times without a zone: nobody can tell which instant they mean"
    elif sum(map(_is_fraction, texts)) >= MOSTLY * len(texts):
        note = "numbers as texts: a feature of the number is .cast(pl.Float64, strict=False), null where it is none"
    elif 1 < len(set(texts)) <= 8 and len(texts) >= 100:
        note = f"always one of {', '.join(sorted(set(texts)))}"[:100]
    return _Type("String", note=note, fits=lambda value: isinstance(value, str))


def _is_time(value: object) -> bool:
    try:
        msgspec.convert(value, INSTANT)
    except msgspec.ValidationError:
        return False
    return True


def _is_time_without_zone(value: str) -> bool:
    try:
        return len(value) > 10 and datetime.datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False


def _is_fraction(value: str) -> bool:
    """Whether a text is a number with a fraction: whole ones may be names, as of streets."""
    return re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", value) is not None


def _words(name: str) -> set[str]:
    """The words of a name in snake or camel case."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", " ", name).lower().split())


# ---- the event's time ----


def _event_time(columns: Sequence[Column], observed: Observed, names: _Names) -> tuple[Column, str]:
    """The column that tells when an event happened, and why it is that one."""
    possible = [each for each in columns if each.type == "Timestamp" and _may_be_event_time(each, observed)]
    if not possible:
        made = Column(names.of(("received_at",)), "Timestamp", False, ("record_timestamp=True",), "", None)
        return made, "no field of the records can be: the timestamp that Kafka has of the record"
    chosen = min(possible, key=lambda each: (_rank(each.name), _distance(each, observed)))
    others = [each.name for each in possible if each is not chosen]
    return chosen, f"or is it {' or '.join(others)}?" if others else "the only time that can be"


def _may_be_event_time(column: Column, observed: Observed) -> bool:
    ahead = [each for each in _seconds_ahead(column, observed) if each > _FUTURE_S]
    there = len(column.field.values) if column.field else 0
    return there >= MOSTLY * observed.count and len(ahead) <= (1 - MOSTLY) * observed.count


def _rank(name: str) -> int:
    return _EVENT_TIME_NAMES.index(name) if name in _EVENT_TIME_NAMES else len(_EVENT_TIME_NAMES)


def _distance(column: Column, observed: Observed) -> float:
    """How far the times mostly lie from their records' timestamps: an event is sent when it has happened."""
    apart = sorted(map(abs, _seconds_ahead(column, observed)))
    return apart[len(apart) // 2] if apart else 0.0


def _seconds_ahead(column: Column, observed: Observed) -> list[float]:
    """How many seconds past its record's timestamp each time lies."""
    assert column.field is not None
    unit = next((each[6:-1] for each in column.options if each.startswith("unit=")), None)
    ahead = []
    for value, at in zip(column.field.values, column.field.at, strict=True):
        seconds = _seconds(value, unit)
        if seconds is not None:
            ahead.append(seconds - observed.timestamps[at] / 1_000)
    return ahead


def _seconds(value: object, unit: str | None) -> float | None:
    """A time in seconds since the epoch; None for what is none."""
    if unit is not None:
        factor, divisor = US_PER_UNIT[unit]
        return value * factor / divisor / 1e6 if isinstance(value, int) and not isinstance(value, bool) else None
    return msgspec.convert(value, INSTANT).timestamp() if _is_time(value) else None


# ---- the key ----


def _key(topic: str, columns: Sequence[Column], observed: Observed, names: _Names) -> tuple[Column, str]:
    """The column that tells whom an event is about, and why it is that one. Raises NothingToGuess."""
    possible = [
        each
        for each in columns
        if each.type in ("String", "Int64") and each.field and len(each.field.values) >= MOSTLY * observed.count
    ]
    with_key = [at for at, key in enumerate(observed.keys) if key is not None]
    if len(with_key) >= MOSTLY * observed.count:
        for column in possible:
            if _agreeing(column, observed, with_key) >= MOSTLY * len(with_key):
                return column, "it is the records' key, by which Kafka has chosen the partition"
        if all(_is_text(observed.keys[at]) for at in with_key):
            made = Column(names.of(("key",)), "String", False, ("key=True",), "", None)
            return made, "the records' key, which no field of theirs repeats"
    if not possible:
        large = [".".join(each.field.path) for each in columns if each.field and _beyond(each.field.values)]
        instead = f"; {' and '.join(large)} beyond Int64 can be no key: have it sent as a text" if large else ""
        raise NothingToGuess(
            f"no field of {topic}'s records is a text or a whole number that is always there, and they have no keys: "
            f"nothing tells whom an event is about{instead}"
        )
    chosen = min(possible, key=lambda each: (_is_unique(each), not _words(each.name) & _KEY_WORDS, each.nullable))
    others = [each.name for each in possible if each is not chosen and _words(each.name) & _KEY_WORDS]
    doubt = f", or is it {' or '.join(others[:5])}?" if others else ""
    return chosen, f"a guess: change it to what your features are about{doubt}"


def _agreeing(column: Column, observed: Observed, with_key: Iterable[int]) -> int:
    """In how many records a column holds what their key does."""
    assert column.field is not None
    texts = {at: str(value).encode() for at, value in zip(column.field.at, column.field.values, strict=True)}
    return sum(texts.get(at) == observed.keys[at] for at in with_key)


def _is_text(key: bytes | None) -> bool:
    try:
        return key is not None and key.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _is_unique(column: Column) -> bool:
    """Whether it rather tells events apart than whom they are about."""
    assert column.field is not None
    values = column.field.values
    return len(values) > 1 and len(set(map(str, values))) > MOSTLY * len(values)
