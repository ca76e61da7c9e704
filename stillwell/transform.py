"""From a topic's events to the rows of one view: `where` ▸ keys ▸ features."""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import polars as pl

from stillwell import frame_function
from stillwell.errors import DefinitionError
from stillwell.evaluate import WHAT_CODE_RAISES, Failure, describe, evaluate, result_type, without
from stillwell.layout import entity_key, value
from stillwell.lists import elements_of, with_elements, with_null_elements
from stillwell.records import Reject, ViewReason
from stillwell.series import quiet
from stillwell.spec import FrameFunction, RowsFunction, ViewSpec
from stillwell.types import FLOAT32, FLOAT64, STRING, TIMESTAMP, FieldType
from stillwell.wire import FITS, beyond_years, column, fits, python_values

MAX_ROWS = 65_536
"""Rows that one event may give: an endless generator must end as a reject, not as a worker without memory."""

_OR_NULL = {name: kind | None for name, kind in FITS.items()}
"""What a function may give as an element: a null is refused with a reason of its own, as that of an expression is."""

_NO_NULLS = "no element is null: fill it, or leave it out"

_PYTHON_TYPES = (bytes, datetime.datetime)
"""What a function's rows hold as themselves, and not as text that stands for them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Transformed:
    """What a batch of events gives one view.

    frame: rows as `stillwell.records.ViewRows` has them. filtered: how many events were left out by `where`, or gave no
    rows. rejects: one for each event that could not be used, in no order.
    """

    frame: pl.DataFrame
    filtered: int
    rejects: tuple[Reject, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Output:
    """A column that a view computes: a key field of its entity, or a feature."""

    name: str
    type: FieldType
    nullable: bool
    null_reason: ViewReason

    @property
    def is_time(self) -> bool:
        """Whether its values are times, or lists of them."""
        return self.type.scalar is TIMESTAMP


class Transformation:
    """What one view makes of its topic's events. Made once; holds no state between batches."""

    def __init__(self, view: ViewSpec, empty: pl.DataFrame) -> None:
        """empty: a frame as the decoder gives it, without rows. Raises DefinitionError for what cannot be computed."""
        self._view = view.name
        self._keys = view.entity.keys
        self._layout = value.RowLayout.of(view)
        self._outputs = _outputs(view)
        self._floats = [each for each in self._outputs if each.type.scalar in (FLOAT32, FLOAT64)]
        self._where = None if view.where is None else view.where.alias("_keeps")
        self._computation = _computation(view, self._outputs)
        if view.where is not None and result_type(empty, view.where, f"view {view.name}: where") != pl.Boolean():
            raise DefinitionError(f"view {view.name}: where must be an expression of Bool: compare a column")
        for name, expression in self._computation.expressions.items():
            result_type(empty, expression, f"view {view.name}: {name}")

    def run(self, events: pl.DataFrame) -> Transformed:
        """events: a frame as the decoder gives it."""
        rejects: dict[int, Reject] = {}
        kept = self._kept(events, rejects)
        filtered = events.height - len(rejects) - kept.height
        rows, failures, fruitless = self._computation.rows(kept)
        rows = self._with_quiet_nans(rows)
        self._reject_failures(kept, failures, rejects)
        self._reject_unfit(rows, rejects)
        rows = _without(rows, rejects)
        if self._reject_too_long(rows, rejects):
            rows = _without(rows, rejects)
        return Transformed(rows, filtered + fruitless, tuple(rejects.values()))

    def _kept(self, events: pl.DataFrame, rejects: dict[int, Reject]) -> pl.DataFrame:
        """The events that `where` lets through; null does not."""
        if self._where is None:
            return events
        verdicts, failures = evaluate(events, [self._where, "_offset"])
        self._reject_failures(events, failures, rejects)
        return without(events, {failure.position for failure in failures}).filter(verdicts.to_series())

    def _reject_failures(self, events: pl.DataFrame, failures: tuple[Failure, ...], rejects: dict[int, Reject]) -> None:
        offsets = events.get_column("_offset")
        for failure in failures:
            self._reject(offsets[failure.position], "transform", failure.error, rejects)

    def _with_quiet_nans(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with every NaN a quiet one, which has the same bits wherever it goes."""
        changed = []
        for output in self._floats:
            values = rows.get_column(output.name)
            flat = values if output.type.element is None else elements_of(values).flat
            # A sum is finite if all are, and costs a tenth of a look at each.
            if not math.isfinite(flat.sum()):
                changed.append(
                    quiet(values) if output.type.element is None else with_elements(values, quiet, output.type)
                )
        return rows.with_columns(changed) if changed else rows

    def _reject_unfit(self, rows: pl.DataFrame, rejects: dict[int, Reject]) -> None:
        """Reject the events that gave a null where none may be, as in a list, or a time that few readers could hold."""
        offsets = rows.get_column("_offset")
        for output in self._outputs:
            values = rows.get_column(output.name)
            if not output.nullable and values.null_count():
                error = f"{output.name}: expected {output.type.name}, got null; fill it, or filter such events by where"
                for offset in offsets.filter(values.is_null()).to_list():
                    self._reject(offset, output.null_reason, error, rejects)
            if output.type.element is not None:
                error = f"{output.name}: expected {output.type.name}, got a null in it; {_NO_NULLS}"
                for row in with_null_elements(values):
                    self._reject(offsets[row], "null_element", error, rejects)
            if output.is_time:
                error = f"{output.name}: expected a time in the years 1 to 9999, got one beyond"
                for row in beyond_years(values):
                    self._reject(offsets[row], "transform", error, rejects)

    def _reject_too_long(self, rows: pl.DataFrame, rejects: dict[int, Reject]) -> bool:
        """Reject the events with a row that cannot be written to the online store; whether there are any."""
        offsets = rows.get_column("_offset")
        limits = (
            (entity_key.too_long(rows, self._keys), f"the entity key has more than {entity_key.MAX_KEY_BYTES} bytes"),
            (value.too_long(self._layout, rows), f"the row has more than {value.MAX_VALUE_BYTES} bytes"),
        )
        for exceeded, error in limits:
            for row in np.flatnonzero(exceeded):
                self._reject(offsets[int(row)], "too_long", error, rejects)
        return any(exceeded.any() for exceeded, _ in limits)

    def _reject(self, offset: int, reason: ViewReason, error: str, rejects: dict[int, Reject]) -> None:
        rejects.setdefault(offset, Reject(offset, self._view, reason, f"view {self._view}: {error}"))


class _Computation(Protocol):
    """What the three forms of a transformation have in common."""

    @property
    def expressions(self) -> Mapping[str, pl.Expr]:
        """The expressions that it evaluates, by the name of their key or feature."""

    def rows(self, events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Failure, ...], int]:
        """The rows, the events that raised, and how many events gave no row."""


class _Expressions:
    """One row for each event, by expressions."""

    def __init__(self, view: ViewSpec, outputs: tuple[_Output, ...]) -> None:
        """Raises DefinitionError where a key or feature has no expression."""
        expressions = [*view.keys, *(feature.expression for feature in view.features)]
        if len(expressions) != len(outputs):
            raise DefinitionError(f"view {view.name}: expected an expression for each key of {view.entity.name}")
        self.expressions: dict[str, pl.Expr] = {}
        for output, expression in zip(outputs, expressions, strict=True):
            if expression is None:
                raise DefinitionError(f"view {view.name}: {output.name} needs an expression, or the view a function")
            self.expressions[output.name] = expression
        self._computed = {
            output.name: self.expressions[output.name].cast(output.type.polars, strict=True).alias(output.name)
            for output in outputs
        }
        keys = [self._computed[key.name] for key in view.entity.keys]
        features = [self._computed[feature.name] for feature in view.features]
        event_time, *coordinates = _coordinates(view)
        ordinal = pl.lit(0, dtype=pl.UInt32()).alias("_row")
        self._select = [*keys, event_time, *features, *coordinates, ordinal]

    def rows(self, events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Failure, ...], int]:
        frame, failures = evaluate(events, self._select)
        return frame, tuple(self._named(events, failure) for failure in failures), 0

    def _named(self, events: pl.DataFrame, failure: Failure) -> Failure:
        """The failure with the name of the first key or feature that causes it."""
        event = events.slice(failure.position, 1)
        for name, expression in self._computed.items():
            _, alone = evaluate(event, [expression, "_offset"])
            if alone:
                return Failure(failure.position, f"{name}: {alone[0].error}")
        return failure


class _Function:
    """Any number of rows for each event, by a function of the user's."""

    def __init__(self, view: ViewSpec, outputs: tuple[_Output, ...], function: RowsFunction) -> None:
        self.expressions: dict[str, pl.Expr] = {}
        self._function = function
        self._outputs = outputs
        self._columns = [(view.source.qualified(spec), spec.type) for spec in view.source.columns]
        self._event = msgspec.defstruct(view.source.name, [spec.name for spec in view.source.columns], frozen=True)
        # Every field may be null here: the reason for a null is the same whichever way a view computes its rows.
        self._row = msgspec.defstruct(
            "Row",
            [
                (f"f{number}", fits(output.type, _OR_NULL) | None, msgspec.field(name=output.name))
                for number, output in enumerate(outputs)
            ],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        msgspec.json.Decoder(self._row)  # reads its fields now: two threads that first convert at once would crash
        self._texts = [number for number, output in enumerate(outputs) if output.type.name == STRING.name]
        self._lists = [number for number, output in enumerate(outputs) if output.type.element is not None]
        self._lists_of_texts = [number for number in self._lists if outputs[number].type.element is STRING]
        self._coordinates = _coordinates(view)
        self._order = _order(view)

    def rows(self, events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Failure, ...], int]:
        sources: list[int] = []
        ordinals: list[int] = []
        rows: list[tuple[Any, ...]] = []
        failures: list[Failure] = []
        fruitless = 0
        columns = [python_values(kind, events.get_column(name)) for name, kind in self._columns]
        for position, values in enumerate(zip(*columns, strict=True)):
            try:
                given = self._rows_of(self._event(*values))
            except MemoryError:
                raise
            except WHAT_CODE_RAISES as error:
                failures.append(Failure(position, describe(error)))
                continue
            fruitless += not given
            sources += [position] * len(given)
            ordinals += range(len(given))
            rows += given
        return self._frame(events, sources, ordinals, rows), tuple(failures), fruitless

    def _rows_of(self, event: msgspec.Struct) -> list[tuple[Any, ...]]:
        """The rows of one event, each with every value fit for its column. Raises whatever the function raises, and
        ValueError for rows that do not fit."""
        given = list(itertools.islice(self._function(event), MAX_ROWS + 1))
        if len(given) > MAX_ROWS:
            raise ValueError(f"an event gives at most {MAX_ROWS} rows, got more")
        rows = [msgspec.structs.astuple(msgspec.convert(row, self._row, builtin_types=_PYTHON_TYPES)) for row in given]
        self._refuse_sets(given)
        for number in self._texts:
            for row in rows:
                if row[number] is not None:
                    row[number].encode()  # a lone surrogate raises here, on its own event
        for number in self._lists_of_texts:
            for row in rows:
                "".join(filter(None, row[number] or ())).encode()  # as above
        return rows

    def _refuse_sets(self, given: list[Mapping[str, object]]) -> None:
        """Raise ValueError for a set in the place of a list: msgspec takes it, and each process has another order."""
        for number in self._lists:
            name = self._outputs[number].name
            if any(isinstance(row[name], set | frozenset) for row in given):
                raise ValueError(f"{name} is a set, which has no order; give a list, as sorted(…) makes one")

    def _frame(
        self, events: pl.DataFrame, sources: list[int], ordinals: list[int], rows: list[tuple[Any, ...]]
    ) -> pl.DataFrame:
        lists = list(zip(*rows, strict=True)) if rows else [()] * len(self._outputs)
        computed = [
            column(output.type, values).alias(output.name) for output, values in zip(self._outputs, lists, strict=True)
        ]
        coordinates = events.select(self._coordinates)[sources]
        ordinal = pl.Series("_row", ordinals, dtype=pl.UInt32())
        return coordinates.hstack([*computed, ordinal]).select(self._order)


class _FrameFunction:
    """At most one row for each event, by a function of the user's over whole frames."""

    def __init__(self, view: ViewSpec, outputs: tuple[_Output, ...], function: FrameFunction) -> None:
        self.expressions: dict[str, pl.Expr] = {}
        self._function = frame_function.FrameFunction(
            function,
            {each.name: each.type.polars for each in outputs},
            [spec.name for spec in view.source.columns if spec.nullable and spec.type.element is not None],
        )
        self._columns = {view.source.qualified(spec): spec.name for spec in view.source.columns}
        self._coordinates = [*_coordinates(view), pl.lit(0, dtype=pl.UInt32()).alias("_row")]
        self._order = _order(view)

    def rows(self, events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Failure, ...], int]:
        plain = pl.DataFrame([events.get_column(column).alias(name) for column, name in self._columns.items()])
        given, failures = self._function.run(plain)
        coordinates = events.select(self._coordinates)
        if given.height < events.height:
            coordinates = coordinates[given.get_column(frame_function.INDEX)]
        found = {each.name: each for each in (*coordinates.get_columns(), *given.get_columns())}
        frame = pl.DataFrame([found[name] for name in self._order])
        return frame, failures, events.height - len(failures) - given.height


