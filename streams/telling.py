"""What becomes of batches, told in lines of JSON: for who shows a person what flows (`stillwell dev`).

The first line says what there is to be told of, every other one what became of a round of batches of one topic:

    {"views": {<view>: {"topic": <Kafka's>, "causes": {<reason>: <what it mostly is>}}}}
    {"topic": …, "records": n, "views": {<view>: {"rows": n, "filtered": n, "rejected": n, "sample": [row, …]}},
     "reasons": {<view, or * for all>: {<reason>: n}}, "rejects": [reject, …]}

A row has its columns and where its record is, `_partition` and `_offset`; a reject has `partition`, `offset`, `view`,
`reason`, `error` and `excerpt`. Of both there are some, so that a person can read along, whatever comes.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import msgspec

from stillwell.layout.parquet import ViewTable
from stillwell.rowless import causes
from stillwell.spec import ViewSpec
from streams.prepare import Prepared

SAMPLE = 5
"""Rows of a view, and rejects, that are told of one round."""

_EXCERPT = 200
"""Bytes of a rejected record's value."""

_PLACE = ("_partition", "_offset")


class Telling:
    """Writes the lines. For the worker's loop, which it holds up for as long as nobody reads them."""

    def __init__(self, out: BinaryIO, topics: Mapping[str, Sequence[ViewSpec]]) -> None:
        """topics: Kafka's name of each topic, and the views that are computed from it."""
        self._out = out
        views: dict[str, dict[str, object]] = {}
        for topic, of in topics.items():
            for view in of:  # that of its source comes before that of its pushes
                views.setdefault(view.name, {"topic": topic, "causes": causes(view)})
        self._write({"views": views})

    def __call__(self, topic: str, prepared: Sequence[Prepared]) -> None:
        """A round of batches of one topic."""
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for reject in itertools.chain.from_iterable(each.rejects for each in prepared):
            reasons[reject.view or "*"][reject.reason] += 1
        self._write(
            {
                "topic": topic,
                "records": sum(each.tables.raw.num_rows for each in prepared),
                "views": {tables[0].view: _view(tables) for tables in _by_view(prepared)},
                "reasons": reasons,
                "rejects": list(itertools.islice(_rejects(prepared), SAMPLE)),
            }
        )

    def _write(self, line: Mapping[str, object]) -> None:
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


def _by_view(prepared: Sequence[Prepared]) -> Iterator[tuple[ViewTable, ...]]:
    return zip(*(each.tables.views for each in prepared), strict=True)


def _view(tables: Sequence[ViewTable]) -> dict[str, object]:
    rows = itertools.chain.from_iterable(each.table.slice(0, SAMPLE).to_pylist() for each in tables)
    return {
        "rows": sum(each.table.num_rows for each in tables),
        "filtered": sum(each.filtered for each in tables),
        "rejected": sum(each.rejected for each in tables),
        "sample": [_row(row) for row in itertools.islice(rows, SAMPLE)],
    }


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
