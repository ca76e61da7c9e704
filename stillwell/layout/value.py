"""The value of a row in Redis: a fixed header, then the features by the view's layout.

    at  bytes  field
     0      1  format        1
     1     52  stamp         `stillwell.layout.stamp`
    53      4  length        of the whole value in bytes, unsigned, big-endian
    57      1  kind          1 a row; 2 a tombstone (reserved: nothing writes one yet, and it ends here)
    58      4  layout id     the first 4 bytes of SHA-256 over the layout's description
    62      n  null bitmap   one bit for each feature, lowest bit of the first byte first; set where it is null
     …      …  fixed body    one slot for each feature, little-endian; zero, or no bytes of the tail, where it is null
     …      …  tail          the bytes of texts, binaries and lists, one behind the other

The format stands right before the stamp, and the length right behind it, so that the script takes them in one read: it
never looks further. Format and stamp it compares as they are; a value of the same length it writes over the old one in
its place. A slot is 1 byte for Bool, 4 for Int32 and Float32, 8 for Int64, Float64 and Timestamp (µs since
the epoch), and 4 for String, Bytes and lists: where its bytes end, counted from the tail's start; they begin where
those of the feature of variable length before it end. A vector has as many slots as elements, unless those are String
or Bytes: then it is in the tail like a list, of which `stillwell.layout.elements` says more. The same row is the same
bytes, whoever encodes it.

A layout is a view's name with the names and types of its features in their order. Its description is text: a line for
the view, then one for each feature, `<name> <type>`, each ended by a line feed.
"""

import dataclasses
import datetime
import hashlib
import itertools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stillwell.errors import DefinitionError, FormatError
from stillwell.instants import instant
from stillwell.layout import elements
from stillwell.layout.stamp import STAMP_BYTES, Stamp
from stillwell.series import at_most_bytes, filled, microseconds
from stillwell.spec import FeatureSpec, ViewSpec
from stillwell.types import STRING, TIMESTAMP, FieldType

FORMAT = 1
ROW = 1
TOMBSTONE = 2

STAMP_AT = 1
LENGTH_AT = STAMP_AT + STAMP_BYTES
KIND_AT = LENGTH_AT + 4
LAYOUT_AT = KIND_AT + 1
HEADER_BYTES = LAYOUT_AT + 4

MAX_FEATURES = 4096
MAX_VALUE_BYTES = 1 << 20
"""A row may be so long. Longer ones would hold up everybody else at the server, and are refused where events are taken
in, before anything is written."""

_END = "<u4"


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedRow:
    """A row as it is stored: each feature's value, or None, and its stamp."""

    values: dict[str, object]
    stamp: Stamp

    @property
    def event_time(self) -> datetime.datetime:
        """When the event happened. Raises FormatError for a time outside Python's calendar (the years 1 to 9999)."""
        return _instant(self.stamp.event_time, "event time")


