"""The types that fields may have: written as annotations, held as one frozen description each.

`Float32 = Annotated[float, pl.Float32()]`: a type checker sees the Python type, Stillwell the exact width. What depends
on a type (how it is decoded, packed, stored) is looked up once, when a definition is compiled, never in a loop over
rows.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import polars as pl
import pyarrow as pa

Bool = Annotated[bool, pl.Boolean()]
Int32 = Annotated[int, pl.Int32()]
Int64 = Annotated[int, pl.Int64()]
Float32 = Annotated[float, pl.Float32()]
Float64 = Annotated[float, pl.Float64()]
String = Annotated[str, pl.String()]
Bytes = Annotated[bytes, pl.Binary()]
Timestamp = Annotated[datetime.datetime, pl.Datetime("us", "UTC")]


@dataclasses.dataclass(frozen=True, slots=True)
class FieldType:
    """What Stillwell knows of one type.

    name: as users write it. python: the type of one value. polars, arrow: the column types. width: bytes of one value
    in the fixed part of a stored row, little-endian, or 0 for a value of variable length. numpy: the dtype string of
    the fixed part ('' for variable length). key_tag: the letter that marks a value of this type in an entity key, or
    '' where the type cannot be a key (floats: two equal keys could differ in their last bit).
    """

    name: str
    python: type
    polars: pl.DataType
    arrow: pa.DataType
    width: int
    numpy: str
    key_tag: str


BOOL = FieldType("Bool", bool, pl.Boolean(), pa.bool_(), 1, "u1", "t")
INT32 = FieldType("Int32", int, pl.Int32(), pa.int32(), 4, "<i4", "i")
INT64 = FieldType("Int64", int, pl.Int64(), pa.int64(), 8, "<i8", "i")
FLOAT32 = FieldType("Float32", float, pl.Float32(), pa.float32(), 4, "<f4", "")
FLOAT64 = FieldType("Float64", float, pl.Float64(), pa.float64(), 8, "<f8", "")
STRING = FieldType("String", str, pl.String(), pa.string(), 0, "", "s")
BYTES = FieldType("Bytes", bytes, pl.Binary(), pa.binary(), 0, "", "x")
TIMESTAMP = FieldType(
    "Timestamp", datetime.datetime, pl.Datetime("us", "UTC"), pa.timestamp("us", "UTC"), 8, "<i8", "d"
)

FIELD_TYPES: Mapping[str, FieldType] = MappingProxyType(
    {kind.name: kind for kind in (BOOL, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, TIMESTAMP)}
)
