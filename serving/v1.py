"""Our own interface: all that is known of each value, by column for many entities, by feature for one.

    POST /v1/features   {"features": ["view:feature", …], "entities": {"key": […]}}
        {"entities": {"key": […]},
         "features": {"view:feature": {"type": …, "values": […], "statuses": […], "event_times": […], "ages_s": […]}}}

    GET /v1/features?features=view:feature,view:other&key=value
        {"entity": {"key": …},
         "features": {"view:feature": {"type": …, "value": …, "status": …, "event_time": …, "age_s": …}}}

The type is the feature's: JSON alone does not say whether a text is a time, or bytes, or how wide a float is. A value
that is past its TTL is what it was, and its status says so. Times are ISO-8601 in UTC, ages seconds since the event
time of the row, null where there is none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from multidict import MultiMapping

from serving.answers import EventTimes, encode, instant, statuses, written
from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import RequestError
from stillwell.reading.entities import Columns
from stillwell.reading.features import FeatureColumn, Found
from stillwell.reading.query import Catalog
from stillwell.wire import FITS

_SECOND_US = 1_000_000


class FeaturesRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/features."""

    features: list[str]
    entities: dict[str, list[Any]]


features_request = msgspec.json.Decoder(FeaturesRequest)


def single(query: MultiMapping[str]) -> dict[str, str]:
    """The words of a query string. Raises RequestError for one that is given twice."""
    given: dict[str, str] = {}
    for name, text in query.items():
        if name in given:
            raise RequestError(name, "is given twice; for several entities use POST")
        given[name] = text
    return given


def entity_of(catalog: Catalog, given: Mapping[str, str]) -> dict[str, list[object]]:
    """The one entity that a query string names, each key read by its type. Raises RequestError."""
    return {name: [_value(catalog, name, text)] for name, text in given.items()}


def _value(catalog: Catalog, name: str, text: str) -> object:
    kind = catalog.keys.get(name)
    if kind is None:
        raise RequestError(name, f"is no key of any entity{did_you_mean(name, catalog.keys)}")
    if kind.name in ("Timestamp", "Bytes"):
        return text  # read as in a body
    try:
        return msgspec.convert(text, FITS[kind.name], strict=False)
    except msgspec.ValidationError:
        raise RequestError(name, f"must be {kind.name}, not {text!r}") from None


def answer(entities: Columns, found: Found) -> bytes:
    """Columns, for any number of entities."""
    times = EventTimes(absent=None)
    return encode(
        {
            "entities": entities,
            "features": {
                column.output.reference: {
                    "type": column.output.feature.type.name,
                    "values": _values(column),
                    "statuses": statuses(column),
                    "event_times": times.of(column),
                    "ages_s": [_age(at, found.at_us) for at in column.event_times],
                }
                for column in found.columns
            },
        }
    )


def answer_for_one(entity: Columns, found: Found) -> bytes:
    """One entity's features."""
    return encode(
        {
            "entity": {name: values[0] for name, values in entity.items()},
            "features": {column.output.reference: _one(column, found.at_us) for column in found.columns},
        }
    )


def _one(column: FeatureColumn, at_us: int) -> dict[str, object]:
    at = column.event_times[0]
    return {
        "type": column.output.feature.type.name,
        "value": _values(column)[0],
        "status": column.statuses[0].value,
        "event_time": None if at is None else instant(at),
        "age_s": _age(at, at_us),
    }


def _age(event_time: int | None, at_us: int) -> float | None:
    return None if event_time is None else (at_us - event_time) / _SECOND_US


def _values(column: FeatureColumn) -> Sequence[Any]:
    return written(column.output.feature.type, column.values, instant)


def error_body(error: Exception) -> bytes:
    """An error: what kind, by its name in `stillwell.errors`, which field, and what to do."""
    field = error.field if isinstance(error, RequestError) else None
    return encode({"error": {"kind": type(error).__name__, "field": field, "message": str(error)}})
