"""The types that fields may have: written as annotations, held as one frozen description each.

`Float32 = Annotated[float, pl.Float32()]`: a type checker sees the Python type, Stillwell the exact width. A list of
them is `list[Float32]`, a vector of a fixed size `Annotated[list[Float32], Size(128)]`. What depends on a type (how it
is decoded, packed, stored) is looked up once, when a definition is compiled, never in a loop over rows.

Each type is one object, lists and vectors too (`list_of`, `vector_of`), so that `is` tells types apart.
"""

import dataclasses
import datetime
import functools
import re
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

MAX_SIZE = 65_536
"""Elements of a vector: of Float64 they are half of what a row may have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How many elements every list of a field has, which makes it a vector: `Annotated[list[Float32], Size(128)]`."""

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class FieldType:
    """What Stillwell knows of one type.

    name: as it is shown and stored. python: the type of one value. polars, arrow: the column types. width: bytes of one
    value in the fixed part of a stored row, little-endian, or 0 for a value of variable length. numpy: the dtype string
    of the fixed part ('' for variable length). key_tag: the letter that marks a value of this type in an entity key, or
    '' where the type cannot be a key (floats: two equal keys could differ in their last bit; lists and vectors).
    """

    name: str
    python: type
    polars: pl.DataType
    arrow: pa.DataType
    width: int
    numpy: str
    key_tag: str
    element: "FieldType | None" = None
    """Of lists and vectors: the type of their elements, which are never null. None for all others."""
    size: int | None = None
    """Of vectors: how many elements each has."""

    @property
    def scalar(self) -> "FieldType":
        """The type of one element, or the type itself where it has none."""
        return self.element or self


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
"""Those of single values, by name. `field_type` knows lists and vectors of them too."""

_OF_POLARS = {kind.polars: kind for kind in FIELD_TYPES.values()}
_LIST = re.compile(r"List\[(?P<element>\w+)\]", re.ASCII)
_VECTOR = re.compile(r"Vector\[(?P<element>\w+), (?P<size>[1-9][0-9]{0,4})\]", re.ASCII)


@functools.cache
def list_of(element: FieldType) -> FieldType:
    """Lists of any number of elements of a single type."""
    items = pa.field("item", element.arrow, nullable=False)
    return FieldType(f"List[{element.name}]", list, pl.List(element.polars), pa.list_(items), 0, "", "", element)


@functools.cache
def vector_of(element: FieldType, size: int) -> FieldType:
    """Lists of exactly `size` elements of a single type, 1 to MAX_SIZE of them."""
    items = pa.field("item", element.arrow, nullable=False)
    return FieldType(
        name=f"Vector[{element.name}, {size}]",
        python=list,
        polars=pl.Array(element.polars, size),
        arrow=pa.list_(items, size),
        width=element.width * size,
        numpy=f"({size},){element.numpy}" if element.width else "",
        key_tag="",
        element=element,
        size=size,
    )


def field_type(name: str) -> FieldType:
    """The type of this name: `Float32`, `List[String]`, `Vector[Float32, 128]`. Raises KeyError where there is none."""
    if name in FIELD_TYPES:
        return FIELD_TYPES[name]
    if (listed := _LIST.fullmatch(name)) and listed["element"] in FIELD_TYPES:
        return list_of(FIELD_TYPES[listed["element"]])
    if (vector := _VECTOR.fullmatch(name)) and vector["element"] in FIELD_TYPES and int(vector["size"]) <= MAX_SIZE:
        return vector_of(FIELD_TYPES[vector["element"]], int(vector["size"]))
    raise KeyError(name)


def is_field_type(name: str) -> bool:
    """Whether there is a type of this name."""
    try:
        field_type(name)
    except KeyError:
        return False
    return True


def of_polars(dtype: pl.DataType) -> FieldType | None:
    """The type whose columns are such in Polars; None where there is none."""
    if isinstance(dtype, pl.List) and (element := _OF_POLARS.get(dtype.inner)):  # type: ignore[arg-type]
        return list_of(element)
    if isinstance(dtype, pl.Array) and len(dtype.shape) == 1 and 1 <= dtype.size <= MAX_SIZE:
        of_elements = _OF_POLARS.get(dtype.inner)  # type: ignore[arg-type]
        return vector_of(of_elements, dtype.size) if of_elements else None
    return _OF_POLARS.get(dtype)
