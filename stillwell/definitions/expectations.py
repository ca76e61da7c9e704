"""What `col(…)` says must hold for a column, as named rules over it.

That a column must be there is said by its type: `Col[Float32]` is required, `Col[Float32 | None]` is not. There is no
rule for it, and null breaks none of the others.
"""

import datetime
from collections.abc import Callable, Iterator

import polars as pl

from stillwell.definitions.columns import Bound, ColumnOptions
from stillwell.definitions.mistakes import Mistakes
from stillwell.spec import Expectation
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
    if field_type.element is not None:
        _refuse_rules(name, field_type, options, mistakes)
        return ()
    return (
        *_ranges(name, field_type, options, mistakes),
        *_sets(name, field_type, options, mistakes),
        *_patterns(name, field_type, options, mistakes),
    )


def _refuse_rules(name: str, field_type: FieldType, options: ColumnOptions, mistakes: Mistakes) -> None:
    """Note the rules of a list or vector: they are for single values."""
    for word in (*_COMPARISONS, "one_of", "regex"):
        if (given := getattr(options, word)) is not None:
            namespace = "list" if field_type.size is None else "arr"
            mistakes.add(
                f"has {word}={given!r}, but is {field_type.name}, and a rule is about a single value; leave such "
                f"events out by a view's where=, which can look into it by .{namespace}",
                field=name,
            )


def _ranges(name: str, field_type: FieldType, options: ColumnOptions, mistakes: Mistakes) -> Iterator[Expectation]:
    for word, (sign, compare) in _COMPARISONS.items():
        bound: Bound | None = getattr(options, word)
        if bound is None:
            continue
        if field_type not in _ORDERED:
            mistakes.add(
                f"has {word}={bound!r}, but {field_type.name} has no range; use one_of=… or regex=…", field=name
            )
        elif problem := _bound_problem(bound, field_type):
            mistakes.add(f"has {word}={bound!r}, {problem}", field=name)
        else:
            holds = compare(pl.col(name), _literal(bound, field_type))
            if field_type in _FLOATS:
                # Polars orders NaN above every number, so that it would pass for a large one.
                holds = holds & pl.col(name).is_not_nan()
            yield Expectation(rule=f"{sign} {bound}", holds=holds)


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


def _sets(name: str, field_type: FieldType, options: ColumnOptions, mistakes: Mistakes) -> Iterator[Expectation]:
    allowed = options.one_of
    if allowed is None:
        return
    if isinstance(allowed, str) or not allowed:
        mistakes.add(f"has one_of={allowed!r}; list the values that are allowed", field=name)
        return
    try:
        values = pl.Series(list(allowed), dtype=field_type.polars, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        mistakes.add(f"has one_of={list(allowed)!r}, which is not all {field_type.name}: {error}", field=name)
        return
    if values.has_nulls():
        mistakes.add("has None in one_of; say `| None` in its type instead", field=name)
        return
    shown = ", ".join(map(str, allowed))
    yield Expectation(rule=f"one of {shown}", holds=pl.col(name).is_in(values.implode()))


def _patterns(name: str, field_type: FieldType, options: ColumnOptions, mistakes: Mistakes) -> Iterator[Expectation]:
    pattern = options.regex
    if pattern is None:
        return
    if field_type is not STRING:
        mistakes.add(f"has regex={pattern!r}, but is {field_type.name}; only a String can match one", field=name)
        return
    try:
        pl.select(pl.lit("").str.contains(pattern))
    except pl.exceptions.PolarsError as error:
        mistakes.add(f"has regex={pattern!r}, which is none: {error}", field=name)
        return
    yield Expectation(rule=f"matches {pattern}", holds=pl.col(name).str.contains(f"^(?:{pattern})$"))
