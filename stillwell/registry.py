"""What every version of a view computes, registered under the offline root, so that it cannot change unnoticed.

    _registry/<project>/views/<view>/<version>.json                      what a version makes of recorded events
    _registry/<project>/namespaces/<namespace>/<view>/<version>.json     that it runs there, and with which TTL

Both are created once and never changed. A worker registers its definitions before it reads a record:

- The same version must make the same of the recorded events, in the same layout. What is compared is what the view
  makes of them *now*, so that examples and columns can be added and Stillwell can choose other events tomorrow; events
  that were not recorded prove nothing. If only the source differs, that is a caution.
- Versions that share a namespace share its rows in Redis. They may give other values, and rows for events that could
  not be used before, but not other rows: entity, keys, event times, sequences and what `where` lets through stay. So
  does the TTL, which has been given to the keys that are there.

Whatever a create answers, what is there is read back and judged: two workers may register at once, and answers get
lost.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeVar

import polars as pl
import pydantic

from stillwell.definitions.behaviour import (
    Behaviour,
    Column,
    Outcome,
    canonical,
    columns_read,
    observe,
    observe_again,
    sha256,
    shown,
)
from stillwell.definitions.golden import golden_events
from stillwell.errors import AlreadyExists, DefinitionError, FormatError, NotFound, OutcomeUnknown, StoreUnavailable
from stillwell.spec import DefinitionsSpec, Spec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.types import TIMESTAMP

ATTEMPTS = 3
"""How often a create is sent whose answer is lost, before the store counts as unavailable."""

FORMAT: Final = 1

_ROOT = "_registry/"

D = TypeVar("D", bound=Spec)


class ViewDocument(Spec):
    """A version of a view, as it was first registered."""

    format: Literal[1] = FORMAT
    view: str
    version: int
    topic: str
    entity: str
    keys: tuple[Column, ...]
    features: tuple[Column, ...]
    behaviour: Behaviour
    source_digest: str
    digest: str
    """SHA-256 over everything above but the source's digest: what the version is known by."""


class NamespaceDocument(Spec):
    """That a version of a view runs in a namespace."""

    format: Literal[1] = FORMAT
    view: str
    version: int
    ttl_us: int


@dataclasses.dataclass(frozen=True, slots=True)
class Caution:
    """Something that is allowed, and that its owner should know of."""

    view: str
    version: int
    message: str


def register(store: ObjectStore, project: str, definitions: DefinitionsSpec, *, namespace: str) -> list[Caution]:
    """Register every view of the definitions, or find that it is; the cautions are for the log.

    Raises DefinitionError with every view that is registered otherwise or cannot share the namespace's rows; whatever
    the store raises; and FormatError for a document that cannot be read. Nothing is created for a view that is refused.
    """
    return _each_view(store, project, definitions, namespace, _Registration.register)


def review(store: ObjectStore, project: str, definitions: DefinitionsSpec, *, namespace: str) -> list[Caution]:
    """What `register` would say, without creating anything; raises what it would raise."""
    return _each_view(store, project, definitions, namespace, _Registration.review)


def _each_view(
    store: ObjectStore,
    project: str,
    definitions: DefinitionsSpec,
    namespace: str,
    step: Callable[["_Registration", pl.DataFrame], list[Caution]],
) -> list[Caution]:
    cautions: list[Caution] = []
    mistakes: list[str] = []
    for view in definitions.views:
        registration = _Registration(store, project, namespace, view)
        try:
            cautions += step(registration, golden_events(view.source, definitions.examples))
        except DefinitionError as error:
            mistakes += error.args
    if mistakes:
        raise DefinitionError(*mistakes)
    return cautions


def digest_of(view: ViewSpec, definitions: DefinitionsSpec) -> str:
    """The digest that a view would be registered with."""
    return _document(view, golden_events(view.source, definitions.examples)).digest


