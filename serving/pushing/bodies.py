"""What a request says is pushed: rows as columns or as objects, of our own interface and of Feast's.

    POST /v1/push                {"view": "Users", "rows": {"id": [1, 2], …} | [{"id": 1, …}, …],
                                  "to": "online_and_offline", "transform_on_write": true, "mode": "sync" | "async",
                                  "idempotency_key": "…"}
    POST /push                   {"push_source_name": "Users", "df": {"id": [1, 2], …}, "to": "online", …}
    POST /write-to-online-store  {"feature_view_name": "Users", "df": {"id": [1, 2], …}, …}

Each row becomes the JSON object of a record (`stillwell.pushing.record`), and is judged as such: nothing is looked at
here but its form. Feast's clients send times without a zone, which are in UTC, or as whole seconds since the epoch, and
columns that it keeps for itself: that is mended, for those paths alone.
"""

import dataclasses
import datetime
import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from serving.pushing.batch import Push
from stillwell.errors import RequestError
from stillwell.instants import EPOCH
from stillwell.pushing.record import To, final_topic, raw_topic
from stillwell.spec import ColumnSpec, Origin, ViewSpec
from stillwell.types import TIMESTAMP
from stillwell.wording import shorten

MOST_KEY_CHARACTERS = 256

_MOST_NAMED = 4 * 1024
"""Characters of the names of columns whose struct is made, and remembered: 250 of 16. A thousand names take 6 ms, in
which nobody else is answered, and whoever sends others each time has it made each time."""

Rows = dict[str, list[msgspec.Raw]] | list[msgspec.Raw]

Mode = Literal["sync", "async"]


class PushRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/push."""

    view: str
    rows: Rows
    to: To = To.BOTH
    transform_on_write: bool = True
    mode: Mode = "sync"
    idempotency_key: str | None = None


class FeastPushRequest(msgspec.Struct):
    """The body of Feast's POST /push, and what may be said beyond it. Other words change nothing, and are let pass."""

    push_source_name: str
    df: dict[str, list[Any]]
    to: To = To.ONLINE
    transform_on_write: bool | None = None
    mode: Mode = "sync"
    idempotency_key: str | None = None


class FeastWriteRequest(msgspec.Struct):
    """The body of Feast's POST /write-to-online-store."""

    feature_view_name: str
    df: dict[str, list[Any]]
    transform_on_write: bool | None = None


