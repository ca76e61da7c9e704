"""Entity keys: the bytes that stand for an entity in Redis, the same from every type of integer and every writer.

Each field of the key, in the order of the fields' names, is written as

    <tag><number of bytes>:<payload>        s3:JFKs3:LAX   i4:1001   t1:1   d16:1700000000000000   x2:..

    i  integer     decimal, `-` before a negative one, no leading zeros: Int32 and Int64 give the same key
    s  text        UTF-8
    x  bytes       as they are
    t  truth       `1` or `0`
    d  timestamp   µs since the epoch, written as an integer

Every field says how long it is, so that two different entities never share a key, and a key can be read back without
knowing the entity. Nulls and floats cannot be keys.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.instants import instant, instant_us
from stillwell.series import FEW, microseconds
from stillwell.spec import KeySpec
from stillwell.wording import say_other

MAX_KEY_BYTES = 512
"""An entity key may be so long. Redis keeps it in memory with each row, and a field that holds a document is a mistake
in a definition: longer ones are refused where events are taken in, before anything is written."""


def entity_key(keys: Sequence[KeySpec], values: Mapping[str, object]) -> bytes:
    """The key of one entity. keys: the entity's, sorted by name; values: a value for each, by name.

    Raises ValueError for a value that is missing, unknown, null, of another type, or too long.
    """
    if unknown := values.keys() - {key.name for key in keys}:
        known = ", ".join(key.name for key in keys)
        raise ValueError(f"{', '.join(sorted(unknown))} is no key of the entity; its keys are: {known}")
    packed = b"".join(_scalar_field(key, values.get(key.name)) for key in keys)
    if len(packed) > MAX_KEY_BYTES:
        raise ValueError(f"the entity key has {len(packed)} bytes; at most {MAX_KEY_BYTES} are allowed")
    return packed


def entity_keys(frame: pl.DataFrame, keys: Sequence[KeySpec]) -> list[bytes]:
    """The key of every row. The columns are non-null and of their types, and no row is `too_long`."""
    if frame.height <= FEW:
        packed = [_of_few(key.type.key_tag, frame.get_column(key.name)) for key in keys]
        return packed[0] if len(packed) == 1 else [b"".join(row) for row in zip(*packed, strict=True)]
    fields = [_FIELDS[key.type.key_tag](frame.get_column(key.name)) for key in keys]
    if any(field.dtype == pl.Binary for field in fields):
        return [b"".join(row) for row in zip(*(field.cast(pl.Binary).to_list() for field in fields), strict=True)]
    whole = fields[0] if len(fields) == 1 else pl.select(pl.concat_str(fields)).to_series()
    return whole.cast(pl.Binary).to_list()


def _of_few(tag: str, column: pl.Series) -> list[bytes]:
    """One field of few rows: Polars takes longer to plan it."""
    values = (microseconds(column) if tag == "d" else column).to_list()
    if tag == "s":
        values = [value.encode() for value in values]
    elif tag != "x":
        values = [b"%d" % value for value in values]
    begin = tag.encode()
    return [b"%b%d:%b" % (begin, len(value), value) for value in values]


def too_long(frame: pl.DataFrame, keys: Sequence[KeySpec]) -> npt.NDArray[np.bool_]:
    """Which rows have an entity key of more than `MAX_KEY_BYTES`: reject them, for they cannot be written."""
    longest = sum(_longest(frame.get_column(key.name)) for key in keys)
    if longest <= MAX_KEY_BYTES:
        return np.zeros(frame.height, np.bool_)
    return np.fromiter(map(len, entity_keys(frame, keys)), np.int64, frame.height) > MAX_KEY_BYTES


_MOST_OVERHEAD = len("s") + len(str(2**32)) + len(":")
_LONGEST_INTEGER = len(str(-(2**63)))


def _longest(column: pl.Series) -> int:
    """A number of bytes that no field of this column exceeds."""
    if column.dtype not in (pl.String, pl.Binary):
        return _MOST_OVERHEAD + _LONGEST_INTEGER
    lengths = column.str.len_bytes() if column.dtype == pl.String else column.bin.size()
    longest = lengths.max()
    return _MOST_OVERHEAD + (longest if isinstance(longest, int) else 0)


def _tagged(tag: str, payload: pl.Series) -> pl.Series:
    """Text payloads with their tag and length in front."""
    name = pl.col(payload.name)
    return payload.to_frame().select(pl.concat_str(pl.lit(tag), name.str.len_bytes(), pl.lit(":"), name)).to_series()


def _tagged_bytes(column: pl.Series) -> pl.Series:
    """The same for binary payloads; Polars joins text alone, so this goes row by row."""
    return pl.Series(_of_few("x", column), dtype=pl.Binary)


_FIELDS: Mapping[str, Callable[[pl.Series], pl.Series]] = MappingProxyType(
    {
        "i": lambda column: _tagged("i", column.cast(pl.String)),
        "s": lambda column: _tagged("s", column),
        "x": _tagged_bytes,
        "t": lambda column: _tagged("t", column.cast(pl.Int8).cast(pl.String)),
        "d": lambda column: _tagged("d", microseconds(column).cast(pl.String)),
    }
)


_RANGES: Mapping[int, tuple[int, int]] = MappingProxyType({4: (-(2**31), 2**31 - 1), 8: (-(2**63), 2**63 - 1)})
"""The least and the greatest integer of so many bytes."""


def _scalar_field(key: KeySpec, value: object) -> bytes:
    tag = key.type.key_tag
    if tag not in _FIELDS:
        raise ValueError(f"key {key.name}: {key.type.name} cannot be a key; use an integer, text, bytes or a time")
    if value is None:
        raise ValueError(f"key {key.name}: is missing or null; every key of an entity must have a value")
    # `type` and not `isinstance`: True is an int to Python, and must not become the key 1.
    if type(value) is not key.type.python:
        raise ValueError(f"key {key.name}: {say_other(key.type, value)}")
    if isinstance(value, int) and tag == "i" and not _RANGES[key.type.width][0] <= value <= _RANGES[key.type.width][1]:
        raise ValueError(f"key {key.name}: {say_other(key.type, value)}, which is beyond its range")
    payload = _payload(value)
    return b"%b%d:%b" % (tag.encode(), len(payload), payload)


def _payload(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case datetime.datetime():
            if value.utcoffset() is None:
                raise ValueError(f"the time {value} has no zone; say which, as in 2026-01-31T12:00:00Z")
            return b"%d" % (instant_us(value))
        case bool() | int():
            return b"%d" % value
        case _:
            raise TypeError(f"{value!r} is of no type that a key has")


def keys_of_columns(keys: Sequence[KeySpec], columns: Sequence[Sequence[object]]) -> list[bytes]:
    """The key of every entity, from Python values: one column for each key field, in their order and of one length.

    Raises WrongKey for the first value that `entity_key` would refuse.
    """
    fields = [_python_fields(key, column) for key, column in zip(keys, columns, strict=True)]
    packed = fields[0] if len(fields) == 1 else [b"".join(row) for row in zip(*fields, strict=True)]
    for row, key in enumerate(packed):
        if len(key) > MAX_KEY_BYTES:
            raise WrongKey(keys[0].name, row, f"the entity key has {len(key)} bytes; {MAX_KEY_BYTES} are allowed")
    return packed


def values_of(keys: Sequence[KeySpec], packed: bytes) -> dict[str, Any]:
    """The values that a key was made from, by name. Raises ValueError for bytes that are no key of the entity."""
    values: dict[str, Any] = {}
    at = 0
    for key in keys:
        colon = packed.find(b":", at)
        length = packed[at + 1 : colon]
        if colon < 0 or packed[at : at + 1] != key.type.key_tag.encode() or not length.isdigit():
            break
        at = colon + 1 + int(length)
        values[key.name] = _read_back(key, packed[colon + 1 : at])
    if at != len(packed) or len(values) != len(keys):
        raise ValueError(f"{packed!r} is no key of {', '.join(key.name for key in keys)}")
    return values


def _read_back(key: KeySpec, payload: bytes) -> Any:
    match key.type.key_tag:
        case "s":
            return payload.decode()
        case "x":
            return payload
        case "t":
            return payload == b"1"
        case "d":
            return instant(int(payload))
        case _:
            return int(payload)


class WrongKey(ValueError):
    """A value that cannot be a key. key: the field; row: the entity's number, from 0; problem: what is wrong."""

    def __init__(self, key: str, row: int, problem: str) -> None:
        super().__init__(f"{key}[{row}]: {problem}")
        self.key = key
        self.row = row
        self.problem = problem


def _python_fields(key: KeySpec, column: Sequence[object]) -> list[bytes]:
    kind = key.type
    if len(column) == 1 and kind.key_tag == "i" and type(number := column[0]) is int:  # as in most requests
        least, greatest = _RANGES[kind.width]
        if least <= number <= greatest:
            text = b"%d" % number
            return [b"i%d:%b" % (len(text), text)]
    if set(map(type, column)) <= {kind.python}:
        try:
            if kind.key_tag == "s":
                return [b"s%d:%b" % (len(text), text) for text in map(str.encode, column)]  # type: ignore[arg-type]
            least, greatest = _RANGES.get(kind.width, (0, 0))
            if kind.key_tag == "i" and least <= min(column, default=0) and max(column, default=0) <= greatest:  # type: ignore[type-var,operator]
                return [b"i%d:%b" % (len(text), text) for text in map(b"%d".__mod__, column)]
        except UnicodeEncodeError:
            pass  # a lone surrogate: told below, with its row
    fields = []
    for row, value in enumerate(column):
        try:
            fields.append(_scalar_field(key, value))
        except ValueError as error:
            raise WrongKey(key.name, row, str(error).removeprefix(f"key {key.name}: ")) from None
    return fields
