"""Every version of a view that has ever run, with its keys and features: what the registry remembers.

Definitions have one version of each view. Rows of older ones live on in Redis and in files; they are read, and put into
Redis again, by what was registered before the first of them was written (`stillwell.registry`).
"""

import dataclasses
import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import pydantic

from stillwell.definitions.behaviour import Column, sha256
from stillwell.errors import FormatError
from stillwell.registry import FORMAT, NamespaceDocument, ViewDocument
from stillwell.spec import DefinitionsSpec, EntitySpec, FeatureSpec, KeySpec, Spec, TopicSpec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.types import FIELD_TYPES

_ROOT = "_registry/"

_Document = TypeVar("_Document", bound=Spec)


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
    specs = {(view.name, view.version): view for view in definitions.views}
    ttls = {place: view.ttl for place, view in specs.items()}
    ttls |= {
        (member.view, member.version): datetime.timedelta(microseconds=member.ttl_us)
        for member in _members(store, project, namespace)
    }
    for found in _registered(store, project):
        place = found.view, found.version
        if place in ttls:
            specs[place] = view_of(found, ttls[place])
    for name, version in ttls.keys() - specs.keys():
        raise FormatError(
            f"{store.url}: version {version} of view {name} runs in the namespace {namespace}, but "
            f"{_ROOT}{project}/views/{name}/{version}.json, which says what it is, is missing; restore it"
        )
    here = {Version(spec.source.topic, spec.name, spec.version): spec for spec in specs.values()}
    every = {
        Version(found.topic, found.view, found.version)
        for each in _projects(store)
        for found in _registered(store, each)
    }
    return KnownViews(here, frozenset(every - here.keys()))


def registered_versions(store: ObjectStore, project: str, view: str) -> list[ViewSpec]:
    """Every registered version of one view, whatever namespace it runs in; without TTL, which a namespace gives."""
    return [view_of(found, datetime.timedelta(0)) for found in _registered(store, project, view)]


def registered_topics(store: ObjectStore, project: str) -> set[str]:
    """Kafka's names of the topics that the project's views have ever been computed from."""
    return {found.topic for found in _registered(store, project)}


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


def _projects(store: ObjectStore) -> Iterable[str]:
    return dict.fromkeys(path.split("/")[1] for path in store.list(_ROOT))


def _registered(store: ObjectStore, project: str, view: str = "") -> Iterator[ViewDocument]:
    for path in store.list(f"{_ROOT}{project}/views/{view + '/' if view else ''}"):
        document = _read(store, path, ViewDocument)
        content = document.model_dump(mode="json", exclude={"source_digest", "digest"})
        if document.digest != sha256(content):
            raise FormatError(f"{store.url}: {path} has been altered: its content does not give its digest")
        unknown = {column.type for column in itertools.chain(document.keys, document.features)} - FIELD_TYPES.keys()
        if unknown:
            raise FormatError(f"{store.url}: {path} has fields of the type {', '.join(sorted(unknown))}: upgrade")
        yield document


def _members(store: ObjectStore, project: str, namespace: str) -> Iterator[NamespaceDocument]:
    for path in store.list(f"{_ROOT}{project}/namespaces/{namespace}/"):
        yield _read(store, path, NamespaceDocument)


def _read(store: ObjectStore, path: str, kind: type[_Document]) -> _Document:
    try:
        return kind.model_validate_json(store.read(path))
    except pydantic.ValidationError as error:
        raise FormatError(f"{store.url}: {path} is no {kind.__name__} of format {FORMAT}: {error}") from error
