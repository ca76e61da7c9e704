"""Expressions over the columns of a topic, or the inputs of an on-demand view: which they read, and of what type they
are."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from stillwell.definitions.mistakes import did_you_mean
from stillwell.evaluate import root_names
from stillwell.spec import AS_OF, OnDemandInput, TopicSpec, input_fields, input_qualifier
from stillwell.types import TIMESTAMP, FieldType, of_polars


def qualified(source: TopicSpec, column: str) -> str:
    """A column as expressions name it: `Departure.delay`."""
    return f"{source.name}.{column}"


def qualified_schema(source: TopicSpec) -> Mapping[str, pl.DataType]:
    """What expressions can read, and the types of it."""
    return {qualified(source, column.name): column.type.polars for column in source.columns}


def expression_problem(expression: object, source: TopicSpec, declared: FieldType) -> str | None:
    """Why an expression does not give one value of the declared type from one event of the source; None if it does."""
    schema = qualified_schema(source)
    return _problem(expression, schema, source.name, lambda name: _column_problem(name, source, schema), declared)


def on_demand_problem(expression: object, inputs: Sequence[OnDemandInput], declared: FieldType) -> str | None:
    """Why an expression does not give one value of the declared type from one row of the inputs; None if it does."""
    schema = {name: kind.polars for each in inputs for name, kind in input_fields(each).items()}
    schema[AS_OF] = TIMESTAMP.polars
    known = [input_qualifier(each) for each in inputs]
    return _problem(expression, schema, "an input", lambda name: _field_problem(name, known, schema), declared)


_PLAN = "\n\nResolved plan"
"""Begins what Polars adds to an error for its own authors."""


def _problem(
    expression: object,
    schema: Mapping[str, pl.DataType],
    source: str,
    stranger: Callable[[str], str],
    declared: FieldType,
) -> str | None:
    """source: whose columns they are. stranger: what is wrong with reading a column that is not in the schema."""
    if not isinstance(expression, pl.Expr):
        if isinstance(expression, str) and f"{source}.{expression}" in schema:
            return f"is {expression!r}, no expression; write {source}.{expression}"
        whose = f"{source}'s" if source != "an input" else "its inputs'"
        return f"is {expression!r}, no expression; write pl.lit(…) for a constant, or use {whose} columns"
    if expression.meta.has_multiple_outputs():
        return f"reads columns by a pattern, which gives another result when {source} grows; name each column"
    for name in root_names(expression):
        if name not in schema:
            return stranger(name)
    try:
        (dtype,) = pl.LazyFrame(schema=schema).select(expression).collect_schema().values()
    except pl.exceptions.PolarsError as error:
        return f"cannot be computed: {str(error).partition(_PLAN)[0]}"
    return None if dtype == declared.polars else _type_problem(dtype, declared)


def _field_problem(name: str, known: Sequence[str], schema: Mapping[str, pl.DataType]) -> str:
    owner, dot, _ = name.rpartition(".")
    if not dot:
        better = next((each for each in schema if each.rpartition(".")[2] == name), None)
        hint = f"; write {better}" if better else did_you_mean(name, schema)
        return f'reads pl.col("{name}"), which is of none of its inputs{hint}'
    if owner not in known:
        return f"reads {name}, but its inputs are {', '.join(known)}; add to inputs=(…) what it is read from"
    return f"reads {name}, which {owner} does not have{did_you_mean(name, schema)}"


def _column_problem(name: str, source: TopicSpec, schema: Mapping[str, pl.DataType]) -> str:
    if name == AS_OF:
        event_time = qualified(source, source.event_time)
        return f"reads AS_OF, which on-demand views alone have; an event has its own time, {event_time}"
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
    known = of_polars(dtype)
    computed = known.name if known else repr(dtype)
    return f"is declared {declared.name} but computes {computed}; {_cast(dtype, declared)}, or declare that"


def _cast(dtype: pl.DataType, declared: FieldType) -> str:
    """What gives the declared type in place of another."""
    if declared.size is not None and isinstance(dtype, pl.List):
        return f"add .list.to_array({declared.size}) and .cast({_written(declared.polars)}), where all have that length"
    return f"add .cast({_written(declared.polars)})"


def _written(dtype: pl.DataType) -> str:
    """A type of Polars as code has it."""
    if isinstance(dtype, pl.List):
        return f"pl.List({_written(dtype.inner)})"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return f"pl.Array({_written(dtype.inner)}, {dtype.size})"  # type: ignore[arg-type]
    return f"pl.{dtype!r}"
