"""Some features of stored rows, column by column, taken out of their bytes without looking at the rest.

A reader wants ten features of fifty, of a hundred rows, thousands of times a second. So which slots are theirs is
worked out once for each layout; a row is then one unpacking and one pick, and only rows with nulls, texts or bytes are
looked at more closely. What comes out is what `stillwell.layout.value.decode` gives, but for times, which stay numbers.
"""

import itertools
import operator
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from stillwell.errors import FormatError
from stillwell.layout import elements
from stillwell.layout.value import (
    FORMAT,
    HEADER_BYTES,
    KIND_AT,
    LENGTH_AT,
    ROW,
    LayoutSet,
    RowLayout,
    layout_id,
    slot_code,
)
from stillwell.spec import FeatureSpec, ViewSpec
from stillwell.types import BYTES, STRING, FieldType


class _Absent:
    """The type of ABSENT."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""In the place of a value: the row was written by a version of the view that did not have the feature, or not in this
type; or there is no row."""

_EVENT_TIME = struct.Struct(">Q")
_EVENT_TIME_AT = 1
_SIGN = 1 << 63


class StoredColumns(NamedTuple):
    """What is stored of some entities: an item for each, in their order.

    event_times: µs since the epoch, None where there is no row. columns: one for each feature asked for; a value is
    as its type has it in Python (a Timestamp as µs since the epoch), None for a null, ABSENT for what no row has.
    """

    event_times: list[int | None]
    columns: list[Sequence[Any]]
    whole: bool = False
    """Whether it is known that every entity has a row, and no column a None or an ABSENT."""


class Projection:
    """Reads the same features from rows of one view, in any of its layouts that are known."""

    def __init__(self, view: ViewSpec, wanted: Sequence[FeatureSpec], older: Iterable[ViewSpec] = ()) -> None:
        """older: other versions of the view, whose rows may still be there. Raises DefinitionError for two that share
        the id of their layouts by chance."""
        layouts = [RowLayout.of(each) for each in (view, *older)]
        LayoutSet(layouts)
        self._view = view.name
        self._readers = {bytes([ROW]) + layout.id: _reader(layout, wanted) for layout in layouts}
        self._nothing = (ABSENT,) * len(wanted)
        self.whole = WholeRows(layouts[0], wanted)
        """Of the view as it is defined, which nearly all rows are."""

    def read(self, stored: Sequence[bytes | None]) -> StoredColumns:
        """The columns of stored values, None where there is no row.

        Raises UnknownLayout for rows that none of the known versions has written, FormatError for damaged ones.
        """
        if (whole := self.whole.many(stored)) is not None:
            return StoredColumns(*whole, whole=True)  # type: ignore[arg-type]
        readers = self._readers
        event_times: list[int | None] = []
        rows = []
        for value in stored:
            if value is None:
                event_times.append(None)
                rows.append(self._nothing)
                continue
            reader = readers.get(value[KIND_AT:HEADER_BYTES])
            if reader is None or value[0] != FORMAT:
                raise self._unreadable(value)
            rows.append(reader(value))
            event_times.append(_EVENT_TIME.unpack_from(value, _EVENT_TIME_AT)[0] - _SIGN)
        return StoredColumns(event_times, list(zip(*rows, strict=True)) if rows else [()] * len(self._nothing))

    def _unreadable(self, value: bytes) -> FormatError:
        id = layout_id(value)  # raises for what is no row
        return UnknownLayout(
            f"view {self._view}: a row has the unknown layout {id.hex()}: it was written by definitions that are "
            "newer, or were never registered here; read it with the definitions that wrote it"
        )


class UnknownLayout(FormatError):
    """A row was written by a version of its view that the reader does not know (yet)."""


_Reader = Callable[[bytes], tuple[Any, ...]]
_ReadTail = Callable[[bytes], Any]


