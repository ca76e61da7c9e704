"""What becomes of the records of a push topic: raw events as the view transforms them, final rows as they are.

The same as `stillwell.pipeline.Pipeline` to whoever runs it: pure, of one record at a time in effect, with an account
that adds up. The rows have one column more, `_to`.

A record may say that it is of another version of the view: while definitions are rolled out, a query service of that
version may have pushed it, and have written its row to Redis. It is taken without the fields that this version does not
have: to refuse it would leave a row in Redis that no file has.
"""

import collections
import dataclasses
import datetime
import enum
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.broken import Broken, RuleId
from stillwell.errors import DefinitionError
from stillwell.layout.parquet import TO, TO_TYPE
from stillwell.pipeline import Pipeline
from stillwell.pushing.record import TRANSFORM, Head, To, final_topic, head_of, raw_topic
from stillwell.records import Headers, Outcome, Records, Reject, ViewRows
from stillwell.spec import TopicSpec, ViewSpec


class _Kind(enum.IntEnum):
    """What a record is, in the order in which the kinds are worked on."""

    FINAL = enum.auto()
    RAW = enum.auto()
    FINAL_OF_OTHER = enum.auto()
    RAW_OF_OTHER = enum.auto()


_CODES = {To(word): code for code, word in enumerate(TO_TYPE.categories)}
_ALIKE = [pl.Series(TO, [word], dtype=TO_TYPE) for word in TO_TYPE.categories]


class PushPipeline:
    """Everything that is done to the records of one view's push topic. Safe to use from any thread."""

    pushed = True

    def __init__(
        self, project: str, view: ViewSpec, *, max_future: datetime.timedelta = datetime.timedelta(hours=1)
    ) -> None:
        """A view of a topic without columns takes final rows alone. Raises DefinitionError for a view that cannot be
        computed."""
        self.topic: TopicSpec = final_topic(project, view)
        self.views: tuple[ViewSpec, ...] = (view,)
        self._project = project
        self._max_future = max_future
        self._final = self._final_pipeline(closed=True)
        self._raw = self._raw_pipeline(closed=True)

    @property
    def rules(self) -> tuple[RuleId, ...]:
        """The rules that raw events may break; there is none on final rows."""
        return self._raw.rules if self._raw else ()

    def run(self, records: Records) -> Outcome:
        """Rows for the view, and a reject for each record that gives none by mistake."""
        sorted_out = _SortedOut(records)
        for headers, begin, end in _spans(records.headers):
            try:
                head = head_of(headers)
            except ValueError as error:
                for place in range(begin, end):
                    sorted_out.reject(place, str(error))
            else:
                self._sort_out(head, begin, end, records.values, sorted_out)
        # Half a millisecond each, however few records there are: seldom are several kinds in one batch.
        outcomes = [self._pipeline(kind).run(sorted_out.records_of(kind)) for kind in sorted_out.kinds]
        return sorted_out.merged(outcomes)

    def check(self, events: Records) -> tuple[Reject, ...]:
        """A reject for each of these raw events, of this version of the view, that is no event of its topic: what `run`
        finds before it computes anything of the view."""
        if self._raw is None:
            return self.run(events).rejects
        return self._raw.check(events)

    def _sort_out(
        self, head: Head, begin: int, end: int, values: Sequence[bytes | None], sorted_out: "_SortedOut"
    ) -> None:
        """See what records of one head are."""
        if head.transform and self._raw is None:
            for place in range(begin, end):
                sorted_out.reject(place, f"header {TRANSFORM}: {self.views[0].name} takes final rows alone, got `true`")
        elif head.version in (None, self.views[0].version):
            sorted_out.take(_Kind.RAW if head.transform else _Kind.FINAL, begin, head.to, values[begin:end])
        else:
            for place in range(begin, end):
                kind = self._kind_of_other(head, values[place])
                takes_raw = kind is _Kind.RAW_OF_OTHER and not head.transform
                sorted_out.take(kind, place, head.to, [head.raw if takes_raw else values[place]])

    def _kind_of_other(self, head: Head, value: bytes | None) -> _Kind:
        """Of a record that says that it is of another version."""
        if value is None:
            return _Kind.RAW if head.transform else _Kind.FINAL
        if head.transform:
            return _Kind.RAW_OF_OTHER
        return _Kind.FINAL_OF_OTHER if head.raw is None or self._raw is None else _Kind.RAW_OF_OTHER

    def _pipeline(self, kind: _Kind) -> Pipeline:
        match kind:
            case _Kind.FINAL:
                return self._final
            case _Kind.FINAL_OF_OTHER:
                return self._final_of_other
            case _Kind.RAW_OF_OTHER:
                return _there(self._raw_of_other)
        return _there(self._raw)

    @functools.cached_property
    def _final_of_other(self) -> Pipeline:
        return self._final_pipeline(closed=False)

    @functools.cached_property
    def _raw_of_other(self) -> Pipeline | None:
        return self._raw_pipeline(closed=False)

    def _final_pipeline(self, *, closed: bool) -> Pipeline:
        topic = self.topic.model_copy(update={"closed": closed})
        return Pipeline(topic, (_as_it_is(self.views[0], topic),), self._max_future)

    def _raw_pipeline(self, *, closed: bool) -> Pipeline | None:
        (view,) = self.views
        if not view.source.columns:
            return None
        if view.function is None and any(feature.expression is None for feature in view.features):
            raise DefinitionError(f"view {view.name}: a feature has no expression, so that nothing can be computed")
        topic = raw_topic(self._project, view).model_copy(update={"closed": closed})
        return Pipeline(topic, (view.model_copy(update={"source": topic}),), self._max_future)


