"""Every version of a view that has ever run, with its keys and features: what the registry remembers.

Definitions have one version of each view. Rows of older ones live on in Redis and in files; they are read, and put into
Redis again, by what was registered before the first of them was written (`stillwell.registry`).
"""

import datetime
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from stillwell.definitions.behaviour import Column
from stillwell.errors import FormatError
from stillwell.predictions.log import is_log, outputs_of
from stillwell.pushing.record import push_topic
from stillwell.pushing.topics import pushed_views
from stillwell.registry import ViewDocument, of_types, registered, unknown_types
from stillwell.spec import DefinitionsSpec, EntitySpec, FeatureSpec, KeySpec, TopicSpec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.types import field_type


class Version(NamedTuple):
    """One version of a view."""

    view: str
    version: int

    def __str__(self) -> str:
        return f"{self.view} version {self.version}"


def known_views(store: ObjectStore, definitions: DefinitionsSpec) -> Mapping[Version, ViewSpec]:
    """Every version that the registry knows, and those of the definitions that it does not.

    A spec made from the registry has no expressions. Raises what the store raises, and FormatError for a document that
    cannot be read.
    """
    defined = {Version(view.name, view.version): view for view in pushed_views(definitions)}
    return defined | {Version(view.name, view.version): view for view in map(_view, _readable(store))}


def registered_versions(store: ObjectStore, view: str) -> list[ViewSpec]:
    """Every registered version of one view."""
    return [_view(document) for document in _readable(store, view)]


def registered_topics(store: ObjectStore, project: str) -> set[str]:
    """Kafka's names of the topics that views have ever been computed from, or pushed on."""
    documents = list(registered(store))
    return {document.topic for document in documents} | {push_topic(project, document.view) for document in documents}


def logs_of_predictions(store: ObjectStore) -> dict[Version, tuple[str, ...]]:
    """Of the versions that are logs of models' predictions, which nobody has numbered: the outputs, by name."""
    return {
        Version(document.view, document.version): outputs_of([feature.name for feature in document.features])
        for document in registered(store)
        if is_log(document.topic)
    }


def _view(document: ViewDocument) -> ViewSpec:
    """As much of a view as its rows need: entity, features, TTL."""
    return ViewSpec(
        name=document.view,
        version=document.version,
        entity=EntitySpec(
            name=document.entity,
            keys=tuple(KeySpec(name=key.name, type=field_type(key.type)) for key in document.keys),
        ),
        source=TopicSpec(name=document.topic, topic=document.topic, columns=(), event_time=""),
        ttl=datetime.timedelta(microseconds=document.ttl_us),
        features=tuple(_feature(column) for column in document.features),
    )


def _feature(column: Column) -> FeatureSpec:
    return FeatureSpec(name=column.name, type=field_type(column.type), nullable=column.nullable, expression=None)


def _readable(store: ObjectStore, view: str | None = None) -> Iterator[ViewDocument]:
    """What is registered, as long as this version of Stillwell can read its rows. Raises FormatError otherwise."""
    for document in registered(store, view):
        if unknown := unknown_types((*document.keys, *document.features)):
            raise FormatError(f"{store.url}: version {document.version} of view {document.view} {of_types(unknown)}")
        yield document
