"""Expressions over a topic's columns: which columns they read, and of what type they are."""

from collections.abc import Mapping

import polars as pl

from stillwell.definitions.mistakes import did_you_mean
from stillwell.spec import TopicSpec
from stillwell.types import FIELD_TYPES, FieldType


def qualified(source: TopicSpec, column: str) -> str:
    """A column as expressions name it: `Departure.delay`."""
    return f"{source.name}.{column}"


def qualified_schema(source: TopicSpec) -> Mapping[str, pl.DataType]:
    """What expressions can read, and the types of it."""
    return {qualified(source, column.name): column.type.polars for column in source.columns}


def expression_problem(expression: object, source: TopicSpec, declared: FieldType) -> str | None:
    """Why an expression does not give one value of the declared type from one event of the source; None if it does."""
    if not isinstance(expression, pl.Expr):
        return f"is {expression!r}, no expression; write pl.lit(…) for a constant, or use {source.name}'s columns"
    schema = qualified_schema(source)
    if expression.meta.has_multiple_outputs():
        return f"reads columns by a pattern, which gives another result when {source.name} grows; name each column"
    for name in expression.meta.root_names():
        if problem := _column_problem(name, source, schema):
            return problem
    try:
        (dtype,) = pl.LazyFrame(schema=schema).select(expression).collect_schema().values()
    except pl.exceptions.PolarsError as error:
        return f"cannot be computed: {error}"
    return None if dtype == declared.polars else _type_problem(dtype, declared)


def _column_problem(name: str, source: TopicSpec, schema: Mapping[str, pl.DataType]) -> str | None:
    if name in schema:
        return None
    topic, dot, column = name.partition(".")
    if not dot:
        better = qualified(source, name)
        hint = f"; write {better}" if better in schema else did_you_mean(better, schema)
        return f'reads pl.col("{name}"), which belongs to no topic{hint}'
    if topic != source.name:
        twin = qualified(source, column)
        hint = f"write {twin}" if twin in schema else f"it can read {', '.join(schema)}"
        return f"reads {name}, but its source is {source.name}; {hint}"
    return f"reads {name}, which {source.name} does not have{did_you_mean(name, schema)}"


def _type_problem(dtype: pl.DataType, declared: FieldType) -> str:
    known = {kind.polars: kind.name for kind in FIELD_TYPES.values()}
    computed = known.get(dtype, repr(dtype))
    return f"is declared {declared.name} but computes {computed}; add .cast(pl.{declared.polars!r}), or declare that"