class RowLayout:
    """How rows of one view are laid out. Two layouts are the same if their ids are."""

    def __init__(self, view: str, features: Sequence[FeatureSpec]) -> None:
        """Raises DefinitionError for more than MAX_FEATURES features, or so many that no row could be stored."""
        self.view = view
        self.features = tuple(features)
        lines = [view, *(f"{feature.name} {feature.type.name}" for feature in self.features)]
        self.description = "".join(f"{line}\n" for line in lines)
        self.id = hashlib.sha256(self.description.encode()).digest()[:4]
        self.bitmap_bytes = -(-len(self.features) // 8)
        self.fixed = np.dtype(
            [
                ("format", "u1"),
                ("stamp", f"V{STAMP_BYTES}"),
                ("length", ">u4"),
                ("kind", "u1"),
                ("layout", "V4"),
                ("nulls", "u1", (self.bitmap_bytes,)),
                *((f"feature {at}", feature.type.numpy or _END) for at, feature in enumerate(self.features)),
            ]
        )
        self.variable = [at for at, feature in enumerate(self.features) if not feature.type.width]
        self.timestamps = [at for at, feature in enumerate(self.features) if feature.type is TIMESTAMP]
        self.lists = [
            (at, elements.unpacker(feature.type), feature.type.element is TIMESTAMP)
            for at, feature in enumerate(self.features)
            if feature.type.element is not None
        ]
        self.body = struct.Struct("<" + "".join(slot_code(feature.type) for feature in self.features))
        if len(self.features) > MAX_FEATURES:
            raise DefinitionError(f"view {view}: has {len(self.features)} features, at most {MAX_FEATURES} are allowed")
        if self.fixed.itemsize > MAX_VALUE_BYTES:
            raise DefinitionError(
                f"view {view}: a row would have more than {MAX_VALUE_BYTES} bytes, most of them of its vectors; make "
                "them shorter, or give them views of their own"
            )

    @classmethod
    def of(cls, view: ViewSpec) -> Self:
        """The layout of a view as it is defined."""
        return cls(view.name, view.features)


def too_long(layout: RowLayout, frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows would have more than MAX_VALUE_BYTES: they are to be rejected, for they cannot be encoded."""
    variable = [layout.features[at] for at in layout.variable]
    most = sum(_at_most_bytes(frame.get_column(feature.name), feature.type) for feature in variable)
    if layout.fixed.itemsize + most <= MAX_VALUE_BYTES:
        return np.zeros(frame.height, np.bool_)
    total = np.full(frame.height, layout.fixed.itemsize, np.int64)
    for feature in variable:
        for tail in _tails(frame.get_column(feature.name), feature.type):
            total += _lengths(tail)
    return total > MAX_VALUE_BYTES


def encode(layout: RowLayout, frame: pl.DataFrame, stamps: npt.NDArray[np.uint8]) -> list[bytes]:
    """The values of rows. frame: the features' columns, among others; stamps: of shape (rows, STAMP_BYTES).

    Raises ValueError for a row that is `too_long`.
    """
    rows = np.zeros(frame.height, layout.fixed)
    rows["format"] = FORMAT
    rows["stamp"] = stamps.view(f"V{STAMP_BYTES}")[:, 0]
    rows["kind"] = ROW
    rows["layout"] = np.void(layout.id)
    ends = np.zeros(frame.height, np.uint32)
    tails: list[pa.LargeBinaryArray] = []
    for at, feature in enumerate(layout.features):
        column = frame.get_column(feature.name)
        if column.null_count():
            rows["nulls"][:, at >> 3] |= column.is_null().to_numpy().astype(np.uint8) << (at & 7)
        if feature.type.width:
            rows[f"feature {at}"] = _slots(column, feature.type)
        else:
            for tail in _tails(column, feature.type):
                tails.append(tail)
                ends += _lengths(tail)
            rows[f"feature {at}"] = ends
    rows["length"] = layout.fixed.itemsize + ends
    if not layout.variable:
        return _cut(rows.tobytes(), layout.fixed.itemsize)
    return _with_tails(rows, tails)


def decode(layout: RowLayout, value: bytes) -> DecodedRow:
    """A row of this layout. Raises FormatError for anything else, damaged bytes included."""
    if layout_id(value) != layout.id:
        raise FormatError(f"view {layout.view}: the row has another layout, {layout_id(value).hex()}")
    body_at = HEADER_BYTES + layout.bitmap_bytes
    tail_at = layout.fixed.itemsize
    if len(value) < tail_at:
        raise FormatError(f"view {layout.view}: the row has {len(value)} bytes, its layout at least {tail_at}")
    slots = list(layout.body.unpack_from(value, body_at))
    ends = [slots[at] for at in layout.variable]
    length = int.from_bytes(value[LENGTH_AT:KIND_AT])
    if not length == len(value) == tail_at + (ends[-1] if ends else 0) or ends != sorted(ends):
        raise FormatError(f"view {layout.view}: the row's {len(value)} bytes do not end where its layout says")
    for at, (begin, end) in zip(layout.variable, itertools.pairwise([0, *ends]), strict=True):
        slots[at] = _variable_value(layout, at, value[tail_at + begin : tail_at + end])
    for at in layout.timestamps:
        slots[at] = _instant(slots[at], f"feature {layout.features[at].name}")
    nulls = int.from_bytes(value[HEADER_BYTES:body_at], "little")
    for at, unpack, are_times in layout.lists:
        if not nulls >> at & 1:
            slots[at] = _list_value(layout, at, unpack, slots[at], are_times)
    values = {
        feature.name: None if nulls >> at & 1 else slot
        for at, (feature, slot) in enumerate(zip(layout.features, slots, strict=True))
    }
    return DecodedRow(values, Stamp.unpack(value[STAMP_AT:LENGTH_AT]))


def _list_value(
    layout: RowLayout, at: int, unpack: Callable[[bytes], list[Any]], data: bytes, are_times: bool
) -> list[Any]:
    name = layout.features[at].name
    try:
        values = unpack(data)
    except ValueError as error:
        raise FormatError(f"view {layout.view}: feature {name} is no list ({error})") from None
    return [_instant(value, f"feature {name}") for value in values] if are_times else values


def _variable_value(layout: RowLayout, at: int, data: bytes) -> str | bytes:
    feature = layout.features[at]
    if feature.type is not STRING:
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"view {layout.view}: feature {feature.name} is not UTF-8 ({error})") from None


class LayoutSet:
    """The layouts that a reader knows: rows of older ones stay readable beside those of the newest."""

    def __init__(self, layouts: Iterable[RowLayout]) -> None:
        """Raises DefinitionError for two different layouts of one id."""
        self._layouts: dict[bytes, RowLayout] = {}
        for layout in layouts:
            known = self._layouts.setdefault(layout.id, layout)
            if known.description != layout.description:
                raise DefinitionError(
                    f"views {known.view} and {layout.view} have the same layout id {layout.id.hex()} by chance; "
                    f"rename a feature of one of them"
                )

    def knows(self, value: bytes) -> bool:
        """Whether a row's layout is among them. Raises FormatError for damaged bytes and tombstones."""
        return layout_id(value) in self._layouts

    def of(self, value: bytes) -> RowLayout:
        """The layout of a row. Raises FormatError for an unknown one, damaged bytes and tombstones."""
        id = layout_id(value)
        if id not in self._layouts:
            raise FormatError(
                f"the row has the unknown layout {id.hex()}: it was written by definitions that are newer, or were "
                "never registered here; read it with the definitions that wrote it"
            )
        return self._layouts[id]


def layout_id(value: bytes) -> bytes:
    """Which layout a stored row has. Raises FormatError unless it is a row of this format."""
    if len(value) < HEADER_BYTES:
        raise FormatError(f"a row has at least {HEADER_BYTES} bytes, not {len(value)}; something else wrote to its key")
    if value[0] != FORMAT:
        raise FormatError(
            f"the row has format {value[0]}, this version reads {FORMAT}: upgrade, or fill a new namespace"
        )
    if value[KIND_AT] != ROW:
        raise FormatError(f"the row is of kind {value[KIND_AT]}, this version reads {ROW} (rows) alone: upgrade")
    return value[LAYOUT_AT:HEADER_BYTES]


def stamp_of(value: bytes) -> bytes:
    """The stamp of a stored value, packed."""
    return value[STAMP_AT:LENGTH_AT]


def slot_code(kind: FieldType) -> str:
    """How `struct` has a value in the fixed body: a vector as its bytes, what has a tail as where that ends."""
    if kind.element is not None:
        return f"{kind.width}s" if kind.width else "I"
    return elements.CODES.get(kind.name, "I")


def _slots(column: pl.Series, kind: FieldType) -> npt.NDArray[np.generic]:
    """Values of fixed width as numbers, zero for null."""
    if kind.element is not None:
        return elements.vectors(column, kind)
    if column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    elif column.dtype == TIMESTAMP.polars:
        column = microseconds(column)
    return filled(column, 0).to_numpy()


def _tails(column: pl.Series, kind: FieldType) -> list[pa.LargeBinaryArray]:
    """Values of variable length, none for null; of one column there may be several that follow each other."""
    if kind.element is not None:
        return elements.tails(column, kind)
    return [filled(column.cast(pl.Binary), b"").to_arrow().cast(pa.large_binary())]


def _at_most_bytes(column: pl.Series, kind: FieldType) -> int:
    """A number of bytes that no value of variable length in the column exceeds."""
    return at_most_bytes(column) if kind.element is None else elements.at_most(column, kind)


def _lengths(tail: pa.LargeBinaryArray) -> npt.NDArray[np.uint32]:
    """How many bytes each value has."""
    _, offsets, _ = tail.buffers()
    return np.diff(np.frombuffer(offsets, np.int64)[tail.offset :][: len(tail) + 1]).astype(np.uint32)


def _cut(data: bytes, width: int) -> list[bytes]:
    """Pieces of one width."""
    return [data[at : at + width] for at in range(0, len(data), width)]


def _with_tails(rows: npt.NDArray[np.void], tails: Sequence[pa.LargeBinaryArray]) -> list[bytes]:
    """Each row's fixed part followed by its bytes of every column."""
    width = rows.itemsize
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * width
    fixed = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows.view(np.uint8))]
    )
    joined = pc.binary_join_element_wise(fixed, *tails, pa.scalar(b"", pa.large_binary()))
    _, joined_offsets, data = joined.buffers()
    ends = np.frombuffer(joined_offsets, np.int64)[: len(rows) + 1]
    longest = int(np.diff(ends).max(initial=0))
    if longest > MAX_VALUE_BYTES:
        raise ValueError(f"a row has {longest} bytes, at most {MAX_VALUE_BYTES} are allowed; reject what is too long")
    whole = data.to_pybytes()
    return [whole[begin:end] for begin, end in itertools.pairwise(ends.tolist())]


def _instant(microseconds: int, what: str) -> datetime.datetime:
    try:
        return instant(microseconds)
    except OverflowError:
        raise FormatError(f"{what}: {microseconds} µs since 1970 is outside the years 1 to 9999") from None