def _there(pipeline: Pipeline | None) -> Pipeline:
    """No record comes to one that is not."""
    assert pipeline is not None
    return pipeline


def _spans(headers: Sequence[Headers]) -> Iterator[tuple[Headers, int, int]]:
    """Each span of records with one and the same headers, as a query service gives them to all rows of a push."""
    begin = 0
    while begin < len(headers):
        here, end = headers[begin], begin + 1
        while end < len(headers) and headers[end] is here:
            end += 1
        yield here, begin, end
        begin = end


class _SortedOut:
    """The records of a batch by what they are; where their rows go; and one outcome again."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._rejects: list[Reject] = []
        self._places: dict[_Kind, list[int]] = collections.defaultdict(list)
        self._values: dict[_Kind, list[bytes | None]] = collections.defaultdict(list)
        self._to: npt.NDArray[np.uint8] = np.zeros(len(records), np.uint8)

    @property
    def kinds(self) -> list[_Kind]:
        """Those that there are; of no records at all, one."""
        return sorted(self._places) or [_Kind.FINAL]

    def reject(self, place: int, error: str) -> None:
        self._rejects.append(Reject(int(self._records.offsets[place]), None, "decode", error))

    def take(self, kind: _Kind, begin: int, to: To, values: Sequence[bytes | None]) -> None:
        """Some records, one behind the other."""
        places, code = self._places[kind], _CODES[to]
        self._values[kind] += values
        if len(values) == 1:
            places.append(begin)
            self._to[begin] = code
        else:
            end = begin + len(values)
            places += range(begin, end)
            self._to[begin:end] = code

    def records_of(self, kind: _Kind) -> Records:
        places, values = self._places.get(kind, []), self._values.get(kind, [])
        if kind is not _Kind.RAW_OF_OTHER and len(places) == len(self._records):
            return self._records
        return self._at(places, values)

    def merged(self, outcomes: Sequence[Outcome]) -> Outcome:
        of_each = [outcome.rows[0] for outcome in outcomes]
        rejects = [*self._rejects, *(reject for outcome in outcomes for reject in outcome.rejects)]
        rejects.sort(key=lambda reject: reject.offset)
        frames = [rows.frame for rows in of_each if rows.frame.height] or [of_each[0].frame]
        frame = frames[0] if len(frames) == 1 else pl.concat(frames).sort("_offset", "_row")
        rows = ViewRows(
            view=of_each[0].view,
            version=of_each[0].version,
            frame=self._with_to(frame),
            offsets_with_rows=sum(rows.offsets_with_rows for rows in of_each),
            filtered=sum(rows.filtered for rows in of_each),
            rejected=len(self._rejects) + sum(rows.rejected for rows in of_each),
        )
        return Outcome(self._records, (rows,), tuple(rejects), _together(outcomes))

    def _with_to(self, frame: pl.DataFrame) -> pl.DataFrame:
        places = np.searchsorted(self._records.offsets, frame.get_column("_offset").to_numpy())
        codes = self._to[places]
        if codes.size and (codes == codes[0]).all():  # as nearly always; else a query is planned
            return frame.hstack([_ALIKE[codes[0]].new_from_index(0, codes.size)])
        return frame.hstack([pl.Series(TO, codes).cat.to(TO_TYPE)])

    def _at(self, places: Sequence[int], values: Sequence[bytes | None]) -> Records:
        records = self._records
        return dataclasses.replace(
            records,
            offsets=records.offsets[list(places)],
            timestamps=records.timestamps[list(places)],
            keys=[records.keys[place] for place in places],
            values=values,
            headers=[records.headers[place] for place in places],
        )


def _together(outcomes: Sequence[Outcome]) -> tuple[Broken, ...]:
    """The rules that were broken, each once: raw events of this version and of others go by the same."""
    found: dict[RuleId, Broken] = {}
    for each in (broken for outcome in outcomes for broken in outcome.broken):
        other = found.get(each.rule, each)
        count = each.count if other is each else each.count + other.count
        found[each.rule] = dataclasses.replace(min(each, other, key=lambda broken: broken.offset), count=count)
    return tuple(found.values())


def _as_it_is(view: ViewSpec, topic: TopicSpec) -> ViewSpec:
    """A view that takes its rows from columns of their own."""

    def itself(name: str) -> pl.Expr:
        return pl.col(f"{topic.name}.{name}")

    features = (feature.model_copy(update={"expression": itself(feature.name)}) for feature in view.features)
    return view.model_copy(
        update={
            "source": topic,
            "keys": tuple(itself(key.name) for key in view.entity.keys),
            "features": tuple(features),
            "where": None,
            "rows": None,
            "frame": None,
        }
    )