class RegistryReader:
    """What is registered in a store. Every method raises StoreUnavailable, and FormatError for a document that is
    damaged, or of another format."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def projects(self) -> list[str]:
        """Every project that has registered anything here: several may share a store."""
        return list(dict.fromkeys(path.split("/")[1] for path in self._store.list(_ROOT)))

    def versions(self, project: str, view: str | None = None) -> Iterator[ViewDocument]:
        """Every version of a project's views, or of one view, whatever namespace it runs in."""
        return self._under(_versions_folder(project, view), ViewDocument)

    def members(self, project: str, namespace: str, view: str | None = None) -> Iterator[NamespaceDocument]:
        """Which versions of a project's views, or of one view, run in a namespace."""
        return self._under(_members_folder(project, namespace, view), NamespaceDocument)

    def read(self, path: str, kind: type[D]) -> D:
        """One document. Raises NotFound as well."""
        data = self._store.read(path)
        try:
            document = kind.model_validate_json(data)
        except pydantic.ValidationError as error:
            raise FormatError(f"{self._store.url}: {path} is no {kind.__name__} of format {FORMAT}: {error}") from error
        if isinstance(document, ViewDocument) and document.digest != _digest(document):
            raise FormatError(f"{self._store.url}: {path} has been altered: its content does not give its digest")
        return document

    def _under(self, folder: str, kind: type[D]) -> Iterator[D]:
        return (self.read(path, kind) for path in self._store.list(folder))


def version_path(project: str, view: str, version: int) -> str:
    """Where a version of a view is registered."""
    return f"{_versions_folder(project, view)}{version}.json"


def _versions_folder(project: str, view: str | None) -> str:
    return f"{_ROOT}{project}/views/{view + '/' if view else ''}"


def _members_folder(project: str, namespace: str, view: str | None) -> str:
    return f"{_ROOT}{project}/namespaces/{namespace}/{view + '/' if view else ''}"


