"""What `col(…)` says must hold for a column, as named rules over it.

That a column must be there is said by its type: `Col[Float32]` is required, `Col[Float32 | None]` is not. There is no
rule for it, and null breaks none of the others.
"""

import dataclasses
import datetime
from collections.abc import Callable, Iterator

import polars as pl

from stillwell.definitions.columns import Bound, ColumnOptions, Rule
from stillwell.definitions.mistakes import Mistakes
from stillwell.spec import Action, Expectation
from stillwell.types import FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType

_FLOATS = (FLOAT32, FLOAT64)
_ORDERED = (INT32, INT64, FLOAT32, FLOAT64, TIMESTAMP)
_BOUND_TYPES: dict[str, tuple[type, ...]] = {
    INT32.name: (int,),
    INT64.name: (int,),
    FLOAT32.name: (int, float),
    FLOAT64.name: (int, float),
    TIMESTAMP.name: (datetime.datetime,),
}
_COMPARISONS: dict[str, tuple[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "ge": (">=", pl.Expr.ge),
    "gt": (">", pl.Expr.gt),
    "le": ("<=", pl.Expr.le),
    "lt": ("<", pl.Expr.lt),
}


def expectations(
    name: str, field_type: FieldType, options: ColumnOptions, mistakes: Mistakes
) -> tuple[Expectation, ...]:
    """The rules for one column; what cannot be a rule for its type is noted as a mistake."""
    warn, stop = (_told(name, word, getattr(options, word), mistakes) for word in ("warn", "stop"))
    if field_type.element is not None:
        for action, told in (("", options.must), ("warn", warn), ("stop", stop)):
            _refuse_rules(name, field_type, action, told, mistakes)
        return ()
    return (
        *_Column(name, field_type, "reject", mistakes).rules(options.must),
        *_Column(name, field_type, "warn", mistakes).rules(warn),
        *_Column(name, field_type, "stop", mistakes).rules(stop),
    )


def _told(name: str, word: str, given: object, mistakes: Mistakes) -> Rule:
    """What `warn` or `stop` was given; an empty rule where it was given nothing of use."""
    if given is None:
        return Rule()
    if not isinstance(given, Rule):
        mistakes.add(f"has {word}={given!r}; write {word}=rule(…), as {word}=rule(le=10_000)", field=name)
        return Rule()
    if given == Rule():
        mistakes.add(
            f"has {word}=rule(), which says nothing; write what must hold, as {word}=rule(le=10_000)", field=name
        )
    return given


@dataclasses.dataclass(frozen=True, slots=True)
class _Column:
    """What rules of one action are made for."""

    name: str
    type: FieldType
    action: Action
    mistakes: Mistakes

    def rules(self, told: Rule) -> Iterator[Expectation]:
        """An expectation for each word of a rule."""
        yield from self._ranges(told)
        yield from self._sets(told)
        yield from self._patterns(told)

    def _expectation(self, rule: str, holds: pl.Expr) -> Expectation:
        return Expectation(rule=rule, action=self.action, holds=holds)

    def _mistake(self, word: str, value: object, problem: str) -> None:
        """problem: reads on from what was written, and begins with the comma or semicolon."""
        written = f"{word}={value!r}" if self.action == "reject" else f"{self.action}=rule({word}={value!r})"
        self.mistakes.add(f"has {written}{problem}", field=self.name)

    def _ranges(self, told: Rule) -> Iterator[Expectation]:
        for word, (sign, compare) in _COMPARISONS.items():
            bound: Bound | None = getattr(told, word)
            if bound is None:
                continue
            if self.type not in _ORDERED:
                self._mistake(word, bound, f", but {self.type.name} has no range; use one_of=… or regex=…")
            elif problem := _bound_problem(bound, self.type):
                self._mistake(word, bound, f", {problem}")
            else:
                holds = compare(pl.col(self.name), _literal(bound, self.type))
                if self.type in _FLOATS:
                    # Polars orders NaN above every number, so that it would pass for a large one.
                    holds = holds & pl.col(self.name).is_not_nan()
                yield self._expectation(f"{sign} {bound}", holds)

    def _sets(self, told: Rule) -> Iterator[Expectation]:
        allowed = told.one_of
        if allowed is None:
            return
        if isinstance(allowed, str) or not allowed:
            self._mistake("one_of", allowed, "; list the values that are allowed")
            return
        try:
            values = pl.Series(list(allowed), dtype=self.type.polars, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            self._mistake("one_of", list(allowed), f", which is not all {self.type.name}: {error}")
            return
        if values.has_nulls():
            self.mistakes.add("has None in one_of; say `| None` in its type instead", field=self.name)
            return
        shown = ", ".join(map(str, allowed))
        yield self._expectation(f"one of {shown}", pl.col(self.name).is_in(values.implode()))

    def _patterns(self, told: Rule) -> Iterator[Expectation]:
        pattern = told.regex
        if pattern is None:
            return
        if self.type is not STRING:
            self._mistake("regex", pattern, f", but is {self.type.name}; only a String can match one")
            return
        try:
            pl.select(pl.lit("").str.contains(pattern))
        except pl.exceptions.PolarsError as error:
            self._mistake("regex", pattern, f", which is none: {error}")
            return
        yield self._expectation(f"matches {pattern}", pl.col(self.name).str.contains(f"^(?:{pattern})$"))


def _refuse_rules(name: str, field_type: FieldType, action: str, told: Rule, mistakes: Mistakes) -> None:
    """Note the rules of a list or vector: they are for single values."""
    for word in (*_COMPARISONS, "one_of", "regex"):
        if (given := getattr(told, word)) is not None:
            namespace = "list" if field_type.size is None else "arr"
            written = f"{action}=rule({word}={given!r})" if action else f"{word}={given!r}"
            mistakes.add(
                f"has {written}, but is {field_type.name}, and a rule is about a single value; leave such "
                f"events out by a view's where=, which can look into it by .{namespace}",
                field=name,
            )


def _bound_problem(bound: Bound, field_type: FieldType) -> str | None:
    if isinstance(bound, bool) or not isinstance(bound, _BOUND_TYPES[field_type.name]):
        allowed = " or ".join(kind.__name__ for kind in _BOUND_TYPES[field_type.name])
        return f"a {type(bound).__name__}; give a {field_type.name} column a bound of {allowed}"
    if isinstance(bound, datetime.datetime) and bound.tzinfo is None:
        return "a time without a zone; add tzinfo=datetime.UTC"
    return None


def _literal(value: object, field_type: FieldType) -> pl.Expr:
    """A value to compare with: numbers as they are (a bound may lie outside of the column's own type)."""
    return pl.lit(value, dtype=field_type.polars) if field_type is TIMESTAMP else pl.lit(value)
