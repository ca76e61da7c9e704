"""Stillwell: an event-driven feature store.

What a definitions package imports, and all that this package promises to keep:

- `Entity`, `Topic`, `View`: what features are about, what flows, and what is computed from it.
- `Request`, `OnDemandView`, `AS_OF`: what a request brings, what is computed when it is read, and for which instant.
- `FeatureService`: a list of features under a name.
- `Model`, `OpenInference`: what predicts from features, and the server that it is asked at.
- `Key`, `Col`, `Feature`, `Output`: the fields of those; `col`, `feature` and `output` say more of a field, and
  `rule` what must hold for a column.
- `rows` marks a function that makes any number of rows from one event, and `Rows` is what it returns; `frame` marks one
  that makes rows of a whole frame of events.
- `Bool`, `Int32`, `Int64`, `Float32`, `Float64`, `String`, `Bytes`, `Timestamp`: the types of fields;
  `Size` says how many elements each list of a field has, which makes it a vector.
- `Client` reads features back, `SyncClient` for code that cannot await; `stillwell.client` has all that they give.
- `StillwellError` is the root of every error raised on purpose, `DefinitionError` the one for wrong definitions.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillwell.client import Client, SyncClient
    from stillwell.definitions import (
        AS_OF,
        Col,
        Entity,
        Feature,
        FeatureService,
        Key,
        Model,
        OnDemandView,
        OpenInference,
        Output,
        Request,
        Rows,
        Topic,
        View,
        col,
        feature,
        frame,
        output,
        rows,
        rule,
    )
    from stillwell.errors import DefinitionError, StillwellError
    from stillwell.types import Bool, Bytes, Float32, Float64, Int32, Int64, Size, String, Timestamp

__all__ = [
    "AS_OF",
    "Bool",
    "Bytes",
    "Client",
    "Col",
    "DefinitionError",
    "Entity",
    "Feature",
    "FeatureService",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Key",
    "Model",
    "OnDemandView",
    "OpenInference",
    "Output",
    "Request",
    "Rows",
    "Size",
    "StillwellError",
    "String",
    "SyncClient",
    "Timestamp",
    "Topic",
    "View",
    "col",
    "feature",
    "frame",
    "output",
    "rows",
    "rule",
]

_HOMES = {
    **dict.fromkeys(("Client", "SyncClient"), "stillwell.client"),
    **dict.fromkeys(
        (
            "AS_OF",
            "Col",
            "Entity",
            "Feature",
            "FeatureService",
            "Key",
            "Model",
            "OnDemandView",
            "OpenInference",
            "Output",
            "Request",
            "Rows",
            "Topic",
            "View",
            "col",
            "feature",
            "frame",
            "output",
            "rows",
            "rule",
        ),
        "stillwell.definitions",
    ),
    **dict.fromkeys(("DefinitionError", "StillwellError"), "stillwell.errors"),
    **dict.fromkeys(
        ("Bool", "Bytes", "Float32", "Float64", "Int32", "Int64", "Size", "String", "Timestamp"), "stillwell.types"
    ),
}


def __getattr__(name: str) -> object:
    """Fetch a name when it is first asked for: `stillwell --help` must not wait for Polars and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