def _read_tail(kind: FieldType) -> _ReadTail | None:
    """From what a row has of a feature in its tail to the value; raises ValueError. None: it is the value."""
    if kind is BYTES:
        return None
    return bytes.decode if kind is STRING else elements.unpacker(kind)


def _reader(layout: RowLayout, wanted: Sequence[FeatureSpec]) -> _Reader:
    """From a row of this layout to the features wanted, in their order."""
    places = {feature.name: at for at, feature in enumerate(layout.features)}
    taken = [
        places[feature.name]
        if feature.name in places and layout.features[places[feature.name]].type is feature.type
        else None
        for feature in wanted
    ]
    return _RowReader(layout, taken).read


class _RowReader:
    """Reads one layout. taken: the place in the layout of each feature wanted, None for one that it lacks."""

    def __init__(self, layout: RowLayout, taken: Sequence[int | None]) -> None:
        self._view = layout.view
        self._fixed = layout.fixed.itemsize
        self._bitmap_bytes = layout.bitmap_bytes
        self._no_nulls = bytes(layout.bitmap_bytes)
        before = {at: last for last, at in itertools.pairwise(layout.variable)}
        read = {at for at in taken if at is not None}
        slots = sorted(read | {before[at] for at in read & before.keys()} | set(layout.variable[-1:]))
        self._body = struct.Struct(_format(layout, slots))
        at_slot = {at: slot for slot, at in enumerate(slots, 2)}  # behind length and bitmap
        self._last_end = at_slot[layout.variable[-1]] if layout.variable else None
        self._pick = _picker([1 if at is None else at_slot[at] for at in taken])
        self._texts = [
            (position, at, at_slot[before[at]] if at in before else None, _read_tail(layout.features[at].type))
            for position, at in enumerate(taken)
            if at is not None and at in layout.variable
        ]
        self._vectors = [
            (position, elements.unpacker(layout.features[at].type))
            for position, at in enumerate(taken)
            if at is not None and layout.features[at].type.width and layout.features[at].type.element is not None
        ]
        self._plain = not self._texts and not self._vectors
        self._bits = [(position, at) for position, at in enumerate(taken) if at is not None]
        self._absent = [position for position, at in enumerate(taken) if at is None]

    def read(self, value: bytes) -> tuple[Any, ...]:
        if len(value) < self._fixed:
            raise self._damaged(value)
        slots = self._body.unpack_from(value, LENGTH_AT)
        end = slots[self._last_end] if self._last_end else 0
        if not int.from_bytes(slots[0]) == len(value) == self._fixed + end:
            raise self._damaged(value)
        row: tuple[Any, ...] = self._pick(slots)
        if slots[1] == self._no_nulls and self._plain and not self._absent:
            return row
        return tuple(self._closer(value, slots, list(row)))

    def _closer(self, value: bytes, slots: tuple[Any, ...], row: list[Any]) -> list[Any]:
        """The row with its texts, its lists, its nulls and what it lacks."""
        nulls = int.from_bytes(slots[1], "little")
        for position, at, start_slot, read in self._texts:
            start = slots[start_slot] if start_slot else 0
            row[position] = self._text(value, start, row[position], None if nulls >> at & 1 else read)
        for position, unpack in self._vectors:
            row[position] = unpack(row[position])
        for position, at in self._bits:
            if nulls >> at & 1:
                row[position] = None
        for position in self._absent:
            row[position] = ABSENT
        return row

    def _text(self, value: bytes, start: int, end: int, read: "_ReadTail | None") -> Any:
        if not start <= end <= len(value) - self._fixed:
            raise self._damaged(value)
        data = value[self._fixed + start : self._fixed + end]
        if read is None:
            return data
        try:
            return read(data)
        except UnicodeDecodeError as error:
            raise FormatError(f"view {self._view}: a text in the row is not UTF-8 ({error})") from None
        except ValueError as error:
            raise FormatError(f"view {self._view}: a list in the row is none ({error})") from None

    def _damaged(self, value: bytes) -> FormatError:
        return FormatError(f"view {self._view}: the row's {len(value)} bytes do not end where its layout says")