def _without(rows: pl.DataFrame, rejects: Mapping[int, Reject]) -> pl.DataFrame:
    return rows.filter(~rows.get_column("_offset").is_in(list(rejects))) if rejects else rows


def _computation(view: ViewSpec, outputs: tuple[_Output, ...]) -> _Computation:
    if view.frame is not None:
        return _FrameFunction(view, outputs, view.frame)
    return _Expressions(view, outputs) if view.rows is None else _Function(view, outputs, view.rows)


def _order(view: ViewSpec) -> list[str]:
    """The columns of a view's rows, in their order."""
    keys = [key.name for key in view.entity.keys]
    features = [feature.name for feature in view.features]
    return [*keys, "event_timestamp", *features, "_sequence", "_offset", "_timestamp", "_row"]


def _coordinates(view: ViewSpec) -> list[pl.Expr]:
    """Where a row stands in the order of versions, but for its ordinal."""
    topic = view.source
    sequence = pl.lit(None, dtype=pl.Int64())
    if topic.sequence is not None:
        sequence = pl.col(topic.qualified_name(topic.sequence))
    return [
        pl.col(topic.qualified_name(topic.event_time)).alias("event_timestamp"),
        sequence.alias("_sequence"),
        pl.col("_offset"),
        pl.col("_timestamp"),
    ]


def _outputs(view: ViewSpec) -> tuple[_Output, ...]:
    """Keys, then features. Raises DefinitionError where two columns of the result would have one name."""
    keys = [_Output(key.name, key.type, nullable=False, null_reason="null_key") for key in view.entity.keys]
    features = [
        _Output(feature.name, feature.type, feature.nullable, null_reason="null_feature") for feature in view.features
    ]
    taken = {"event_timestamp", "_sequence", "_offset", "_timestamp", "_row"}
    for output in (*keys, *features):
        if output.name in taken:
            raise DefinitionError(f"view {view.name}: {output.name} is the name of another key, feature or coordinate")
        taken.add(output.name)
    return (*keys, *features)
