"""What becomes of a batch of records: decode ▸ expectations ▸ event time ▸ for each view where ▸ keys ▸ features.

Pure: no clock, no network, nothing kept between batches. What a record gives depends on that record alone, so that no
cut of a partition into batches, and no neighbour, changes a row.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

from stillwell.broken import RuleId, rules_of
from stillwell.decode import Decoder
from stillwell.errors import DefinitionError
from stillwell.records import Outcome, Records, Reject, ViewRows
from stillwell.spec import TopicSpec, ViewSpec
from stillwell.transform import Transformation
from stillwell.types import INT64, TIMESTAMP
from stillwell.validate import EventTimes, Expectations, Judged


class Pipeline:
    """Everything that is done to the records of one topic. Made by `compile_pipeline`; safe to use from any thread."""

    pushed = False
    """Whether its rows say where they go: those of push topics do (`stillwell.pushing.pipeline`)."""

    def __init__(self, topic: TopicSpec, views: tuple[ViewSpec, ...], max_future: datetime.timedelta) -> None:
        """Raises DefinitionError where topic and views do not go together."""
        self.topic = topic
        self.views = views
        self._decoder = Decoder(topic)
        self._expectations = Expectations(topic, self._decoder.empty)
        self._event_times = EventTimes(topic, max_future)
        self._transformations = tuple(Transformation(view, self._decoder.empty) for view in views)

    @property
    def rules(self) -> tuple[RuleId, ...]:
        """The rules that records may break."""
        return rules_of(self.topic)

    def run(self, records: Records) -> Outcome:
        """Rows for every view, and a reject for every record, or record and view, that gives none by mistake."""
        events, rejects, broken = self._events(records)
        refused = len(rejects)
        rows = []
        for view, transformation in zip(self.views, self._transformations, strict=True):
            given = transformation.run(events)
            rejects += given.rejects
            rows.append(
                ViewRows(
                    view=view.name,
                    version=view.version,
                    frame=given.frame,
                    offsets_with_rows=events.height - given.filtered - len(given.rejects),
                    filtered=given.filtered,
                    rejected=refused + len(given.rejects),
                )
            )
        told = tuple(dataclasses.replace(each, partition=records.partition) for each in broken)
        return Outcome(records, tuple(rows), _in_order(rejects), told)

    def check(self, records: Records) -> tuple[Reject, ...]:
        """A reject for every record that is no event of the topic: what `run` finds before it computes any view."""
        return _in_order(self._events(records).rejects)

    def _events(self, records: Records) -> Judged:
        """The records that are events of the topic, in its columns, a reject for each of the others, and what was
        broken."""
        decoded = self._decoder.decode(records)
        met = self._expectations.check(decoded.frame)
        events, untimely = self._event_times.check(met.frame)
        return Judged(events, [*decoded.rejects, *met.rejects, *untimely], met.broken)


def _in_order(rejects: Iterable[Reject]) -> tuple[Reject, ...]:
    return tuple(sorted(rejects, key=lambda reject: reject.offset))


def compile_pipeline(
    topic: TopicSpec, views: Sequence[ViewSpec], *, max_future: datetime.timedelta = datetime.timedelta(hours=1)
) -> Pipeline:
    """The pipeline of a topic and the views that are computed from it.

    max_future: how far an event time may lie past its record's timestamp before the record is rejected. Raises
    DefinitionError where a view is not of this topic, an expression cannot be computed over its columns, or nothing
    tells the order of its events.
    """
    _refuse_unordered(topic)
    for view in views:
        if view.source.name != topic.name:
            raise DefinitionError(f"view {view.name} is computed from {view.source.name}, got the topic {topic.name}")
    return Pipeline(topic, tuple(views), max_future)


def _refuse_unordered(topic: TopicSpec) -> None:
    """Raise DefinitionError where event time or sequence could not order the topic's events."""
    columns = {column.name: column for column in topic.columns}
    event_time = columns.get(topic.event_time)
    if event_time is None or event_time.type.name != TIMESTAMP.name or event_time.nullable:
        raise DefinitionError(
            f"{topic.name}: the event time {topic.event_time!r} must be a column of Timestamp, not null"
        )
    sequence = columns.get(topic.sequence) if topic.sequence is not None else None
    if topic.sequence is not None and (sequence is None or sequence.type.name != INT64.name):
        raise DefinitionError(f"{topic.name}: the sequence {topic.sequence!r} must be a column of Int64")
