"""What is pushed to a view that stores an on-demand view's features: an implied topic, which nobody defines.

Its columns are what the features read, under the very names by which their expressions call them, and AS_OF is the
event time. So the pipeline that every record goes through evaluates on write the expressions that a read evaluates, as
they are: no second way to compute can differ from the first.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stillwell.evaluate import root_names
from stillwell.pushing.record import EVENT_TIMESTAMP, SEQUENCE
from stillwell.spec import (
    AS_OF,
    ColumnSpec,
    EntitySpec,
    FeatureSpec,
    OnDemandSpec,
    RequestSpec,
    TopicSpec,
    input_fields,
    input_qualifier,
)
from stillwell.types import FLOAT32, FLOAT64, INT64, TIMESTAMP, FieldType

PUSHED = "push/"
"""Stands before a view's name where a topic's would: it holds what no name of Kafka's may, so that none is meant."""


class _Read(NamedTuple):
    """A field of an input that some feature reads."""

    owner: str
    name: str
    type: FieldType
    nullable: bool
    read_as: str


def on_write_topic(
    view: str, entity: EntitySpec, on_demand: OnDemandSpec, features: Sequence[FeatureSpec]
) -> TopicSpec:
    """The implied topic of a view that stores these features of an on-demand view, for this entity.

    Keys, event time and the fields that are read go by their own names; fields of one name, of inputs or of the entity,
    go by `<input>:<name>`, as requests have it. What is stored may be missing, and then is null, whatever its view
    declares.
    """
    keys = [_column(key.name, key.type) for key in entity.keys]
    read = list(_read(on_demand, features))
    shared = Counter([*(key.name for key in entity.keys), *(each.name for each in read)])
    inputs = [
        _column(
            each.name if shared[each.name] == 1 else f"{each.owner}:{each.name}",
            each.type,
            nullable=each.nullable,
            read_as=each.read_as,
        )
        for each in read
    ]
    return TopicSpec(
        name=on_demand.name,
        topic=f"{PUSHED}{view}",
        columns=(
            *keys,
            _column(EVENT_TIMESTAMP, TIMESTAMP, read_as=AS_OF),
            *inputs,
            _column(SEQUENCE, INT64, nullable=True),
        ),
        event_time=EVENT_TIMESTAMP,
        sequence=SEQUENCE,
        closed=True,
        pushed=True,
        description=f"What {view} is computed from, which is pushed.",
    )


def _read(on_demand: OnDemandSpec, features: Sequence[FeatureSpec]) -> Iterator[_Read]:
    """In the order of the inputs and their fields: it must not hang on how expressions are written."""
    names = {name for each in features if each.expression is not None for name in root_names(each.expression)}
    for given in on_demand.inputs:
        declared = {column.name: column.nullable for column in given.columns} if isinstance(given, RequestSpec) else {}
        prefix = f"{input_qualifier(given)}."
        for qualified, kind in input_fields(given).items():
            if qualified in names:
                name = qualified.removeprefix(prefix)
                yield _Read(given.name, name, kind, declared.get(name, True), qualified)


def _column(name: str, kind: FieldType, *, nullable: bool = False, read_as: str | None = None) -> ColumnSpec:
    return ColumnSpec(
        name=name,
        type=kind,
        nullable=nullable,
        path=(name,),
        spelled=kind.scalar in (FLOAT32, FLOAT64),
        read_as=read_as,
    )