class _Registration:
    """One view on its way into the registry."""

    def __init__(self, store: ObjectStore, project: str, namespace: str, view: ViewSpec) -> None:
        self._store = store
        self._registry = RegistryReader(store)
        self._project = project
        self._namespace = namespace
        self._view = view
        self._path = version_path(project, view.name, view.version)

    def review(self, golden: pl.DataFrame) -> list[Caution]:
        document = self._find(self._path, ViewDocument)
        if document is not None:
            self._check_version(document)
        self._check_members()
        return list(self._cautions(document)) if document is not None else []

    def register(self, golden: pl.DataFrame) -> list[Caution]:
        cautions = self.review(golden)
        document = self._find(self._path, ViewDocument) or self._create(self._path, _document(self._view, golden))
        self._check_version(document)
        member = NamespaceDocument(view=self._view.name, version=self._view.version, ttl_us=_ttl_us(self._view))
        folder = _members_folder(self._project, self._namespace, self._view.name)
        self._create(f"{folder}{self._view.version}.json", member)
        self._check_members()
        return cautions

    def _check_version(self, document: ViewDocument) -> None:
        """Refuse a view that does otherwise than its version is registered."""
        fix = f"raise version={self._next_version()}"
        if _other_rows(self._view, document):
            fix += ", in another STILLWELL_NAMESPACE, as its rows are others"
        self._refuse(_differences(self._view, document), fix)

    def _check_members(self) -> None:
        """Refuse a view that cannot share the rows of the versions that run in the namespace."""
        for member in self._members():
            other = f"version {member.version}, which runs in the namespace {self._namespace},"
            fix = "rows that are there stay as they are: choose another STILLWELL_NAMESPACE"
            if member.ttl_us != _ttl_us(self._view):
                self._refuse([f"has ttl={self._view.ttl}, but {other} has {_duration(member.ttl_us)}"], fix)
            if member.version != self._view.version:
                path = version_path(self._project, self._view.name, member.version)
                document = self._registry.read(path, ViewDocument)
                self._refuse([f"{now}, but {other} {then}" for now, then in _other_rows(self._view, document)], fix)

    def _cautions(self, document: ViewDocument) -> Iterator[Caution]:
        view = self._view
        if view.source_digest and document.source_digest and view.source_digest != document.source_digest:
            yield Caution(
                view.name,
                view.version,
                f"view {view.name} version {view.version}: the source has changed since it was registered; "
                "it computes the same on every recorded event, but if it is meant to compute anything else, "
                f"raise version={self._next_version()}",
            )
        newest = max((member.version for member in self._members()), default=view.version)
        if newest > view.version:
            yield Caution(
                view.name,
                view.version,
                f"view {view.name} version {view.version}: version {newest} has run in the namespace "
                f"{self._namespace}, and its rows win over those of version {view.version} for the same events",
            )

    def _next_version(self) -> int:
        registered = self._registry.versions(self._project, self._view.name)
        return 1 + max((document.version for document in registered), default=self._view.version)

    def _members(self) -> Iterator[NamespaceDocument]:
        return self._registry.members(self._project, self._namespace, self._view.name)

    def _refuse(self, problems: Sequence[str], fix: str) -> None:
        if problems:
            where = f"{self._view.file}: " if self._view.file else ""
            raise DefinitionError(*(f"{where}{self._view.name} {problem}; {fix}" for problem in problems))

    def _create(self, path: str, document: D) -> D:
        """Create a document, and give back what is there."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(AlreadyExists, OutcomeUnknown):
                self._store.create(path, canonical(document.model_dump(mode="json")))
            found = self._find(path, type(document))
            if found is not None:
                return found
        raise StoreUnavailable(f"{self._store.url}: {path} is not there after {ATTEMPTS} creates without an answer")

    def _find(self, path: str, kind: type[D]) -> D | None:
        try:
            return self._registry.read(path, kind)
        except NotFound:
            return None


def _document(view: ViewSpec, golden: pl.DataFrame) -> ViewDocument:
    document = ViewDocument(
        view=view.name,
        version=view.version,
        topic=view.source.topic,
        entity=view.entity.name,
        keys=_keys(view),
        features=_features(view),
        behaviour=observe(view, golden),
        source_digest=view.source_digest,
        digest="",
    )
    return document.model_copy(update={"digest": _digest(document)})


def _digest(document: ViewDocument) -> str:
    return sha256(document.model_dump(mode="json", exclude={"source_digest", "digest"}))


def _keys(view: ViewSpec) -> tuple[Column, ...]:
    return tuple(Column(name=key.name, type=key.type.name, nullable=False) for key in view.entity.keys)


def _features(view: ViewSpec) -> tuple[Column, ...]:
    return tuple(Column(name=each.name, type=each.type.name, nullable=each.nullable) for each in view.features)


def _ttl_us(view: ViewSpec) -> int:
    return round(view.ttl.total_seconds() * 1_000_000)


def _differences(view: ViewSpec, document: ViewDocument) -> list[str]:
    """What a view does otherwise than its version is registered; each reads on from the view's name."""
    return _other_layout(view, document) or _other_sources(view, document) or _other_values(view, document)


def _other_layout(view: ViewSpec, document: ViewDocument) -> list[str]:
    registered = f"but version {document.version} is registered with"
    problems = []
    if view.entity.name != document.entity or _keys(view) != document.keys:
        now, then = _signature(view.entity.name, _keys(view)), _signature(document.entity, document.keys)
        problems.append(f"is about {now}, {registered} {then}")
    now_by_name = {each.name: each for each in _features(view)}
    then_by_name = {each.name: each for each in document.features}
    for name in then_by_name.keys() - now_by_name.keys():
        problems.append(f"has no feature {name}, {registered} {name}: {_type(then_by_name[name])}")
    for name, feature in now_by_name.items():
        if name not in then_by_name:
            problems.append(
                f"has a feature {name}: {_type(feature)}, which version {document.version} is registered without"
            )
        elif feature != then_by_name[name]:
            problems.append(f"has a feature {name}: {_type(feature)}, {registered} {_type(then_by_name[name])}")
    if not problems and list(now_by_name) != list(then_by_name):
        problems.append(
            f"has its features in the order {', '.join(now_by_name)}, {registered} {', '.join(then_by_name)}"
        )
    return problems


