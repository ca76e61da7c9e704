"""The interface of Feast's feature server: what its clients send, and what they understand.

    POST /get-online-features   {"features": ["view:feature", …], "entities": {"key": […]}, "full_feature_names": false}

The answer is columnar: the entities' keys first, then the features, each with a value, a status and an event time for
every entity, in the order of the request. A value is null unless it is PRESENT: what is past its TTL is not handed out
to clients of which many do not look at the status. Timestamps are whole seconds since the epoch, as Feast's are.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from serving.as_json import Rests, all_present, encode, written
from stillwell.errors import NotDefined, RequestError
from stillwell.instants import SECOND_US, instant
from stillwell.reading.entities import RequestColumns
from stillwell.reading.features import FeatureColumn, Found, present
from stillwell.reading.plan import Plan
from stillwell.reading.status import Status
from stillwell.reading.whole import Whole
from stillwell.wording import shorten

_SEARCHED = (
    "searches by likeness, and Stillwell looks vectors up by their keys alone: leave it to a store that searches"
)
_MATERIALIZED = "copies rows from offline to online, and here workers write both as events come: leave the call out"

NOT_ANSWERED: Final[Mapping[str, str]] = {
    "/search": _SEARCHED,
    "/retrieve-online-documents": _SEARCHED,
    "/materialize": _MATERIALIZED,
    "/materialize-incremental": _MATERIALIZED,
}
"""What else is posted to Feast's feature server, and why there is no answer to it here."""


class OnlineFeaturesRequest(msgspec.Struct):
    """The body of /get-online-features. Words that Feast's clients add, and that change nothing here, are let pass."""

    entities: dict[str, list[Any]]
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False


online_features_request = msgspec.json.Decoder(OnlineFeaturesRequest)


class AskedAlike(msgspec.Struct):
    """The same, as far as it tells whether somebody has asked for the same before: to read the names of fifty features
    takes longer than to compare their text with what was asked then."""

    entities: dict[str, list[Any]]
    features: msgspec.Raw = msgspec.Raw(b"[]")
    feature_service: str | None = None
    full_feature_names: bool = False


asked_alike = msgspec.json.Decoder(AskedAlike)


def names_of(plan: Plan, entities: RequestColumns, full_feature_names: bool) -> list[str]:
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


def answer(names: bytes, entities: RequestColumns, found: Found) -> bytes:
    """The body of an answer. names: of its columns, in JSON."""
    count = len(next(iter(entities.values()), ()))
    results = [b'{"values":%b%b' % (encode(column), _rest_of_keys(count)) for column in entities.values()]
    if found.whole is None or (whole := _of_whole(found.plan, found.whole, count)) is None:
        rests, all_there = Rests(count, _rest, absent=instant(0)), present(count)
        results += [b'{"values":%b%b' % (encode(_values(each, all_there)), rests.of(each)) for each in found.columns]
    else:
        results.append(whole)
    return b'{"metadata":{"feature_names":%b},"results":[%b]}' % (names, b",".join(results))


def _of_whole(plan: Plan, whole: Whole, count: int) -> bytes | None:
    """The columns of what is whole; None where a value cannot be written as it is.

    What stands between the values of two columns is the same for all that share their event times, as views of one
    topic mostly do: it is made once.
    """
    if not plan.plain:
        return None
    if count == 1 and (written := _of_one_entity(whole)) is not None:
        return written
    end, begin = (b"]", b'{"values":[') if count == 1 else (b"", b'{"values":')
    behind = {
        times: b'%b,"statuses":%b,"event_timestamps":%b},%b'
        % (end, all_present(count), encode([instant(us) for us in times]), begin)
        for times in set(whole.event_times)
    }
    values = list(map(encode, whole.values))
    if len(behind) == 1:
        (rest,) = behind.values()
        written = rest.join([*values, b""])
    else:
        pieces = [b""] * (2 * len(values))
        pieces[::2] = values
        pieces[1::2] = [behind[whole.event_times[source]] for source in plan.sources]
        written = b"".join(pieces)
    # A float that JSON cannot write comes as null. A text may say so too, and takes the longer way for nothing.
    return None if b"null" in written else begin + written[: -1 - len(begin)]


def _of_one_entity(whole: Whole) -> bytes | None:
    """The same of one entity, whose rows have one event time: all values are written at once, and what stands between
    two of them comes in the place of the comma. None where that is not so, or a text has a comma."""
    if not whole.alike:
        return None
    values = encode(whole.values)
    if values.count(b",") != len(whole.values) - 1 or b"null" in values:
        return None
    rest = b'],"statuses":["PRESENT"],"event_timestamps":[%b]}' % encode(instant(whole.event_times[0][0]))
    return b'{"values":[%b%b' % (values[1:-1].replace(b",", rest + b',{"values":['), rest)


def _rest(column: FeatureColumn | None, statuses: bytes, times: bytes) -> bytes:
    return b',"statuses":%b,"event_timestamps":%b}' % (statuses, times)


def _values(column: FeatureColumn, whole: Sequence[Status]) -> Sequence[Any]:
    values = column.values
    if column.statuses is whole:
        return written(column.output.feature.type, values, _seconds, whole=True)
    shown = [value if status is Status.PRESENT else None for value, status in zip(values, column.statuses, strict=True)]
    return written(column.output.feature.type, shown, _seconds, whole=False)


def _seconds(us: int) -> int:
    return us // SECOND_US


def error_body(error: Exception) -> bytes:
    """An error as Feast's clients read it: JSON in a JSON text, with the class that they are to raise."""
    kind = "FeatureViewNotFoundException" if isinstance(error, NotDefined) else "FeastError"
    return encode(json.dumps({"module": "feast.errors", "class": kind, "message": str(error)}))
