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


class DefinitionSpec(Spec):
    """A definition's name, which it shares with none; and what it says to people, on which no row or digest depends.

    tags: names and values, in the order in which they were given. description: its docstring.
    """

    name: str
    owner: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    description: str = ""


class KeySpec(Spec):
    """One key field of an entity."""

    name: str
    type: FieldType


class EntitySpec(DefinitionSpec):
    """What features are about: a name and one or several key fields, sorted by name."""

    keys: tuple[KeySpec, ...]


class Origin(enum.Enum):
    """Where in a Kafka record a column comes from."""

    VALUE = "value"
    KEY = "key"
    HEADER = "header"
    RECORD_TIMESTAMP = "record_timestamp"


Action = Literal["reject", "warn", "stop"]
"""What becomes of a record that breaks a rule. reject: no view can use it. warn: it is used, counted, and told in the
log. stop: the worker ends before anything of the record's batch is acknowledged, and who pushes it is refused."""


class Expectation(Spec):
    """A rule on a column. `rule` names it in messages and metrics."""

    rule: str
    action: Action = "reject"
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
    spelled: bool = False
    """For floats: whether what JSON has no number for may come as text: NaN, Infinity, -Infinity."""
    read_as: str | None = None
    """What expressions call it, where that is not the topic's name and its own (`stillwell.pushing.on_write`)."""
    description: str = ""

    @property
    def requirements(self) -> tuple[Expectation, ...]:
        """The rules that every record meets which gives a row: those that only warn are none."""
        return tuple(rule for rule in self.expectations if rule.action != "warn")


def element_of(column: ColumnSpec) -> ColumnSpec:
    """A column that is what each element of a column's lists is."""
    return column.model_copy(update={"type": column.type.scalar, "nullable": False})


class TopicSpec(DefinitionSpec):
    """A Kafka topic: `name` is the definition's, `topic` is Kafka's."""

    topic: str
    columns: tuple[ColumnSpec, ...]
    event_time: str
    """The column (a non-null Timestamp) that tells when the event happened."""
    sequence: str | None = None
    """The column (Int64) that orders events of equal time, if declared."""
    start: Literal["earliest", "latest"] = "earliest"
    closed: bool = False
    """Whether a record is refused whose value has a field that no column reads; otherwise such fields are skipped."""
    pushed: bool = False
    """Whether it is of pushes, whose values are flat."""

    def qualified(self, column: ColumnSpec) -> str:
        """One of its columns as expressions name it: `Departure.delay`."""
        return column.read_as or f"{self.name}.{column.name}"

    def qualified_name(self, name: str) -> str:
        """The column of this name as expressions name it."""
        return next(self.qualified(column) for column in self.columns if column.name == name)


class FeatureSpec(Spec):
    """One feature of a view: an expression over the qualified columns of its topic (`pl.col("Departure.delay")`)."""

    name: str
    type: FieldType
    nullable: bool
    expression: SkipValidation[pl.Expr] | None
    """None in a view whose rows come from a function."""
    description: str = ""


RowsFunction = Callable[[Any], Iterable[Mapping[str, object]]]
"""From one event (attributes named as the topic's columns) to rows: mappings of every key and feature to a value."""


FrameFunction = Callable[[Any], Any]
"""From a frame of events (columns by their own names, and `_index`) to one of rows: `_index`, every key and feature."""


class ViewSpec(DefinitionSpec):
    """Features of one entity, computed from one topic. keys: one expression for each of the entity's, in its order.

    The topic of a view that stores an on-demand view's features is one that nobody defines: what is pushed.
    """

    version: int
    entity: EntitySpec
    source: TopicSpec
    ttl: datetime.timedelta
    """How long after its event time a row counts as current; zero is for ever."""
    freshness: datetime.timedelta | None = None
    """The objective: a row older than this is still served, and told to be late; None where there is none."""
    features: tuple[FeatureSpec, ...]
    keys: tuple[SkipValidation[pl.Expr], ...] = ()
    where: SkipValidation[pl.Expr] | None = None
    rows: SkipValidation[RowsFunction] | None = None
    frame: SkipValidation[FrameFunction] | None = None
    file: str = ""
    """Where its class statement stands: `schemas/departures.py:52`; '' for one that was made by hand."""
    source_digest: str = ""
    """SHA-256 of the source that the view was read from, without its descriptions; '' where there is none."""

    @property
    def function(self) -> RowsFunction | FrameFunction | None:
        """What makes its rows of a `@rows` or `@frame` function's; None where expressions do."""
        return self.rows or self.frame


class AliasSpec(Spec):
    """A view that is read by keys of another entity: `Origin = AirportDepartures.at(airport=Route.origin)`."""

    name: str
    """What it is called in its module, and by requests: `Origin:late`."""
    view: ViewSpec
    entity: EntitySpec
    """Whose keys lead to it."""
    keys: Mapping[str, str]
    """For each key of the view's entity, the key of `entity` that holds its value."""

    @property
    def qualifier(self) -> str:
        """How expressions name it, who are written before it has a name: `AirportDepartures[airport=Route.origin]`."""
        return qualifier_of_alias(self.view, self.entity, self.keys)


