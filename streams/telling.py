"""What becomes of batches, told in lines of JSON: for who shows a person what flows (`stillwell dev`).

The first line says what there is to be told of, every other one what became of a round of batches of one topic:

    {"views": {<view>: {"topic": <Kafka's>, "causes": {<reason>: <what it mostly is>}, "too_old": <what it mostly is>}}}
    {"topic": …, "records": n, "views": {<view>: {"rows": n, "too_old": n, "filtered": n, "rejected": n,
     "sample": [row, …]}}, "reasons": {<view, or * for all>: {<reason>: n}}, "rejects": [reject, …]}

Too old are rows that have outlived their view's TTL. A row has its columns and where its record is, `_partition` and
`_offset`; a reject has `partition`, `offset`, `view`, `reason`, `error` and `excerpt`. Of both there are some, so that
a person can read along, whatever comes.

Who reads too slowly, or not at all, holds nothing up: rounds of a topic that come meanwhile are told as one. Who has
gone is told nothing more.
"""

import datetime
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from stillwell.instants import now
from stillwell.layout.parquet import EVENT_TIMESTAMP, ViewTable
from stillwell.rowless import causes, counts_from, why_too_old
from stillwell.spec import ViewSpec
from streams.prepare import Prepared

SAMPLE = 5
"""Rows of a view, and rejects, that are told of one round."""

_EXCERPT = 200
"""Bytes of a rejected record's value."""

_PLACE = ("_partition", "_offset")

_FAREWELL_S = 2.0
"""For the last lines, when the worker ends and somebody reads them."""

_log = structlog.get_logger(__name__)

_Line = dict[str, Any]


class Telling:
    """Writes the lines, in a thread of its own, from `with Telling(…) as told:` on."""

    def __init__(
        self,
        out: BinaryIO,
        topics: Mapping[str, Sequence[ViewSpec]],
        clock: Callable[[], datetime.datetime] = now,
    ) -> None:
        """out: without a buffer, whose lock a thread that hangs would hold when Python ends. topics: Kafka's name of
        each topic, and the views that are computed from it. clock: by which rows are too old."""
        self._out = out
        self._clock = clock
        self._told = threading.Condition()
        self._waiting: dict[str, _Line] = {}
        """What is not written yet: one line for each topic at most, and the first line under no topic's name."""
        self._ended = self._gone = False
        self._writing = threading.Thread(target=self._write, name="telling", daemon=True)
        self._views: dict[str, ViewSpec] = {}
        views: dict[str, dict[str, object]] = {}
        for topic, of in topics.items():
            for view in of:  # that of its source comes before that of its pushes
                self._views.setdefault(view.name, view)
                views.setdefault(view.name, {"topic": topic, "causes": causes(view), "too_old": why_too_old(view)})
        self._waiting[""] = {"views": views}

    def __enter__(self) -> Self:
        self._writing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what waits, unless nobody reads it."""
        with self._told:
            self._ended = True
            self._told.notify()
        self._writing.join(_FAREWELL_S)

    def __call__(self, topic: str, prepared: Sequence[Prepared]) -> None:
        """A round of batches of one topic."""
        if self._gone:
            return
        line = _line(topic, prepared, self._views, self._clock())
        with self._told:
            waiting = self._waiting.get(topic)
            self._waiting[topic] = line if waiting is None else _together(waiting, line)
            self._told.notify()

    def _write(self) -> None:
        """Until all is told, or nobody is there any more."""
        try:
            while lines := self._next():
                for line in lines:
                    left = memoryview(msgspec.json.encode(line) + b"\n")
                    while left:
                        left = left[self._out.write(left) :]
        except OSError as error:
            self._gone = True
            _log.warning("nobody reads what becomes of records; nothing more is told", error=repr(error))

    def _next(self) -> list[_Line]:
        """What waits, as soon as anything does; nothing once all is told."""
        with self._told:
            self._told.wait_for(lambda: self._waiting or self._ended)
            lines = list(self._waiting.values())
            self._waiting.clear()
        return lines


def _line(topic: str, prepared: Sequence[Prepared], views: Mapping[str, ViewSpec], instant: datetime.datetime) -> _Line:
    reasons: dict[str, Counter[str]] = {}
    for reject in itertools.chain.from_iterable(each.rejects for each in prepared):
        reasons.setdefault(reject.view or "*", Counter())[reject.reason] += 1
    return {
        "topic": topic,
        "records": sum(each.tables.raw.num_rows for each in prepared),
        "views": {tables[0].view: _view(tables, views[tables[0].view], instant) for tables in _by_view(prepared)},
        "reasons": reasons,
        "rejects": list(itertools.islice(_rejects(prepared), SAMPLE)),
    }


def _together(one: Any, other: Any) -> Any:
    """Two lines of one topic, or parts of them, as one: counts are added up, samples and rejects are the first ones."""
    match one:
        case int():
            return one + other
        case list():
            return [*one, *other][:SAMPLE]
        case dict():
            return one | other | {name: _together(one[name], other[name]) for name in one.keys() & other.keys()}
    return one


def _by_view(prepared: Sequence[Prepared]) -> Iterator[tuple[ViewTable, ...]]:
    return zip(*(each.tables.views for each in prepared), strict=True)


def _view(tables: Sequence[ViewTable], view: ViewSpec, instant: datetime.datetime) -> dict[str, object]:
    oldest = counts_from(view, instant)
    rows = itertools.chain.from_iterable(each.table.slice(0, SAMPLE).to_pylist() for each in tables)
    return {
        "rows": sum(each.table.num_rows for each in tables),
        "too_old": sum(_before(oldest, each.table) for each in tables),
        "filtered": sum(each.filtered for each in tables),
        "rejected": sum(each.rejected for each in tables),
        "sample": [_row(row) for row in itertools.islice(rows, SAMPLE)],
    }


def _before(oldest: datetime.datetime | None, rows: pa.Table) -> int:
    """How many rows are of events before the oldest that counts; none where each does."""
    if oldest is None:
        return 0
    return pc.sum(pc.less(rows.column(EVENT_TIMESTAMP), oldest)).as_py() or 0


def _row(row: Mapping[str, object]) -> dict[str, object]:
    """What the view computed, and where its record is; not the rest of the row's coordinates."""
    return {name: value for name, value in row.items() if name in _PLACE or not name.startswith("_")}


def _rejects(prepared: Sequence[Prepared]) -> Iterator[dict[str, object]]:
    for each in prepared:
        if each.letters is None:
            continue
        records = each.letters.outcome.records
        values = dict(zip(records.offsets.tolist(), records.values, strict=True))
        for reject in each.rejects:
            yield {
                "partition": records.partition,
                "offset": reject.offset,
                "view": reject.view,
                "reason": reject.reason,
                "error": reject.error,
                "excerpt": (values[reject.offset] or b"")[:_EXCERPT].decode(errors="backslashreplace"),
            }
