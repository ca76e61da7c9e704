"""Fields of definitions: `Key`, `Col`, `Feature` and `Output`, and what may be said of them.

Each is a descriptor with two faces. On the class it is a Polars expression, qualified by the class's name
(`Departure.delay` is `pl.col("Departure.delay")`), so that a column of another topic is seen for what it is. On an
event it is the value, typed: `event.delay` is a `float | None`.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import polars as pl

from stillwell.definitions.references import referring

T_co = TypeVar("T_co", covariant=True)
Bound = int | float | datetime.datetime
Unit = Literal["s", "ms", "us", "ns"]


class Field(Generic[T_co]):
    """One field of a definition: an expression on its class, a value on an instance."""

    def __init__(self) -> None:
        self._qualified = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._qualified = f"{owner.__name__}.{name}"
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> pl.Expr: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T_co: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return referring(self._qualified, owner, self._name)
        return instance.__dict__[self._name]


class Key(Field[T_co]):
    """A key field of an entity: `airport: Key[String]`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold for a column, as `rule(…)` or `col(…)` was told it."""

    ge: Bound | None = None
    gt: Bound | None = None
    le: Bound | None = None
    lt: Bound | None = None
    one_of: Sequence[object] | None = None
    regex: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions:
    """What `col(…)` was told, as it was told. must: the rule without which a record is rejected."""

    path: str | tuple[str, ...] | None = None
    unit: Unit | None = None
    header: str | None = None
    key: bool = False
    record_timestamp: bool = False
    must: Rule = Rule()
    warn: Rule | None = None
    stop: Rule | None = None
    description: str = ""


class Col(Field[T_co]):
    """A column of a topic or a request: `delay: Col[Float32 | None] = col(path="times.delay", ge=-1440)`."""

    def __init__(self, options: ColumnOptions | None = None) -> None:
        super().__init__()
        self.options = options or ColumnOptions()


class Feature(Field[T_co]):
    """A feature of a view or an on-demand view: `late: Feature[Bool] = feature(…)`."""

    def __init__(self, expression: pl.Expr | None = None, description: str = "") -> None:
        super().__init__()
        self.expression = expression
        self.description = description


class Output(Field[T_co]):
    """An output of a model: `minutes: Output[Float32]`."""

    def __init__(self, description: str = "") -> None:
        super().__init__()
        self.description = description


def col(
    *,
    path: str | tuple[str, ...] | None = None,
    unit: Unit | None = None,
    header: str | None = None,
    key: bool = False,
    record_timestamp: bool = False,
    ge: Bound | None = None,
    gt: Bound | None = None,
    le: Bound | None = None,
    lt: Bound | None = None,
    one_of: Sequence[object] | None = None,
    regex: str | None = None,
    warn: Rule | None = None,
    stop: Rule | None = None,
    description: str = "",
) -> Col[Any]:
    """Say where a column comes from and what must hold for it.

    A column is read from the record's JSON value by its own name, or by `path`: names joined by dots, or a tuple of
    names where one of them contains a dot. `key=True` reads the Kafka key, `header="name"` the last header of that
    name, both as UTF-8 text (Bytes as they are), `record_timestamp=True` the timestamp of the Kafka record. A Timestamp
    is ISO-8601 text with a zone, or with `unit` a whole number since the epoch.

    A record that breaks a rule is rejected with its name: `ge`, `gt`, `le`, `lt` bound numbers and timestamps (NaN is
    in no range), `one_of` lists what is allowed, `regex` must match a String whole. Null breaks none of them: that a
    column must not be null is said by its type alone, `Col[Float32]` against `Col[Float32 | None]`.

    What a record may break without being rejected is said by `rule(…)`: of one that breaks `warn=rule(le=10_000)` rows
    are made as of any other, but it is counted and told in the log; one that breaks `stop=rule(le=1e9)` ends the worker
    before anything of its batch is acknowledged. description is for people.
    """
    return Col(
        ColumnOptions(
            path=path,
            unit=unit,
            header=header,
            key=key,
            record_timestamp=record_timestamp,
            must=Rule(ge=ge, gt=gt, le=le, lt=lt, one_of=one_of, regex=regex),
            warn=warn,
            stop=stop,
            description=description,
        )
    )


def rule(
    *,
    ge: Bound | None = None,
    gt: Bound | None = None,
    le: Bound | None = None,
    lt: Bound | None = None,
    one_of: Sequence[object] | None = None,
    regex: str | None = None,
) -> Rule:
    """Say what must hold for a column, by the words of `col(…)`: for its `warn=…` and `stop=…`."""
    return Rule(ge=ge, gt=gt, le=le, lt=lt, one_of=one_of, regex=regex)


def feature(expression: pl.Expr | None = None, *, description: str = "") -> Feature[Any]:
    """Say how a feature is computed from its topic's columns, or from the inputs of its on-demand view; without an
    expression in a view with a `@rows` or `@frame` function."""
    return Feature(expression, description)


def output(*, description: str = "") -> Output[Any]:
    """Say what an output of a model is."""
    return Output(description)
