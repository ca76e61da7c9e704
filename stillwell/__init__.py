"""Stillwell: an event-driven feature store.

What a definitions package imports, and all that this package promises to keep:

- `Entity`, `Topic`, `View`: what features are about, what flows, and what is computed from it.
- `Key`, `Col`, `Feature`: the fields of those; `col` and `feature` say more of a field.
- `rows` marks a function that makes any number of rows from one event; `Rows` is what it returns.
- `Bool`, `Int32`, `Int64`, `Float32`, `Float64`, `String`, `Bytes`, `Timestamp`: the types of fields.
- `StillwellError` is the root of every error raised on purpose, `DefinitionError` the one for wrong definitions.
"""

from stillwell.definitions import Col, Entity, Feature, Key, Rows, Topic, View, col, feature, rows
from stillwell.errors import DefinitionError, StillwellError
from stillwell.types import Bool, Bytes, Float32, Float64, Int32, Int64, String, Timestamp

__all__ = [
    "Bool",
    "Bytes",
    "Col",
    "DefinitionError",
    "Entity",
    "Feature",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Key",
    "Rows",
    "StillwellError",
    "String",
    "Timestamp",
    "Topic",
    "View",
    "col",
    "feature",
    "rows",
]
