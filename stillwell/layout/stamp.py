"""The stamp: 52 bytes that order all versions of a row, and depend on nothing but the event.

    at  bytes  field
     0      8  event time         µs since the epoch, signed
     8      8  sequence           signed; all zero bytes where the event carries none, which is the least
    16      8  record timestamp   ms since the epoch, signed
    24      8  topic              the first 8 bytes of SHA-256 over the topic's name in UTF-8
    32      2  incarnation        unsigned
    34      4  partition          unsigned
    38      8  offset             unsigned
    46      2  view version       unsigned
    48      4  row                unsigned, the row's ordinal within its event

Integers are big-endian, and the top bit of signed ones is flipped: so the order of stamps is the order of their bytes,
for `memcmp`, for Python and for Lua alike. `judge` is the one rule; the Redis script and the in-memory twin follow it.
"""

import dataclasses
import enum
import functools
import hashlib
import struct
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.joined import Cuts
from stillwell.layout.chain import PartitionId
from stillwell.series import filled, microseconds

STAMP_BYTES = 52

ABSENT_SEQUENCE = -(2**63)
"""Stands for no sequence. An event that carries this very number counts as one that carries none."""

_STAMP = struct.Struct(">QQQ8sHIQHI")
_COLUMNS = np.dtype(
    [
        ("event_time", ">u8"),
        ("sequence", ">u8"),
        ("timestamp", ">u8"),
        ("topic", "V8"),
        ("incarnation", ">u2"),
        ("partition", ">u4"),
        ("offset", ">u8"),
        ("version", ">u2"),
        ("row", ">u4"),
    ]
)
_SIGN = 1 << 63


class Order(enum.Enum):
    """How a row stands to the one in its place."""

    NEWER = "newer"
    DUPLICATE = "duplicate"
    OLDER = "older"


def judge(candidate: bytes, stored: bytes | None) -> Order:
    """The rule of order, from two stamps; None where nothing is stored."""
    if stored is None or candidate > stored:
        return Order.NEWER
    return Order.DUPLICATE if candidate == stored else Order.OLDER


@functools.lru_cache(maxsize=4096)
def topic_digest(topic: str) -> bytes:
    """What stands for a topic in a stamp: 8 bytes."""
    return hashlib.sha256(topic.encode()).digest()[:8]


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """One stamp, field by field. event_time: µs; sequence: None for none; timestamp: ms; topic: `topic_digest`."""

    event_time: int
    sequence: int | None
    timestamp: int
    topic: bytes
    incarnation: int
    partition: int
    offset: int
    version: int
    row: int

    def pack(self) -> bytes:
        """The 52 bytes. Raises ValueError for a field that does not fit."""
        sequence = ABSENT_SEQUENCE if self.sequence is None else self.sequence
        if len(self.topic) != 8:
            raise ValueError(f"topic digest of a stamp: must be 8 bytes, not {len(self.topic)}; use topic_digest")
        try:
            return _STAMP.pack(
                self.event_time + _SIGN,
                sequence + _SIGN,
                self.timestamp + _SIGN,
                self.topic,
                self.incarnation,
                self.partition,
                self.offset,
                self.version,
                self.row,
            )
        except struct.error as error:
            raise ValueError(f"{self}: a field is outside its range ({error})") from None

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """From its 52 bytes. Raises ValueError for any other number of them."""
        if len(packed) != STAMP_BYTES:
            raise ValueError(f"a stamp has {STAMP_BYTES} bytes, not {len(packed)}")
        event_time, sequence, timestamp, *rest = _STAMP.unpack(packed)
        return cls(
            event_time - _SIGN, sequence - _SIGN if sequence else None, timestamp - _SIGN, *rest
        )  # fmt: skip


def stamps(frame: pl.DataFrame, cuts: Cuts, sources: Sequence[PartitionId], version: int) -> npt.NDArray[np.uint8]:
    """The stamps of rows of one view version, of batches that are joined: an array of shape (rows, 52).

    frame: `event_timestamp`, `_sequence`, `_timestamp`, `_offset` and `_row` as in `stillwell.records.ViewRows`.
    sources: which partition of the one topic each batch is of.
    """
    lengths = np.diff(cuts)
    incarnations = np.repeat([source.incarnation for source in sources], lengths)
    partitions = np.repeat([source.partition for source in sources], lengths)
    return stamps_of(frame, sources[0].topic, incarnations, partitions, version)


def stamps_of(
    frame: pl.DataFrame,
    topic: str,
    incarnations: npt.NDArray[np.int64] | int,
    partitions: npt.NDArray[np.int64],
    version: int,
) -> npt.NDArray[np.uint8]:
    """The same for rows in any order, given which partition, of which incarnation of the topic, each is of."""
    packed = np.empty(frame.height, _COLUMNS)
    packed["event_time"] = _unsigned(microseconds(frame.get_column("event_timestamp")))
    sequence = frame.get_column("_sequence")
    if sequence.null_count() == frame.height:  # as in nearly every topic; to fill it would be to plan a query
        packed["sequence"] = ABSENT_SEQUENCE + _SIGN
    else:
        packed["sequence"] = _unsigned(filled(sequence.cast(pl.Int64), ABSENT_SEQUENCE))
    packed["timestamp"] = _unsigned(frame.get_column("_timestamp"))
    packed["topic"] = np.void(topic_digest(topic))
    packed["incarnation"] = incarnations
    packed["partition"] = partitions
    packed["offset"] = frame.get_column("_offset").to_numpy()
    packed["version"] = version
    packed["row"] = frame.get_column("_row").to_numpy()
    return packed.view(np.uint8).reshape(frame.height, STAMP_BYTES)


def _unsigned(column: pl.Series) -> npt.NDArray[np.uint64]:
    """Signed integers with their top bit flipped."""
    return column.to_numpy().view(np.uint64) ^ np.uint64(_SIGN)
