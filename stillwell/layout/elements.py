"""The elements of lists and vectors within a stored row, as bytes and back.

A vector of elements of fixed width takes the place of that many slots: its elements, one behind the other. All others
are one entry of the tail:

    fixed width       the elements, one behind the other, as a slot has them
    String, Bytes     how many there are, unsigned, in 4 bytes; for each 4 bytes that say where it ends, counted from
                      the end of the last of these; the elements' bytes, one behind the other

Everything is little-endian. Batches of rows are packed column by column; one value at a time is what predictions need.
"""

import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stillwell.lists import arrow_elements
from stillwell.series import at_most_bytes
from stillwell.types import STRING, FieldType

CODES = {
    "Bool": "?",
    "Int32": "i",
    "Int64": "q",
    "Float32": "f",
    "Float64": "d",
    "Timestamp": "q",
}
"""How `struct` has one value of each type of fixed width."""

_COUNT = struct.Struct("<I")
_NULL = b""


def vectors(column: pl.Series, kind: FieldType) -> npt.NDArray[np.generic]:
    """Vectors of fixed width as numbers, of the shape (rows, size); zeros for null."""
    flat, _ = arrow_elements(column)
    elements = _numbers(flat, kind).reshape(-1, kind.size or 0)
    if not column.null_count():
        return elements
    found = np.zeros((len(column), kind.size or 0), elements.dtype)
    found[column.is_not_null().to_numpy()] = elements
    return found


def tails(column: pl.Series, kind: FieldType) -> list[pa.LargeBinaryArray]:
    """What each row has of a list in its tail, as columns of bytes that follow each other; nothing for null."""
    flat, lengths = arrow_elements(column)
    ends = np.zeros(len(column) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    width = kind.scalar.width
    if width:
        return [_binary(ends * width, _numbers(flat, kind).view(np.uint8))]
    values = flat.cast(pa.large_binary())
    offsets = (
        np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1] if len(values) else ends[:1]
    )
    counts = lengths.astype("<u4")
    begins = np.repeat(offsets[ends[:-1]], lengths)
    heads = (np.arange(len(column) + 1), counts)
    if column.null_count():
        there = column.is_not_null().to_numpy()
        heads = (np.concatenate([[0], np.cumsum(there)]), counts[there])
    return [
        _binary(heads[0] * 4, heads[1].view(np.uint8)),
        _binary(ends * 4, (offsets[1:] - begins).astype("<u4").view(np.uint8)),
        _binary(offsets[ends], values.buffers()[2]),
    ]


def at_most(column: pl.Series, kind: FieldType) -> int:
    """A number of bytes that no list in the column exceeds in the tail."""
    flat, _ = arrow_elements(column)
    if kind.scalar.width:
        return len(flat) * kind.scalar.width
    strings = pl.from_arrow(flat)
    assert isinstance(strings, pl.Series)
    return at_most_bytes(strings) + 4 * len(flat) + 4


def pack(kind: FieldType, values: Sequence[Any]) -> bytes:
    """The elements of one list; a Timestamp is µs since the epoch. Raises what `struct` raises for one that does not
    fit."""
    if kind.scalar.width:
        return struct.pack(f"<{len(values)}{CODES[kind.scalar.name]}", *values)
    parts = [each.encode() if isinstance(each, str) else each for each in values]
    ends = itertools.accumulate(map(len, parts))
    return struct.pack(f"<{1 + len(parts)}I", len(parts), *ends) + b"".join(parts)


def unpacker(kind: FieldType) -> Callable[[bytes], list[Any]]:
    """From bytes to the elements of one list; a Timestamp is µs since the epoch. It raises ValueError for damaged ones,
    or what `struct` raises."""
    if not kind.scalar.width:
        return _unpacker_of_texts(kind)
    if kind.size is not None:
        whole = struct.Struct(f"<{kind.size}{CODES[kind.scalar.name]}")
        return lambda data: list(whole.unpack(data))  # of a slot, whose width is known
    code, width = CODES[kind.scalar.name], kind.scalar.width

    def unpack(data: bytes) -> list[Any]:
        if len(data) % width:
            raise ValueError(f"{len(data)} bytes are no whole number of elements")
        return list(struct.unpack(f"<{len(data) // width}{code}", data))

    return unpack


def _unpacker_of_texts(kind: FieldType) -> Callable[[bytes], list[Any]]:
    size, is_text = kind.size, kind.scalar is STRING

    def unpack(data: bytes) -> list[Any]:
        count = _COUNT.unpack_from(data)[0] if len(data) >= 4 else -1
        body = 4 + 4 * count
        if count < 0 or body > len(data) or size not in (None, count):
            raise ValueError(f"{len(data)} bytes are no list")
        ends = [0, *struct.unpack_from(f"<{count}I", data, 4)]
        if ends != sorted(ends) or body + ends[-1] != len(data):
            raise ValueError("its elements do not end where they should")
        parts = [data[body + begin : body + end] for begin, end in itertools.pairwise(ends)]
        return list(map(bytes.decode, parts)) if is_text else parts

    return unpack


def _numbers(flat: pa.Array, kind: FieldType) -> npt.NDArray[np.generic]:
    """Elements of fixed width, as a slot has them."""
    dtype = kind.scalar.numpy
    if not len(flat):
        return np.zeros(0, dtype)
    if pa.types.is_boolean(flat.type):
        flat = flat.cast(pa.uint8())
    return np.frombuffer(flat.buffers()[1], dtype)[flat.offset :][: len(flat)]


def _binary(offsets: npt.NDArray[np.int64], data: Any) -> pa.LargeBinaryArray:
    """Pieces of the data, each from one of the offsets to the next."""
    content = data if isinstance(data, pa.Buffer) else pa.py_buffer(data if data is not None else _NULL)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), content]
    )
