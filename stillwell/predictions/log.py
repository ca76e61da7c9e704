"""The log of predictions: what was computed, as rows of a view that nobody declares.

Each model stands as a view of its entity: its outputs, `model_version` and `computed_at`; the event time is when the
inputs were read. Its rows are final ones that are pushed, `to=offline`, so that the line keeps them like any other and
Redis never sees them. The same prediction logged twice is two rows of the same event time and values.
"""

import datetime
from collections.abc import Sequence
from zlib import crc32

from stillwell.spec import FeatureSpec, ModelSpec, TopicSpec, ViewSpec
from stillwell.types import STRING, TIMESTAMP, FieldType

_VERSIONS = 65_000
"""A version of a view is one of so many. It is made of the outputs, so that others of them have another one."""


_TOPIC = "~predictions/"
"""Begins the name of the topic that a log stands for: none of Kafka's begins so."""

_BESIDE = ("model_version", "computed_at")
"""What is logged beside a model's outputs."""


def is_log(topic: str) -> bool:
    """Whether a view of this topic is the log of a model."""
    return topic.startswith(_TOPIC)


def outputs_of(features: Sequence[str]) -> tuple[str, ...]:
    """The model's own among the features of its log."""
    return tuple(name for name in features if name not in _BESIDE)


def log_view(model: ModelSpec) -> ViewSpec:
    """The view that a model's log stands as."""
    outputs = "".join(f"{each.name} {each.type.name} {each.nullable}\n" for each in model.outputs)
    return ViewSpec(
        name=model.name,
        version=1 + crc32(outputs.encode()) % _VERSIONS,
        entity=model.entity,
        source=TopicSpec(name=model.name, topic=f"{_TOPIC}{model.name}", columns=(), event_time="event_timestamp"),
        ttl=datetime.timedelta(0),
        features=(
            *(_feature(each.name, each.type, each.nullable, each.description) for each in model.outputs),
            _feature("model_version", STRING, False, "The model's own version."),
            _feature("computed_at", TIMESTAMP, False, "When the model answered."),
        ),
        description=f"Predictions of {model.name} that were computed.",
        file=model.file,
    )


def _feature(name: str, kind: FieldType, nullable: bool, description: str) -> FeatureSpec:
    return FeatureSpec(name=name, type=kind, nullable=nullable, expression=None, description=description)
