"""What becomes of the records of a push topic: raw events as the view transforms them, final rows as they are.

The same as `stillwell.pipeline.Pipeline` to whoever runs it: pure, of one record at a time in effect, with an account
that adds up. The rows have one column more, `_to`.
"""

import dataclasses
import datetime
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.errors import DefinitionError
from stillwell.layout.parquet import TO, TO_TYPE
from stillwell.pipeline import Pipeline
from stillwell.pushing.record import TRANSFORM, To, final_topic, head_of, raw_topic
from stillwell.records import Outcome, Records, Reject, ViewRows
from stillwell.spec import TopicSpec, ViewSpec

_CODES = {To(word): code for code, word in enumerate(TO_TYPE.categories)}


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
        self._version = view.version
        self._final = Pipeline(self.topic, (_as_it_is(view, self.topic),), max_future)
        self._raw = _raw_pipeline(project, view, max_future)

    def run(self, records: Records) -> Outcome:
        """Rows for the view, and a reject for each record that gives none by mistake."""
        sorted_out = _SortedOut(records)
        for place, (headers, value) in enumerate(zip(records.headers, records.values, strict=True)):
            try:
                head = head_of(headers)
            except ValueError as error:
                sorted_out.reject(place, str(error))
                continue
            if not head.transform and (value is None or head.raw is None or head.version in (None, self._version)):
                sorted_out.final(place, head.to)
            elif self._raw is None:
                sorted_out.reject(place, f"header {TRANSFORM}: {self.views[0].name} takes final rows alone, got `true`")
            else:
                sorted_out.raw(place, head.to, value if head.transform else head.raw)
        # Half a millisecond each, however few records there are: seldom are both forms in one batch.
        outcomes = [self._raw.run(sorted_out.raw_records())] if self._raw is not None and sorted_out.has_raw else []
        if sorted_out.has_final or not outcomes:
            outcomes.insert(0, self._final.run(sorted_out.final_records()))
        return sorted_out.merged(outcomes)


class _SortedOut:
    """The records of a batch by what they are; where their rows go; and one outcome again."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._rejects: list[Reject] = []
        self._final: list[int] = []
        self._raw: list[int] = []
        self._raw_values: list[bytes | None] = []
        self._to: npt.NDArray[np.uint8] = np.zeros(len(records), np.uint8)

    @property
    def has_raw(self) -> bool:
        return bool(self._raw)

    @property
    def has_final(self) -> bool:
        return bool(self._final)

    def reject(self, place: int, error: str) -> None:
        self._rejects.append(Reject(int(self._records.offsets[place]), None, "decode", error))

    def final(self, place: int, to: To) -> None:
        self._final.append(place)
        self._to[place] = _CODES[to]

    def raw(self, place: int, to: To, value: bytes | None) -> None:
        self._raw.append(place)
        self._raw_values.append(value)
        self._to[place] = _CODES[to]

    def final_records(self) -> Records:
        if len(self._final) == len(self._records):
            return self._records
        return self._at(self._final, [self._records.values[place] for place in self._final])

    def raw_records(self) -> Records:
        return self._at(self._raw, self._raw_values)

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
        return Outcome(self._records, (rows,), tuple(rejects))

    def _with_to(self, frame: pl.DataFrame) -> pl.DataFrame:
        places = np.searchsorted(self._records.offsets, frame.get_column("_offset").to_numpy())
        return frame.hstack([pl.Series(TO, self._to[places]).cat.to(TO_TYPE)])

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
        }
    )


def _raw_pipeline(project: str, view: ViewSpec, max_future: datetime.timedelta) -> Pipeline | None:
    if not view.source.columns:
        return None
    if view.rows is None and any(feature.expression is None for feature in view.features):
        raise DefinitionError(f"view {view.name}: a feature has no expression, so that nothing can be computed")
    topic = raw_topic(project, view)
    return Pipeline(topic, (view.model_copy(update={"source": topic}),), max_future)
