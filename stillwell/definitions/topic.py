"""Topics: what flows through Kafka, and which columns it has."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Required, Unpack, get_args

from pydantic import BaseModel

from stillwell.decode import Decoder
from stillwell.definitions.columns import Col, Unit
from stillwell.definitions.expectations import expectations
from stillwell.definitions.fields import Declared, declared_fields, refuse_strangers
from stillwell.definitions.from_model import ModelColumns
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.names import kafka_name_problem
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.errors import DefinitionError
from stillwell.spec import ColumnSpec, Origin, TopicSpec
from stillwell.types import INT64, TIMESTAMP

Start = Literal["earliest", "latest"]


class TopicWords(CardWords, total=False):
    """What may follow `Topic` in the class statement."""

    name: Required[str]
    event_time: Required[str]
    sequence: str
    start: Start
    model: type[BaseModel]
    without: tuple[str, ...]


class Topic:
    """A Kafka topic of JSON events, and the columns that are read from each:

        class Departure(Topic, name="flights.departures", event_time="departed_at", start="earliest"):
            departed_at: Col[Timestamp]
            delay: Col[Float32 | None] = col(path="times.delay")

    name is Kafka's name for it; event_time the column that tells when an event happened; sequence an Int64 column that
    orders events of equal time, where the producer counts them; start where to begin on a partition that was never
    read. model is a pydantic model of the events, whose fields are columns as well; without names those that are none.

    An instance is one event, with its columns as attributes: what a `@rows` function is given, and what its tests make.
    """

    spec: ClassVar[TopicSpec]

    def __init_subclass__(cls, **words: Unpack[TopicWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, Topic, mistakes)
        complete = check_words(words, TopicWords, mistakes)
        if "without" in words and "model" not in words:
            mistakes.add("has without=…, but no model=…; give both")
        of_model = ModelColumns(cls, words["model"], words.get("without", ()), mistakes) if "model" in words else None
        fields = declared_fields(cls, Col, mistakes)
        if of_model:
            of_model.settle(fields)
        refuse_strangers(cls, (), "a topic has `Col[…]` fields alone", mistakes)
        columns = tuple(_column(field, mistakes) for field in fields)
        if complete:
            _check_statement(words, columns, mistakes)
        told = card(cls, words, mistakes)
        mistakes.check()
        cls.spec = TopicSpec(
            name=cls.__name__,
            topic=words["name"],
            columns=columns,
            event_time=words["event_time"],
            sequence=words.get("sequence"),
            start=words.get("start", "earliest"),
            closed=of_model is not None and of_model.closed,
            **told,
        )
        try:
            Decoder(cls.spec)
        except DefinitionError as error:
            mistakes.add(f"cannot be decoded: {error}")
        mistakes.check()

    def __init__(self, **columns: object) -> None:
        """One event. Columns that may be null can be left out. Raises TypeError for unknown and missing ones."""
        nullable = {column.name: column.nullable for column in self.spec.columns}
        for name in columns.keys() - nullable.keys():
            raise TypeError(f"{self.spec.name} has no column {name!r}{did_you_mean(name, nullable)}")
        for name, may_be_null in nullable.items():
            if columns.get(name) is None and not may_be_null:
                raise TypeError(f"{self.spec.name}.{name} is never null; give it a value")
            self.__dict__[name] = columns.get(name)


def _check_statement(words: TopicWords, columns: tuple[ColumnSpec, ...], mistakes: Mistakes) -> None:
    if problem := kafka_name_problem(words["name"]):
        mistakes.add(problem)
    start = words.get("start", "earliest")
    if start not in get_args(Start):
        mistakes.add(f"has start={start!r}{did_you_mean(start, get_args(Start))}")
    by_name = {column.name: column for column in columns}
    event_time = _named_column("event_time", words["event_time"], by_name, mistakes)
    if event_time and (event_time.type is not TIMESTAMP or event_time.nullable):
        mistakes.add("is the event time; declare it Col[Timestamp], never null", field=event_time.name)
    sequence = _named_column("sequence", words["sequence"], by_name, mistakes) if "sequence" in words else None
    if sequence and sequence.type is not INT64:
        mistakes.add(f"is the sequence, but {sequence.type.name}; declare it Col[Int64]", field=sequence.name)


def _named_column(word: str, name: str, columns: Mapping[str, ColumnSpec], mistakes: Mistakes) -> ColumnSpec | None:
    if name not in columns:
        mistakes.add(f"has {word}={name!r}, which is no column{did_you_mean(name, columns)}")
    return columns.get(name)


def _column(field: Declared[Col[Any]], mistakes: Mistakes) -> ColumnSpec:
    options = field.field.options
    origin = _origin(field, mistakes)
    return ColumnSpec(
        name=field.name,
        type=field.type,
        nullable=field.nullable,
        origin=origin,
        path=_path(field, origin, mistakes),
        unit=_unit(field, origin, mistakes),
        expectations=expectations(field.name, field.type, options, mistakes),
        description=options.description,
    )


def _origin(field: Declared[Col[Any]], mistakes: Mistakes) -> Origin:
    options = field.field.options
    named = {
        "path": (options.path is not None, Origin.VALUE),
        "key": (options.key, Origin.KEY),
        "header": (options.header is not None, Origin.HEADER),
        "record_timestamp": (options.record_timestamp, Origin.RECORD_TIMESTAMP),
    }
    given = {word: origin for word, (said, origin) in named.items() if said}
    if len(given) > 1:
        mistakes.add(f"comes from {' and '.join(given)}; choose one", field=field.name)
    origin = next(iter(given.values()), Origin.VALUE)
    if field.type.element is not None and origin in (Origin.KEY, Origin.HEADER):
        whence = "Kafka's key" if origin is Origin.KEY else "a header"
        mistakes.add(
            f"is {field.type.name}, which {whence} cannot hold; read it from the value, or declare Col[String] and "
            "split it in the view",
            field=field.name,
        )
    if origin is Origin.RECORD_TIMESTAMP and field.type is not TIMESTAMP:
        mistakes.add(f"is the record's timestamp, but {field.type.name}; declare it Col[Timestamp]", field=field.name)
    return origin


def _unit(field: Declared[Col[Any]], origin: Origin, mistakes: Mistakes) -> Unit | None:
    unit = field.field.options.unit
    if unit is None:
        return None
    if unit not in get_args(Unit):
        mistakes.add(f"has unit={unit!r}; use one of {', '.join(get_args(Unit))}", field=field.name)
        return None
    if field.type.scalar is not TIMESTAMP or origin is Origin.RECORD_TIMESTAMP:
        mistakes.add("has a unit, which only a Timestamp that producers write can have; take it away", field=field.name)
    return unit


def _path(field: Declared[Col[Any]], origin: Origin, mistakes: Mistakes) -> tuple[str, ...]:
    options = field.field.options
    if origin is Origin.HEADER:
        return (options.header or "",)
    if origin is not Origin.VALUE:
        return ()
    path = options.path
    parts = (field.name,) if path is None else tuple(path.split(".")) if isinstance(path, str) else tuple(path)
    if not parts or not all(parts):
        mistakes.add(f"has path={path!r}, a part of which is empty; join names by single dots", field=field.name)
    return parts
