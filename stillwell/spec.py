"""What a definition says, as frozen values: the one thing that every other module reads of entities, topics and views.

`stillwell.definitions` turns classes into these; the pipeline, the layouts and the command line read them and never see
a class. Whoever makes one by hand (a test, a tool) gets the same checks of shape from pydantic.
"""

import datetime
import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, SkipValidation

from stillwell.types import FieldType


class Spec(BaseModel):
    """A frozen value that refuses unknown words."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class KeySpec(Spec):
    """One key field of an entity."""

    name: str
    type: FieldType


class EntitySpec(Spec):
    """What features are about: a name and one or several key fields, sorted by name."""

    name: str
    keys: tuple[KeySpec, ...]
    owner: str = ""
    description: str = ""


class Origin(enum.Enum):
    """Where in a Kafka record a column comes from."""

    VALUE = "value"
    KEY = "key"
    HEADER = "header"
    RECORD_TIMESTAMP = "record_timestamp"


class Expectation(Spec):
    """A rule that a record must meet or is rejected. `rule` names it in messages and metrics."""

    rule: str
    holds: SkipValidation[pl.Expr]
    """True where the column (as `pl.col(<column name>)`) meets the rule. Null counts as met: `nullable` judges that."""


class ColumnSpec(Spec):
    """One column of a topic. path leads through nested objects of the value, or is (header name,)."""

    name: str
    type: FieldType
    nullable: bool
    origin: Origin = Origin.VALUE
    path: tuple[str, ...]
    unit: Literal["s", "ms", "us", "ns"] | None = None
    """For a Timestamp: None means ISO-8601 text with a zone, otherwise an epoch number in this unit."""
    expectations: tuple[Expectation, ...] = ()


class TopicSpec(Spec):
    """A Kafka topic: `name` is the definition's, `topic` is Kafka's."""

    name: str
    topic: str
    columns: tuple[ColumnSpec, ...]
    event_time: str
    """The column (a non-null Timestamp) that tells when the event happened."""
    sequence: str | None = None
    """The column (Int64) that orders events of equal time, if declared."""
    start: Literal["earliest", "latest"] = "earliest"
    description: str = ""


class FeatureSpec(Spec):
    """One feature of a view: an expression over the qualified columns of its topic (`pl.col("Departure.delay")`)."""

    name: str
    type: FieldType
    nullable: bool
    expression: SkipValidation[pl.Expr] | None
    """None in a view whose rows come from a `@rows` function."""
    description: str = ""


RowsFunction = Callable[[Any], Iterable[Mapping[str, object]]]
"""From one event (attributes named as the topic's columns) to rows: mappings of every key and feature to a value."""


class ViewSpec(Spec):
    """Features of one entity, computed from one topic. keys: one expression for each of the entity's, in its order."""

    name: str
    version: int
    entity: EntitySpec
    source: TopicSpec
    ttl: datetime.timedelta
    """How long after its event time a row counts as current; zero is for ever."""
    features: tuple[FeatureSpec, ...]
    keys: tuple[SkipValidation[pl.Expr], ...] = ()
    where: SkipValidation[pl.Expr] | None = None
    rows: SkipValidation[RowsFunction] | None = None
    description: str = ""
    file: str = ""
    """Where its class statement stands: `schemas/departures.py:52`; '' for one that was made by hand."""
    source_digest: str = ""
    """SHA-256 of the source that the view was read from, without its descriptions; '' where there is none."""


class ExpectedReject(Spec):
    """That a record is refused, by one view or (view is None) by all: `says` is part of the sentence that it gets."""

    reason: str
    view: str | None = None
    says: str = ""


class ExampleSpec(Spec):
    """A golden example: one record of a topic, named after its edge case, and what must become of it."""

    name: str
    topic: str
    """Kafka's name."""
    file: str
    about: str
    timestamp: int
    """The record's, in milliseconds."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    rows: Mapping[str, tuple[Mapping[str, Any], ...]]
    """The rows of each view that gets any, as in JSON: times in ISO-8601, bytes in base64."""
    rejects: tuple[ExpectedReject, ...]


class DefinitionsSpec(Spec):
    """All that one deployment defines, in the order of its modules."""

    entities: tuple[EntitySpec, ...]
    topics: tuple[TopicSpec, ...]
    views: tuple[ViewSpec, ...]
    examples: tuple[ExampleSpec, ...] = ()

    def views_of(self, topic: TopicSpec) -> tuple[ViewSpec, ...]:
        """The views that are computed from a topic."""
        return tuple(view for view in self.views if view.source.name == topic.name)
