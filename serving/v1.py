"""Our own interface: all that is known of each value, by column for many entities, by feature for one.

    POST /v1/features   {"features": ["view:feature", …], "entities": {"key": […]}}
        {"entities": {"key": […]},
         "features": {"view:feature": {"type": …, "values": […], "statuses": […], "event_times": […], "ages_s": […],
                                       "freshness": […]}}}

    GET /v1/features?features=view:feature,view:other&key=value
        {"entity": {"key": …},
         "features": {"view:feature": {"type": …, "value": …, "status": …, "event_time": …, "age_s": …,
                                       "freshness": …}}}

In the place of features, `feature_service` names a list of them. Request values stand beside the keys.

`"provenance": true`, in a URL `provenance=true`, adds to each feature the record that each value was made of: topic,
incarnation, partition, offset, and the version of the view.

The type is the feature's: JSON alone does not say whether a text is a time, or bytes, or how wide a float is. A value
that is past its TTL is what it was, and its status says so. Times are ISO-8601 in UTC, ages seconds since the event
time of the row, null where there is none.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from serving.as_json import Rests, age, encode, written
from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import Behind, NotWritten, RequestError
from stillwell.instants import instant
from stillwell.reading import entities as asked_entities
from stillwell.reading.entities import RequestColumns
from stillwell.reading.features import FeatureColumn, Found, present
from stillwell.reading.plan import Kind, Output, Plan
from stillwell.reading.provenance import stamps, topic_of
from stillwell.reading.status import Freshness
from stillwell.texts import value_of
from stillwell.types import BYTES, FLOAT32, FLOAT64, TIMESTAMP, FieldType
from stillwell.wording import shorten


class FeaturesRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/features."""

    entities: dict[str, list[Any]]
    features: list[str] = []
    feature_service: str | None = None
    provenance: bool = False
    after: str = ""
    timeout_ms: int | None = None


features_request = msgspec.json.Decoder(FeaturesRequest)


def single(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The words of a query string. Raises RequestError for one that is given twice."""
    given: dict[str, str] = {}
    for name, text in query:
        if name in given:
            raise RequestError(shorten(name), "is given twice; for several entities use POST")
        given[name] = text
    return given


def entity_of(plan: Plan, known: Mapping[str, FieldType], given: Mapping[str, str]) -> dict[str, list[object]]:
    """The one entity that a query string names: what the plan takes is read by its type, the rest stays text.

    known: all columns that may be there. Raises RequestError.
    """
    for name in given.keys() - known.keys():
        raise RequestError(shorten(name), f"is no key of any entity{did_you_mean(name, known)}")
    types = plan.columns
    entity = {name: [_value(types[name], name, text) if name in types else text] for name, text in given.items()}
    for name in plan.required:
        if name not in given:
            raise asked_entities.missing(plan, name, name)
    return entity


def _value(kind: FieldType, name: str, text: str) -> object:
    try:
        value = value_of(kind, text)
    except ValueError as error:
        raise RequestError(name, f"{error}") from None
    if kind.element is not None:
        return msgspec.json.decode(text)
    return text if kind in (TIMESTAMP, BYTES, FLOAT32, FLOAT64) and not _is_plain(value) else value


def _is_plain(value: object) -> bool:
    """Whether a body would have the value as it is, and not a text that stands for it."""
    return isinstance(value, float) and math.isfinite(value)


def answer(entities: RequestColumns, found: Found, topics: Mapping[bytes, str] | None = None) -> bytes:
    """Columns, for any number of entities. topics: by their digests, where it is asked what each value was made of."""

    def rest(column: FeatureColumn, statuses: bytes, times: bytes) -> bytes:
        ages = encode([age(at, found.at_us) for at in column.event_times])
        freshness = encode([each and each.value for each in _freshness(column)])
        return b',"statuses":%b,"event_times":%b,"ages_s":%b,"freshness":%b' % (statuses, times, ages, freshness)

    made: dict[tuple[Kind, int], bytes] = {}

    def end(column: FeatureColumn) -> bytes:
        # Beside the rest, which a column that is computed shares with those of the rows that it is computed from.
        if topics is None:
            return b"}"
        of = column.output.kind, column.output.source
        if of not in made:
            made[of] = b',"provenance":%b}' % encode(_provenance(column, found, topics))
        return made[of]

    rests = Rests(len(next(iter(entities.values()), ())), rest, absent=None)
    features = [
        b"%b%b%b%b" % (_begin(each.output), encode(_values(each)), rests.of(each), end(each)) for each in found.columns
    ]
    return b'{"entities":%b,"features":{%b}}' % (encode(entities), b",".join(features))


def _provenance(
    column: FeatureColumn, found: Found, topics: Mapping[bytes, str]
) -> Sequence[Mapping[str, object] | None]:
    """For each value the record that its row was made from; None where there is no row, and for what is computed."""
    return [
        None
        if stamp is None
        else {
            "topic": topic_of(stamp, topics),
            "incarnation": stamp.incarnation,
            "partition": stamp.partition,
            "offset": stamp.offset,
            "version": stamp.version,
        }
        for stamp in stamps(column, found)
    ]


@functools.lru_cache(maxsize=10_000)
def _begin_of(reference: str, type: str) -> bytes:
    return b'%b:{"type":%b,"values":' % (encode(reference), encode(type))


def _begin(output: Output) -> bytes:
    """What stands before the values of a column."""
    return _begin_of(output.reference, output.feature.type.name)


def answer_for_one(entity: RequestColumns, found: Found, topics: Mapping[bytes, str] | None = None) -> bytes:
    """One entity's features. topics: as for `answer`."""
    return encode(
        {
            "entity": {name: values[0] for name, values in entity.items()},
            "features": {column.output.reference: _one(column, found, topics) for column in found.columns},
        }
    )


def _one(column: FeatureColumn, found: Found, topics: Mapping[bytes, str] | None) -> dict[str, object]:
    at, freshness = column.event_times[0], _freshness(column)[0]
    told: dict[str, object] = {
        "type": column.output.feature.type.name,
        "value": _values(column)[0],
        "status": column.statuses[0].value,
        "event_time": None if at is None else instant(at),
        "age_s": age(at, found.at_us),
        "freshness": freshness and freshness.value,
    }
    return told if topics is None else {**told, "provenance": _provenance(column, found, topics)[0]}


def _freshness(column: FeatureColumn) -> Sequence[Freshness | None]:
    return column.freshness or [None] * len(column.values)


def _values(column: FeatureColumn) -> Sequence[Any]:
    # What is past its TTL is shown, and may be null as well.
    whole = column.statuses is present(len(column.values))
    return written(column.output.feature.type, column.values, instant, whole)


def error_body(error: Exception) -> bytes:
    """An error: what kind, by its name in `stillwell.errors`, which field, and what to do."""
    field = error.field if isinstance(error, RequestError) else None
    told: dict[str, object] = {"kind": type(error).__name__, "field": field, "message": str(error)}
    if isinstance(error, Behind):
        told |= {"lag": error.lag, "behind": error.offsets}
    if isinstance(error, NotWritten):
        told["token"] = error.token
    return encode({"error": told})