push_request = msgspec.json.Decoder(PushRequest)
feast_push_request = msgspec.json.Decoder(FeastPushRequest)
feast_write_request = msgspec.json.Decoder(FeastWriteRequest)

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def own(asked: PushRequest, most_rows: int) -> Push:
    """What a request of our own interface pushes. Raises RequestError."""
    return Push(
        view=asked.view,
        values=_values(asked.rows, "rows", most_rows),
        transform=asked.transform_on_write,
        to=asked.to,
        idempotency_key=_key(asked.idempotency_key),
        whole=asked.mode == "async",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class RowColumns:
    """The columns that rows of one view may have, by name: those of its events, and those of final rows."""

    view: ViewSpec
    raw: Mapping[str, ColumnSpec]
    final: Mapping[str, ColumnSpec]

    @classmethod
    def of(cls, view: ViewSpec) -> Self:
        """A view's."""
        return cls(
            view,
            {each.name: each for each in raw_topic("", view).columns if each.origin is Origin.VALUE},
            {each.name: each for each in final_topic("", view).columns},
        )

    def fit_raw(self, names: Collection[str]) -> bool:
        """Whether rows of these columns can be events of the view's topic: which they are, where nobody says so."""
        given = {*names} - ({_CREATED} - self.raw.keys())
        needed = {name for name, column in self.raw.items() if not column.nullable}
        return bool(self.raw) and needed <= given <= self.raw.keys()


def of_feast(asked: FeastPushRequest, columns: RowColumns, most_rows: int) -> Push:
    """What a request to Feast's /push pushes: events, where its columns can be those of events. Raises RequestError."""
    transform = asked.transform_on_write is not False and columns.fit_raw(asked.df)
    values = _values(_mended(asked.df, columns, transform), "df", most_rows)
    return Push(columns.view.name, values, transform, asked.to, _key(asked.idempotency_key), whole=True)


def written_by_feast(asked: FeastWriteRequest, columns: RowColumns, most_rows: int) -> Push:
    """What a request to Feast's /write-to-online-store pushes: unless it says so, features that a client has computed.

    Raises RequestError.
    """
    transform = asked.transform_on_write is True and columns.fit_raw(asked.df)
    values = _values(_mended(asked.df, columns, transform), "df", most_rows)
    return Push(columns.view.name, values, transform, To.ONLINE, whole=True)


def _key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise RequestError("idempotency_key", f"must have 1 to {MOST_KEY_CHARACTERS} characters, not {len(key)}")
    return key


def _values(rows: Mapping[str, Sequence[Any]] | Sequence[msgspec.Raw], field: str, most: int) -> list[bytes]:
    """Each row's JSON."""
    if not isinstance(rows, Mapping):
        _require_few(field, len(rows), most)
        values = [bytes(row) for row in rows]
        for number, value in enumerate(values):
            if not value.startswith(b"{"):
                raise RequestError(
                    f"{field}[{number}]", f"must be an object with the row's columns, not {value[:40]!r}"
                )
        return values
    lengths = {name: len(column) for name, column in rows.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{shorten(name)} has {length}" for name, length in list(lengths.items())[:20])
        raise RequestError(field, f"every column must have a value for each row; {shown}")
    count = next(iter(lengths.values()), 0)
    _require_few(field, count, most)
    names = tuple(rows)
    make = _row_of(names) if sum(map(len, names)) <= _MOST_NAMED else _dictionary_of(names)
    objects = list(map(make, *rows.values()))
    lines = _encode_lines(objects).split(b"\n")[:-1]  # in one call, which takes two thirds of the time
    # A value that stays as it came may have line breaks of its own.
    return lines if len(lines) == count else list(map(_encode, objects))


@functools.lru_cache(maxsize=64)
def _row_of(names: tuple[str, ...]) -> Callable[..., object]:
    """Makes a row with a value for each of these names. A struct is made, and written, in a sixth of the time that a
    dictionary takes."""
    fields = [(f"f{number}", Any, msgspec.field(name=name)) for number, name in enumerate(names)]
    try:
        return msgspec.defstruct("Row", fields, gc=False)
    except ValueError:  # a name that JSON has to escape
        return _dictionary_of(names)


def _dictionary_of(names: tuple[str, ...]) -> Callable[..., object]:
    return lambda *values: dict(zip(names, values, strict=True))


def _require_few(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        said = "is without rows" if not count else f"has {count} rows; at most {most} are allowed: push in parts"
        raise RequestError(field, said)


# ---- what Feast's clients send ----

_CREATED = "created"
"""When Feast took a row in. Its remote client always sends it; here the record's timestamp tells that."""

_NAIVE = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)", re.ASCII)

_IN_UTC = ("Z", "+00:00")
"""How texts end that have a zone, mostly: they are told from others in a fifth of the time that a pattern takes."""


def _mended(df: Mapping[str, list[Any]], of_view: RowColumns, transform: bool) -> dict[str, list[Any]]:
    """The columns with zones and without what Feast keeps for itself; the event time may be called as in the topic."""
    specs = of_view.raw if transform else of_view.final
    columns = dict(df)
    if _CREATED not in specs:
        columns.pop(_CREATED, None)
    event_time = of_view.view.source.event_time
    if not transform and "event_timestamp" not in columns and event_time in columns and event_time not in specs:
        columns["event_timestamp"] = columns.pop(event_time)
    if transform and event_time not in columns and "event_timestamp" in columns and event_time in specs:
        columns[event_time] = columns.pop("event_timestamp")
    for name, column in columns.items():
        spec = specs.get(name)
        if spec is not None and spec.type.scalar is TIMESTAMP and spec.unit is None:
            columns[name] = [
                value if type(value) is str and value.endswith(_IN_UTC) else _time(value) for value in column
            ]
    return columns


def _time(value: Any) -> Any:
    """As ISO-8601 with a zone, in a list too; what is no time stays as it is, to be refused."""
    if type(value) is list:
        return list(map(_time, value))
    if type(value) is int:
        try:
            return (EPOCH + datetime.timedelta(seconds=value)).isoformat()
        except OverflowError:
            return value
    if isinstance(value, str) and (match := _NAIVE.fullmatch(value)):
        clock = match[2] if match[2].count(":") == 2 else f"{match[2]}:00"
        return f"{match[1]}T{clock}Z"
    return value
