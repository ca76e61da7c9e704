"""The interface of Feast's feature server: what its clients send, and what they understand.

    POST /get-online-features   {"features": ["view:feature", …], "entities": {"key": […]}, "full_feature_names": false}

The answer is columnar: the entities' keys first, then the features, each with a value, a status and an event time for
every entity, in the order of the request. A value is null unless it is PRESENT: what is past its TTL is not handed out
to clients of which many do not look at the status. Timestamps are whole seconds since the epoch, as Feast's are.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from serving.answers import Rests, all_present, encode, instant, written
from stillwell.errors import NotDefined, RequestError
from stillwell.reading.entities import Columns
from stillwell.reading.features import FeatureColumn, present
from stillwell.reading.query import Plan
from stillwell.reading.status import Status
from stillwell.wording import shorten

_SECOND_US = 1_000_000


class OnlineFeaturesRequest(msgspec.Struct):
    """The body of /get-online-features. Words that Feast's clients add, and that change nothing here, are let pass."""

    entities: dict[str, list[Any]]
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False


online_features_request = msgspec.json.Decoder(OnlineFeaturesRequest)


def names_of(plan: Plan, entities: Columns, full_feature_names: bool) -> list[str]:
    """What the columns of the answer are called. Raises RequestError where two features would have one name."""
    if full_feature_names:
        features = [f"{output.view}__{output.name}" for output in plan.outputs]
    else:
        features = [output.name for output in plan.outputs]
    names = [*entities, *features]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise RequestError(
            "features", f"two columns of the answer would be called {shorten(twice)!r}; set full_feature_names to true"
        )
    return names


@functools.lru_cache(maxsize=256)
def _rest_of_keys(count: int) -> bytes:
    return _rest(None, all_present(count), encode([instant(0)] * count))


def answer(names: bytes, entities: Columns, columns: list[FeatureColumn]) -> bytes:
    """The body of an answer. names: of its columns, in JSON."""
    count = len(next(iter(entities.values()), ()))
    rests, whole = Rests(count, _rest, absent=instant(0)), present(count)
    results = [b'{"values":%b%b' % (encode(column), _rest_of_keys(count)) for column in entities.values()]
    results += [b'{"values":%b%b' % (encode(_values(column, whole)), rests.of(column)) for column in columns]
    return b'{"metadata":{"feature_names":%b},"results":[%b]}' % (names, b",".join(results))


def _rest(column: FeatureColumn | None, statuses: bytes, times: bytes) -> bytes:
    return b',"statuses":%b,"event_timestamps":%b}' % (statuses, times)


def _values(column: FeatureColumn, whole: Sequence[Status]) -> Sequence[Any]:
    values = column.values
    if column.statuses is whole:
        return written(column.output.feature.type, values, _seconds, whole=True)
    shown = [value if status is Status.PRESENT else None for value, status in zip(values, column.statuses, strict=True)]
    return written(column.output.feature.type, shown, _seconds, whole=False)


def _seconds(us: int) -> int:
    return us // _SECOND_US


def error_body(error: Exception) -> bytes:
    """An error as Feast's clients read it: JSON in a JSON text, with the class that they are to raise."""
    kind = "FeatureViewNotFoundException" if isinstance(error, NotDefined) else "FeastError"
    return encode(json.dumps({"module": "feast.errors", "class": kind, "message": str(error)}))
