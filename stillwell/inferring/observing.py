"""What fields the records of a topic have, and what came in each."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from stillwell.trial import Record

Path = tuple[str, ...]
Kind = Literal["bool", "whole", "number", "text", "list", "object"]
"""What JSON tells apart, with whole numbers for themselves. An object counts as a field only where it is empty: of all
others their fields do."""

_DECODER = msgspec.json.Decoder(dict[str, object])

MOST_FIELDS = 200
"""More are a map whose keys are data, and no columns."""


@dataclasses.dataclass(slots=True)
class Field:
    """What came in one field.

    values: those of the records that had one, null left out; at: the places of those records.
    """

    path: Path
    values: list[object] = dataclasses.field(default_factory=list)
    at: list[int] = dataclasses.field(default_factory=list)

    @property
    def kinds(self) -> Counter[Kind]:
        """How many values are of each kind."""
        return Counter(kind_of(value) for value in self.values)


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """Records that are JSON objects, by their fields in the order in which they came.

    keys, timestamps: of those records; others: the values of the records that are no JSON object; crowded: fields left
    out because there are too many, by the object that holds them.
    """

    count: int
    fields: tuple[Field, ...]
    keys: tuple[bytes | None, ...]
    timestamps: tuple[int, ...]
    others: tuple[bytes | None, ...]
    crowded: tuple[Path, ...]


def observe(records: Sequence[Record]) -> Observed:
    """The fields of records."""
    fields: dict[Path, Field] = {}
    kept: list[Record] = []
    others: list[bytes | None] = []
    for record in records:
        value = _object(record.value)
        if value is None:
            others.append(record.value)
            continue
        for path, leaf in _leaves((), value):
            field = fields.setdefault(path, Field(path))
            if leaf is not None:
                field.values.append(leaf)
                field.at.append(len(kept))
        kept.append(record)
    crowded = _crowded(fields)
    return Observed(
        count=len(kept),
        fields=tuple(field for path, field in fields.items() if not any(path[: len(each)] == each for each in crowded)),
        keys=tuple(record.key for record in kept),
        timestamps=tuple(record.timestamp for record in kept),
        others=tuple(others),
        crowded=crowded,
    )


def kind_of(value: object) -> Kind:
    """The kind of a value that JSON gave."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "whole"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def _object(value: bytes | None) -> dict[str, object] | None:
    try:
        return None if value is None else _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _leaves(path: Path, value: dict[str, object]) -> Iterator[tuple[Path, object]]:
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves((*path, name), each)
        else:
            yield (*path, name), each


def _crowded(fields: dict[Path, Field]) -> tuple[Path, ...]:
    """The objects to leave out until few enough fields are left: those with the most names in them, which are maps."""
    paths = set(fields)
    crowded: list[Path] = []
    while len(paths) > MOST_FIELDS:
        names: dict[Path, set[str]] = defaultdict(set)
        for path in paths:
            for length in range(1, len(path)):
                names[path[:length]].add(path[length])
        if not names:
            break
        fullest = max(names, key=lambda path: len(names[path]))
        crowded.append(fullest)
        paths = {path for path in paths if path[: len(fullest)] != fullest}
    return tuple(crowded)
