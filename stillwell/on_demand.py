"""From stored features, request values and an instant to the features of one on-demand view.

The same object at every time: when features are read, when an event is transformed on write, and over history. It is
pure, and local to the row: however the rows are cut, each gives the same bits.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from stillwell.errors import DefinitionError
from stillwell.evaluate import Failure, evaluate, result_type, root_names
from stillwell.lists import with_null_elements
from stillwell.spec import AS_OF, FeatureSpec, OnDemandSpec, input_fields
from stillwell.types import TIMESTAMP, FieldType
from stillwell.wire import beyond_years


@dataclasses.dataclass(frozen=True, slots=True)
class Computed:
    """frame: the features of the rows that could be computed, in their order. failures: the others, each with why."""

    frame: pl.DataFrame
    failures: tuple[Failure, ...]


class OnDemand:
    """What one on-demand view makes of rows of its inputs. Made once; holds no state between calls."""

    def __init__(self, view: OnDemandSpec, wanted: Sequence[str] | None = None) -> None:
        """wanted: names of features, or None for all. Raises DefinitionError for what cannot be computed."""
        by_name = {feature.name: feature for feature in view.features}
        self._view = view.name
        self.features: tuple[FeatureSpec, ...] = tuple(
            by_name[name] for name in (by_name if wanted is None else wanted)
        )
        """What is computed, in this order."""
        known = {name: kind for given in view.inputs for name, kind in input_fields(given).items()}
        self._expressions = {feature.name: _expression(view, feature) for feature in self.features}
        self.reads: Mapping[str, tuple[str, ...]] = {
            name: tuple(dict.fromkeys(column for column in root_names(each) if column != AS_OF))
            for name, each in self._expressions.items()
        }
        """For each feature, the columns that it reads, by their qualified names; AS_OF is not among them."""
        read = dict.fromkeys(name for names in self.reads.values() for name in names)
        if strangers := read.keys() - known.keys():
            raise DefinitionError(f"on-demand view {view.name}: reads {min(strangers)}, which is of none of its inputs")
        self.columns: Mapping[str, FieldType] = {name: known[name] for name in read}
        """All columns that are read, by their qualified names, and their types."""
        empty = pl.DataFrame(
            schema={**{name: kind.polars for name, kind in self.columns.items()}, AS_OF: TIMESTAMP.polars}
        )
        for feature in self.features:
            subject = f"on-demand view {view.name}: {feature.name}"
            computed = result_type(empty, self._expressions[feature.name], subject)
            if computed != feature.type.polars:
                raise DefinitionError(f"{subject} is declared {feature.type.name} but computes {computed!r}")
        self._times = [feature.name for feature in self.features if feature.type.scalar is TIMESTAMP]
        self._lists = [feature.name for feature in self.features if feature.type.element is not None]

    def compute(self, rows: pl.DataFrame, as_of: pl.Series) -> Computed:
        """rows: the columns that are read, by their qualified names, and any others; as_of: an instant for each row.

        A row fails where an expression raises, and where it gives a time outside the years 1 to 9999, or a null in a
        list.
        """
        frame = pl.DataFrame([*(rows.get_column(name) for name in self.columns), as_of.alias(AS_OF)])
        selected = [each.alias(name) for name, each in self._expressions.items()]
        # AS_OF stands beside them under a name of its own: a constant is repeated for each row only beside a column.
        computed, failures = evaluate(frame, [*selected, pl.col(AS_OF).alias(_BESIDE)])
        computed = pl.DataFrame(computed.get_columns()[:-1])
        if not failures and not any(self._unfit(computed)):
            return Computed(computed, ())
        return self._without_failures(frame, computed, failures)

    def _without_failures(self, frame: pl.DataFrame, computed: pl.DataFrame, raised: Sequence[Failure]) -> Computed:
        failed = {each.position: self._named(frame, each) for each in raised}
        positions = [position for position in range(frame.height) if position not in failed]
        kept = pl.repeat(True, computed.height, dtype=pl.Boolean(), eager=True).to_list()
        for row, error in self._unfit(computed):
            kept[row] = False
            failed.setdefault(positions[row], error)
        return Computed(
            computed.filter(pl.Series(kept, dtype=pl.Boolean())),
            tuple(Failure(position, failed[position]) for position in sorted(failed)),
        )

    def _unfit(self, computed: pl.DataFrame) -> Iterator[tuple[int, str]]:
        """The rows with a value that no feature may have, and why."""
        for name in self._times:
            for row in beyond_years(computed.get_column(name)):
                yield row, f"{name}: expected a time in the years 1 to 9999, got one beyond"
        for name in self._lists:
            for row in with_null_elements(computed.get_column(name)):
                yield row, f"{name}: expected a list without nulls, got one with a null"

    def _named(self, frame: pl.DataFrame, failure: Failure) -> str:
        """The error with the name of the first feature that causes it."""
        row = frame.slice(failure.position, 1)
        for name, expression in self._expressions.items():
            _, alone = evaluate(row, [expression.alias(name), pl.col(AS_OF).alias(_BESIDE)])
            if alone:
                return f"{name}: {alone[0].error}"
        return failure.error


def at_one_instant(us: int, count: int) -> pl.Series:
    """AS_OF for rows that are all computed for one instant, in µs since the epoch."""
    return pl.Series([us] * count, dtype=pl.Int64()).cast(TIMESTAMP.polars)


_BESIDE = "_as_of"
"""No feature's name begins with _."""


def _expression(view: OnDemandSpec, feature: FeatureSpec) -> pl.Expr:
    if feature.expression is None:
        raise DefinitionError(f"on-demand view {view.name}: {feature.name} needs an expression")
    return feature.expression
