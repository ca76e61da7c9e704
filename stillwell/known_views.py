"""Every version of a view that has ever run, with its keys and features: what the registry remembers.

Definitions have one version of each view. Rows of older ones live on in Redis and in files; they are read, and put into
Redis again, by what was registered before the first of them was written (`stillwell.registry`).
"""

import dataclasses
import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from stillwell.definitions.behaviour import Column
from stillwell.errors import FormatError
from stillwell.registry import RegistryReader, ViewDocument, version_path
from stillwell.spec import DefinitionsSpec, EntitySpec, FeatureSpec, KeySpec, TopicSpec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.types import FIELD_TYPES


class Version(NamedTuple):
    """One version of a view. topic is Kafka's name: another project may have a view of the same name on another."""

    topic: str
    view: str
    version: int

    def __str__(self) -> str:
        return f"{self.view} version {self.version} (of topic {self.topic})"


@dataclasses.dataclass(frozen=True, slots=True)
class KnownViews:
    """Versions of views as one namespace knows them. A spec made from the registry has no expressions.

    here: those that ran in this namespace, by registry and definitions. elsewhere: registered too, but for another
    namespace, or by another project that shares the offline store.
    """

    here: Mapping[Version, ViewSpec]
    elsewhere: frozenset[Version]


def known_views(store: ObjectStore, project: str, namespace: str, definitions: DefinitionsSpec) -> KnownViews:
    """Read the registry. Raises what the store raises, and FormatError for a document that cannot be read."""
    registry = RegistryReader(store)
    specs = {(view.name, view.version): view for view in definitions.views}
    ttls = {place: view.ttl for place, view in specs.items()}
    ttls |= {
        (member.view, member.version): datetime.timedelta(microseconds=member.ttl_us)
        for member in registry.members(project, namespace)
    }
    for found in _readable(store, registry.versions(project)):
        place = found.view, found.version
        if place in ttls:
            specs[place] = view_of(found, ttls[place])
    for name, version in ttls.keys() - specs.keys():
        raise FormatError(
            f"{store.url}: version {version} of view {name} runs in the namespace {namespace}, but "
            f"{version_path(project, name, version)}, which says what it is, is missing; restore it"
        )
    here = {Version(spec.source.topic, spec.name, spec.version): spec for spec in specs.values()}
    every = {
        Version(found.topic, found.view, found.version)
        for each in registry.projects()
        for found in _readable(store, registry.versions(each))
    }
    return KnownViews(here, frozenset(every - here.keys()))


def registered_versions(store: ObjectStore, project: str, view: str) -> list[ViewSpec]:
    """Every registered version of one view, whatever namespace it runs in; without TTL, which a namespace gives."""
    documents = _readable(store, RegistryReader(store).versions(project, view))
    return [view_of(found, datetime.timedelta(0)) for found in documents]


def registered_topics(store: ObjectStore, project: str) -> set[str]:
    """Kafka's names of the topics that the project's views have ever been computed from."""
    return {found.topic for found in RegistryReader(store).versions(project)}


def view_of(document: ViewDocument, ttl: datetime.timedelta) -> ViewSpec:
    """As much of a view as its rows need: entity, features, TTL."""
    return ViewSpec(
        name=document.view,
        version=document.version,
        entity=EntitySpec(
            name=document.entity,
            keys=tuple(KeySpec(name=key.name, type=FIELD_TYPES[key.type]) for key in document.keys),
        ),
        source=TopicSpec(name=document.topic, topic=document.topic, columns=(), event_time=""),
        ttl=ttl,
        features=tuple(_feature(column) for column in document.features),
    )


def _feature(column: Column) -> FeatureSpec:
    return FeatureSpec(name=column.name, type=FIELD_TYPES[column.type], nullable=column.nullable, expression=None)


def _readable(store: ObjectStore, documents: Iterable[ViewDocument]) -> Iterator[ViewDocument]:
    """Documents whose rows this version of Stillwell can read. Raises FormatError for any other."""
    for document in documents:
        unknown = {column.type for column in itertools.chain(document.keys, document.features)} - FIELD_TYPES.keys()
        if unknown:
            raise FormatError(
                f"{store.url}: version {document.version} of view {document.view} is registered with fields of the "
                f"type {', '.join(sorted(unknown))}, which this version of Stillwell does not know: upgrade"
            )
        yield document