def _other_sources(view: ViewSpec, document: ViewDocument) -> list[str]:
    if view.source.topic != document.topic:
        return [f"reads Kafka's topic {view.source.topic}, but version {document.version} {document.topic}"]
    known = {column.name for column in document.behaviour.columns}
    gained = () if view.rows is not None else (name for name in columns_read(view) if name not in known)
    return [
        f"reads {view.source.name}.{name}, which did not exist when version {document.version} was registered"
        for name in gained
    ]


def _other_values(view: ViewSpec, document: ViewDocument) -> list[str]:
    recorded = document.behaviour.outcomes
    pairs = enumerate(zip(recorded, observe_again(view, document.behaviour), strict=True))
    differing = [(place, then, now) for place, (then, now) in pairs if then != now]
    for place, then, now in differing[:1]:
        before, after = _contrast(view, then, now)
        return [
            f"gives {after} for {_event(view, document.behaviour, place)}, but version {document.version} is "
            f"registered with {before} ({len(differing)} of {len(recorded)} recorded events differ)"
        ]
    return []


def _other_rows(view: ViewSpec, document: ViewDocument) -> list[tuple[str, str]]:
    """Where a view gives other rows than another version does, whatever their features: what it does, and that does.

    Rows for events that were refused are welcome: they take no row's place.
    """
    if view.source.topic != document.topic:
        return [(f"reads Kafka's topic {view.source.topic}", f"reads {document.topic}")]
    if view.entity.name != document.entity or _keys(view) != document.keys:
        now, then = _signature(view.entity.name, _keys(view)), _signature(document.entity, document.keys)
        return [(f"is about {now}", f"is about {then}")]
    recorded = document.behaviour
    for place, (before, after) in enumerate(zip(recorded.outcomes, observe_again(view, recorded), strict=True)):
        if before.refused is None and _identities(before) != _identities(after):
            return [(f"gives {_rows(view, after)} for {_event(view, recorded, place)}", f"gives {_rows(view, before)}")]
    return []


def _identities(outcome: Outcome) -> list[tuple[object, ...]]:
    """What tells the rows of one event from others in the stores."""
    return [(row.key, row.event_time, row.sequence) for row in outcome.rows]


def _contrast(view: ViewSpec, then: Outcome, now: Outcome) -> tuple[str, str]:
    """Two outcomes that differ, in words: the one feature if that is all."""
    if _identities(then) == _identities(now):
        for row, other in zip(then.rows, now.rows, strict=True):
            for feature, before, after in zip(view.features, row.features, other.features, strict=True):
                if before != after:
                    kind = feature.type.name
                    return f"{feature.name}={shown(kind, before)}", f"{feature.name}={shown(kind, after)}"
    return _rows(view, then), _rows(view, now)


def _rows(view: ViewSpec, outcome: Outcome) -> str:
    if not outcome.rows:
        return f"no row (refused: {outcome.refused})" if outcome.refused else "no row"
    return "; ".join(
        ", ".join(
            f"{key.name}={shown(key.type.name, value)}" for key, value in zip(view.entity.keys, row.key, strict=True)
        )
        + f" at {shown(TIMESTAMP.name, row.event_time)}"
        for row in outcome.rows
    )


def _event(view: ViewSpec, recorded: Behaviour, place: int) -> str:
    """A recorded event in words: the columns that the view reads."""
    read = columns_read(view)
    values = zip(recorded.columns, recorded.events[place], strict=True)
    return ", ".join(
        f"{view.source.name}.{column.name}={shown(column.type, value)}"
        for column, value in values
        if column.name in read
    )


def _signature(name: str, columns: Sequence[Column]) -> str:
    return f"{name}({', '.join(f'{column.name}: {_type(column)}' for column in columns)})"


def _type(column: Column) -> str:
    return f"{column.type} | None" if column.nullable else column.type


def _duration(microseconds: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=microseconds)
