"""Whether a decoded event may be used: the expectations on its columns, and an event time that can be true.

Both are judged from the record alone (the clock is the record's own timestamp), so that a replay decides alike.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from stillwell.broken import Broken, RuleId
from stillwell.counting import lasting
from stillwell.errors import DefinitionError
from stillwell.evaluate import Failure, evaluate, result_type, without
from stillwell.instants import duration_us, instant
from stillwell.records import Reject
from stillwell.series import microseconds
from stillwell.spec import ColumnSpec, Expectation, TopicSpec
from stillwell.wire import EARLIEST_US, LATEST_US
from stillwell.wording import shorten, where

EVENT_TIME_BOUND_US = 2**53
"""Event times lie within this many microseconds of the epoch, 1684 to 2255: the online store counts from them when rows
expire, in doubles, which hold whole numbers exactly up to here."""

_FAR_MS = 2**62 // 1_000


class Judged(NamedTuple):
    """What expectations make of a batch: the records that are used, why the others are not, and what was broken."""

    frame: pl.DataFrame
    rejects: list[Reject]
    broken: tuple[Broken, ...]


class Expectations:
    """The rules on the columns of one topic. Made once; holds no state between batches."""

    def __init__(self, topic: TopicSpec, empty: pl.DataFrame) -> None:
        """empty: a frame as the decoder gives it, without rows. Raises DefinitionError for a rule that is none."""
        self._rules = tuple((column, rule) for column in topic.columns for rule in column.expectations)
        self._columns = {column.name: topic.qualified(column) for column, _ in self._rules}
        self._holds = tuple(rule.holds.alias(str(number)) for number, (_, rule) in enumerate(self._rules))
        for column, rule in self._rules:
            subject = f"{topic.name}.{column.name}: expectation {rule.rule!r}"
            if result_type(self._plain(empty), rule.holds, subject) != pl.Boolean():
                raise DefinitionError(f"{subject} must be an expression of Bool: compare the column with something")

    def check(self, frame: pl.DataFrame) -> Judged:
        """What the rules make of a batch.

        A record is used that breaks none but such as warn; each of the others has a reject that names the first rule
        that it broke.
        """
        if not self._rules:
            return Judged(frame, [], ())
        plain = self._plain(frame)
        verdicts, failures = evaluate(plain, [*self._holds, "_offset"])
        if not failures and all(verdicts.get_column(name).all() for name in verdicts.columns[:-1]):
            return Judged(frame, [], ())
        breaches = self._breaches(plain, verdicts, failures)
        said: dict[int, str] = {}
        for (column, rule), broken in zip(self._rules, breaches, strict=True):
            if rule.action != "warn":
                values = plain.get_column(column.name)
                for position, error in broken.items():
                    if position not in said:
                        said[position] = f"{_say_broken(column, rule, values[position])}{error}"
        offsets = frame.get_column("_offset")
        rejects = [Reject(offsets[position], None, "expectation", said[position]) for position in sorted(said)]
        return Judged(without(frame, said), rejects, tuple(self._told(plain, breaches)))

    def _breaches(
        self, plain: pl.DataFrame, verdicts: pl.DataFrame, failures: Sequence[Failure]
    ) -> list[dict[int, str]]:
        """For each rule the positions of the records that break it, and what Polars says if it raised over one."""
        raised = {failure.position for failure in failures}
        judged = [position for position in range(plain.height) if position not in raised]
        found = [
            {judged[row]: "" for row in (~verdicts.get_column(str(number))).arg_true().to_list()}
            for number in range(len(self._rules))
        ]
        for position in raised:
            row = plain.slice(position, 1)
            for broken, (_, rule) in zip(found, self._rules, strict=True):
                verdict, errors = evaluate(row, [rule.holds, "_offset"])
                if errors:
                    broken[position] = f": {errors[0].error}"
                elif not verdict.to_series().all():
                    broken[position] = ""
        return found

    def _told(self, plain: pl.DataFrame, breaches: Sequence[Mapping[int, str]]) -> Iterator[Broken]:
        """A summary of each rule that was broken; which partition it was, only who has the batch knows."""
        for (column, rule), broken in zip(self._rules, breaches, strict=True):
            if broken:
                first = min(broken)
                came = _shown(plain.get_column(column.name)[first])
                name = RuleId(column.name, rule.rule, rule.action)
                yield Broken(name, len(broken), -1, plain.get_column("_offset")[first], came)

    def _plain(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns that have rules, by their own names, and the offset."""
        plain = frame.select(*self._columns.values(), "_offset")
        plain.columns = [*self._columns, "_offset"]
        return plain


class EventTimes:
    """The bounds on a topic's event time. Made once; holds no state between batches."""

    def __init__(self, topic: TopicSpec, max_future: datetime.timedelta) -> None:
        """max_future: how far an event time may lie past its record's timestamp."""
        self._name = topic.event_time
        self._column = topic.qualified_name(topic.event_time)
        self._max_future = max_future
        self._max_future_us = duration_us(max_future)

    def check(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject]]:
        """The records whose event time can be true, and a reject for each of the others."""
        times = microseconds(frame.get_column(self._column)).to_numpy()
        # Clipped, a wild timestamp cannot wrap round, and is still further away than any time that Python can hold.
        produced = np.clip(frame.get_column("_timestamp").to_numpy(), -_FAR_MS, _FAR_MS) * 1_000
        beyond = np.abs(times) > EVENT_TIME_BOUND_US
        ahead = times > produced + self._max_future_us
        positions = np.flatnonzero(beyond | ahead).tolist()
        if not positions:
            return frame, []
        offsets = frame.get_column("_offset")
        rejects = [
            Reject(offsets[position], None, "event_time", self._say_beyond(int(times[position])))
            if beyond[position]
            else Reject(
                offsets[position], None, "future", self._say_ahead(int(times[position]), int(produced[position]))
            )
            for position in positions
        ]
        return without(frame, set(positions)), rejects

    def _say_beyond(self, time: int) -> str:
        return f"{self._name}: an event time lies within the years 1684 to 2255, got {_iso(time)}"

    def _say_ahead(self, time: int, produced: int) -> str:
        ahead = lasting(datetime.timedelta(microseconds=time - produced))
        return (
            f"{self._name}: an event time lies at most {lasting(self._max_future)} past the timestamp of its record, "
            f"when it was produced or pushed; got {_iso(time)}, {ahead} past {_iso(produced)}. Set right the clock or "
            "the zone of what makes the events, or allow more by STILLWELL_MAX_FUTURE"
        )


def _say_broken(column: ColumnSpec, rule: Expectation, came: object) -> str:
    stops = ", by a rule that stops workers" if rule.action == "stop" else ""
    return f"{column.name}: expected {rule.rule}, got {_shown(came)} ({where(column)}){stops}"


def _shown(came: object) -> str:
    """A value as the sentence has it: a time as its producer may have written it, whole, all else as Python does."""
    return came.isoformat() if isinstance(came, datetime.datetime) else shorten(repr(came))


def _iso(microseconds: int) -> str:
    if not EARLIEST_US <= microseconds <= LATEST_US:
        return f"{microseconds} µs since the epoch"
    return instant(microseconds).isoformat()