def qualifier_of_alias(view: ViewSpec, entity: EntitySpec, keys: Mapping[str, str]) -> str:
    """What stands before the dot of an alias's features in expressions."""
    pairs = ",".join(f"{key.name}={entity.name}.{keys[key.name]}" for key in view.entity.keys)
    return f"{view.name}[{pairs}]"


class RequestColumnSpec(Spec):
    """One value that a request brings for each entity."""

    name: str
    type: FieldType
    nullable: bool
    description: str = ""


class RequestSpec(DefinitionSpec):
    """Values that come with a request instead of from the store."""

    columns: tuple[RequestColumnSpec, ...]


OnDemandInput = ViewSpec | AliasSpec | RequestSpec
"""What an on-demand view reads."""


def input_qualifier(given: OnDemandInput) -> str:
    """What stands before the dot where expressions name the fields of an input."""
    return given.qualifier if isinstance(given, AliasSpec) else given.name


def input_fields(given: OnDemandInput) -> Mapping[str, FieldType]:
    """What an input has to read: its fields as expressions name them, and their types."""
    prefix = input_qualifier(given)
    if isinstance(given, RequestSpec):
        return {f"{prefix}.{column.name}": column.type for column in given.columns}
    view = given.view if isinstance(given, AliasSpec) else given
    return {f"{prefix}.{feature.name}": feature.type for feature in view.features}


AS_OF = "AS_OF"
"""The column that holds the instant for which an on-demand feature is computed, a Timestamp: the request's online, the
row's over history, the event's on write."""


class OnDemandSpec(DefinitionSpec):
    """Features that are computed when they are read, from stored features, request values and AS_OF, row by row."""

    version: int
    inputs: tuple[OnDemandInput, ...]
    features: tuple[FeatureSpec, ...]
    """Expressions over qualified columns: `AirportDepartures.departed_at`, `Search.departs_at`, `AS_OF`."""
    file: str = ""
    source_digest: str = ""


class FeatureServiceSpec(DefinitionSpec):
    """A list of features under a name, which requests may give in its place."""

    features: tuple[str, ...]
    """As requests name them: `<view, alias, on-demand view or model>:<feature or output>`."""


class InputSpec(Spec):
    """One input of a model: its name there, and the feature or request column that it is, as requests name it."""

    name: str
    reference: str
    """`<view, alias or on-demand view>:<feature>`, or `<request>:<column>`."""
    type: FieldType


class OutputSpec(Spec):
    """One output of a model."""

    name: str
    type: FieldType
    nullable: bool = False
    description: str = ""


class OpenInferenceSpec(Spec):
    """A server that speaks the Open Inference Protocol, version 2, over HTTP."""

    url: str
    """Its root, as `http://host:port`; `env:NAME` reads it from the environment when it is first needed."""
    model: str
    """The model's name there."""
    timeout: datetime.timedelta = datetime.timedelta(seconds=1)
    """For one call, from sending to the whole answer."""
    retries: int = 2
    """How often a call is made again that found no server, or one that could not answer now."""
    max_batch: int = 64
    """The most entities in one call."""

    @property
    def variable(self) -> str | None:
        """What holds the root in the environment; None where the definition has it."""
        return self.url.removeprefix("env:") if self.url.startswith("env:") else None


class ModelSpec(DefinitionSpec):
    """A model whose predictions are cached for each entity, and what keeps them fresh."""

    version: str
    """The model's own, a part of the cache's key: another version has other predictions."""
    entity: EntitySpec
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    server: OpenInferenceSpec | SkipValidation[Callable[..., Any]]
    """Or a function in this process: from a mapping of input names to sequences, to the same of output names."""
    policy: Literal["cached", "refresh", "wait"]
    """What a read does that finds no fresh prediction. cached: answers with what there is. refresh: does so, and asks
    for a refresh. wait: waits for the model, and keeps what it says."""
    max_staleness: datetime.timedelta
    """How long after its inputs were read a prediction counts as fresh, though they did not change."""
    refresh_on_write: tuple[str, ...] = ()
    """Views (of the model's own entity) and aliases whose writes ask for a refresh."""
    debounce: datetime.timedelta = datetime.timedelta(0)
    """How long a write waits for others of the same entity before the refresh that it asked for."""
    max_debounce: datetime.timedelta = datetime.timedelta(0)
    """… and at most, though others keep coming; zero stands for ten times `debounce`."""
    max_fan_out: int = 0
    """How many entities one write to an aliased view may have refreshed; the rest refresh when they are read."""
    file: str = ""


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
    aliases: tuple[AliasSpec, ...] = ()
    requests: tuple[RequestSpec, ...] = ()
    on_demand: tuple[OnDemandSpec, ...] = ()
    services: tuple[FeatureServiceSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()

    def views_of(self, topic: TopicSpec) -> tuple[ViewSpec, ...]:
        """The views that are computed from a topic."""
        return tuple(view for view in self.views if view.source.name == topic.name)