_Together = tuple[list[int], Sequence[Any]]


class WholeRows:
    """Reads rows that are all there, without a null and of one layout: of many at once a column by one unpacking, which
    takes a third of the time that one row at a time does."""

    def __init__(self, layout: RowLayout, wanted: Sequence[FeatureSpec]) -> None:
        places = {feature.name: at for at, feature in enumerate(layout.features)}
        before = {at: last for last, at in itertools.pairwise(layout.variable)}
        read = {places[feature.name] for feature in wanted}
        slots = sorted(read | {before[at] for at in read & before.keys()} | set(layout.variable[-1:]))
        chosen = set(slots)
        codes = [
            slot_code(feature.type) if at in chosen else f"{feature.type.width or 4}x"
            for at, feature in enumerate(layout.features)
        ]
        self._fixed = layout.fixed.itemsize
        between = LENGTH_AT - _EVENT_TIME_AT - _EVENT_TIME.size
        head = HEADER_BYTES - KIND_AT + layout.bitmap_bytes
        self._format = f"B{_EVENT_TIME.size}s{between}x4s{head}s{''.join(codes)}"
        self._row = struct.Struct(f"<{self._format}")
        self._head = bytes([ROW]) + layout.id + bytes(layout.bitmap_bytes)
        at_slot = {at: slot for slot, at in enumerate(slots, 4)}  # behind format, event time, length and head
        self._last_end = at_slot[layout.variable[-1]] if layout.variable else None
        self._wanted = [at_slot[places[feature.name]] for feature in wanted]
        self._pick = _picker(self._wanted)
        self._texts = [
            (position, at_slot[before[at]] if at in before else None, at_slot[at], _read_tail(feature.type))
            for position, feature in enumerate(wanted)
            if not layout.features[at := places[feature.name]].type.width
        ]
        self._vectors = [
            (position, elements.unpacker(feature.type))
            for position, feature in enumerate(wanted)
            if feature.type.width and feature.type.element is not None
        ]

    @property
    def count(self) -> int:
        """Of the features that are read."""
        return len(self._wanted)

    @property
    def even(self) -> bool:
        """Whether all such rows are of one length, and read by nothing but unpacking: the layout has no texts, bytes
        and lists, and no vector is wanted."""
        return self._last_end is None and not self._vectors

    @classmethod
    def together(cls, each: "Sequence[WholeRows]") -> "Callable[[Sequence[bytes | None]], _Together | None]":
        """Reads one row of each of several even layouts, all of them by one unpacking, which for twenty takes half the
        time that `one` takes for each: their event times, and their features one behind the other. It gives None where
        one of the rows is not such."""
        rows = struct.Struct("<" + "".join(one._format for one in each))
        begins = list(itertools.accumulate((len(one._row.unpack(bytes(one._row.size))) for one in each), initial=0))
        lengths = [one._fixed for one in each]
        # Format, length and head are known beforehand.
        pick_known = _picker([begin + slot for begin in begins[:-1] for slot in (0, 2, 3)])
        known = tuple(part for one in each for part in (FORMAT, one._fixed.to_bytes(4), one._head))
        pick_times = _picker([begin + 1 for begin in begins[:-1]])
        times = struct.Struct(f">{len(each)}Q")
        pick_wanted = _picker([begin + slot for one, begin in zip(each, begins, strict=False) for slot in one._wanted])

        def read(stored: Sequence[bytes | None]) -> _Together | None:
            if None in stored or list(map(len, stored)) != lengths:  # type: ignore[arg-type]
                return None
            slots = rows.unpack(b"".join(stored))  # type: ignore[arg-type]
            if pick_known(slots) != known:
                return None
            packed = pick_times(slots)
            if packed.count(packed[0]) == len(packed):  # as those of one topic mostly are
                return [int.from_bytes(packed[0]) - _SIGN] * len(packed), pick_wanted(slots)
            return [time - _SIGN for time in times.unpack(b"".join(packed))], pick_wanted(slots)

        return read

    def one(self, value: bytes | None) -> tuple[int, Sequence[Any]] | None:
        """The event time of a row in µs since the epoch, and its features; None where the row is not such."""
        if value is None or len(value) < self._fixed:
            return None
        slots = self._row.unpack_from(value)
        end = slots[self._last_end] if self._last_end else 0
        if (
            slots[3] != self._head
            or slots[0] != FORMAT
            or not int.from_bytes(slots[2]) == len(value) == self._fixed + end
        ):
            return None
        row: Sequence[Any] = self._pick(slots)
        if self._texts:
            row = list(row)
            for position, start_slot, end_slot, read in self._texts:
                start = slots[start_slot] if start_slot else 0
                if not start <= slots[end_slot] <= end:
                    return None
                text = value[self._fixed + start : self._fixed + slots[end_slot]]
                try:
                    row[position] = text if read is None else read(text)
                except ValueError:
                    return None
        if self._vectors:
            row = list(row)
            for position, unpack in self._vectors:
                row[position] = unpack(row[position])
        return int.from_bytes(slots[1]) - _SIGN, row

    def many(self, stored: Sequence[bytes | None]) -> tuple[list[int], list[Sequence[Any]]] | None:
        """The event times of rows, and their features, column by column; None where one of the rows is not such, or
        there is none."""
        if len(stored) == 1:
            found = self.one(stored[0])
            return ([found[0]], [(value,) for value in found[1]]) if found else None
        if not stored or None in stored:
            return None
        rows: Sequence[bytes] = stored  # type: ignore[assignment]
        count, fixed = len(rows), self._fixed
        lengths = list(map(len, rows))
        if min(lengths) < fixed:
            return None
        joined = b"".join(row[:fixed] for row in rows) if self._last_end else b"".join(rows)
        if len(joined) != count * fixed:
            return None
        slots = tuple(zip(*self._row.iter_unpack(joined), strict=True))
        if slots[0].count(FORMAT) != count or slots[3].count(self._head) != count:
            return None
        if struct.unpack(f">{count}I", b"".join(slots[2])) != tuple(lengths):
            return None
        if self._last_end and [fixed + end for end in slots[self._last_end]] != lengths:
            return None
        columns = list(self._pick(slots))
        for position, unpack in self._vectors:
            columns[position] = list(map(unpack, columns[position]))
        for position, start_slot, end_slot, read in self._texts:
            starts, ends = slots[start_slot] if start_slot else (0,) * count, slots[end_slot]
            if not all(map(operator.le, starts, ends)) or not all(map(operator.le, map(fixed.__add__, ends), lengths)):
                return None
            texts = [row[fixed + start : fixed + end] for row, start, end in zip(rows, starts, ends, strict=True)]
            try:
                columns[position] = texts if read is None else list(map(read, texts))
            except ValueError:
                return None
        times = struct.unpack(f">{count}Q", b"".join(slots[1]))
        return [time - _SIGN for time in times], columns


def _format(layout: RowLayout, slots: Sequence[int]) -> str:
    """What `struct` unpacks from the length on: length, null bitmap, and the slots wanted, in the layout's order."""
    chosen = set(slots)
    codes = [
        slot_code(feature.type) if at in chosen else f"{feature.type.width or 4}x"
        for at, feature in enumerate(layout.features)
    ]
    return f"<4s{HEADER_BYTES - KIND_AT}x{layout.bitmap_bytes}s{''.join(codes)}"


def _picker(places: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """The items at these places, in this order."""
    if not places:
        return lambda slots: ()
    if len(places) == 1:
        (place,) = places
        return lambda slots: (slots[place],)
    return operator.itemgetter(*places)
