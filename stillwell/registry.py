"""What every version of a view computes, registered under the offline root, so that it cannot change unnoticed.

    _registry/<view>/<version>.json     what a version makes of recorded events, how those are read, TTL and grace

Created once and never changed. The root is a namespace's own, and so is what is registered. A worker registers its
definitions before it reads a record:

- The same version must make the same of the recorded events, in the same layout. What is compared is what the view
  makes of them *now*, so that examples and columns can be added and Stillwell can choose other events tomorrow; events
  that were not recorded prove nothing. If only the source differs, that is a caution. Events are recorded as they are
  decoded, so the columns that are read must also come from the same place of a record, in the same unit, under the same
  expectations.
- All versions share the namespace's rows in Redis. They may give other values, and rows for events that could not be
  used before, but not other rows: entity, keys, event times, sequences and what `where` lets through stay. So do TTL
  and grace, which have been given to the keys that are there.

Whatever a create answers, what is there is read back and judged: two workers may register at once, and answers get
lost.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import pydantic

from stillwell.counting import lasting
from stillwell.definitions.behaviour import (
    Behaviour,
    Column,
    Outcome,
    canonical,
    columns_of,
    columns_read,
    observe,
    observe_again,
    sha256,
    shown,
)
from stillwell.definitions.golden import golden_events
from stillwell.errors import AlreadyExists, DefinitionError, FormatError, OutcomeUnknown, StoreUnavailable
from stillwell.instants import duration_us
from stillwell.pushing.topics import pushed_views
from stillwell.settings import spelled
from stillwell.spec import ColumnSpec, DefinitionsSpec, ExampleSpec, Origin, Spec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.types import TIMESTAMP, is_field_type

ATTEMPTS = 3
"""How often a create is sent whose answer is lost, before the store counts as unavailable."""

FORMAT: Final = 1

_ROOT = "_registry/"


class Source(Spec):
    """Where a column of the topic comes from, and what is expected of it, by the rules' names."""

    column: str
    origin: str
    path: tuple[str, ...]
    unit: str | None
    expectations: tuple[str, ...]


class ViewDocument(Spec):
    """A version of a view, as it was first registered."""

    format: Literal[1] = FORMAT
    view: str
    version: int
    topic: str
    entity: str
    keys: tuple[Column, ...]
    features: tuple[Column, ...]
    sources: tuple[Source, ...]
    ttl_us: int
    grace_us: int
    behaviour: Behaviour
    source_digest: str
    digest: str
    """SHA-256 over everything above but the source's digest: whether the document is still what was registered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Caution:
    """Something that is allowed, and that its owner should know of."""

    view: str
    version: int
    message: str


def register(store: ObjectStore, definitions: DefinitionsSpec, grace: datetime.timedelta) -> list[Caution]:
    """Register every view of the definitions, or find that it is; the cautions are for the log.

    grace: how long keys in Redis outlive their rows' TTL. Raises DefinitionError with every view that is registered
    otherwise or cannot share the namespace's rows; whatever the store raises; and FormatError for a document that
    cannot be read. Nothing is created for a view that is refused.
    """

    def judge(view: ViewSpec) -> list[Caution]:
        found = _judged(store, view, grace)
        if view.version not in found:
            _create(store, _document(view, grace, _behaviour(view, definitions.examples)))
            found = _judged(store, view, grace)
        return list(_cautions(view, found))

    return _each_view(definitions, judge)


def review(store: ObjectStore, definitions: DefinitionsSpec, grace: datetime.timedelta) -> list[Caution]:
    """What `register` would say, without creating anything; raises what it would raise."""
    return _each_view(definitions, lambda view: list(_cautions(view, _judged(store, view, grace))))


def registered(store: ObjectStore, view: str | None = None) -> Iterator[ViewDocument]:
    """Every version of all views, or of one.

    Raises StoreUnavailable, and FormatError for a document that is damaged, or of another format.
    """
    return (_read(store, path) for path in store.list(f"{_ROOT}{view}/" if view else _ROOT))


def unknown_types(columns: Iterable["Column | _Typed"]) -> list[str]:
    """The types of columns that this version of Stillwell does not know."""
    return sorted({column.type for column in columns if not is_field_type(column.type)})


def of_types(unknown: Sequence[str]) -> str:
    """What is wrong with a document of unknown types, reading on from its name."""
    types = ", ".join(unknown)
    return f"is registered with fields of the type {types}, which this version of Stillwell does not know: upgrade"


def _path(view: str, version: int) -> str:
    return f"{_ROOT}{view}/{version}.json"


def _read(store: ObjectStore, path: str) -> ViewDocument:
    data = store.read(path)
    try:
        document = ViewDocument.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise FormatError(f"{store.url}: {path} {_why_unreadable(data, error)}") from error
    if document.digest != _digest(document) or path != _path(document.view, document.version):
        raise FormatError(f"{store.url}: {path} has been altered: its content does not give its digest and path")
    return document


class _Format(pydantic.BaseModel):
    format: int = 0


class _Typed(pydantic.BaseModel):
    type: str


class _Recorded(pydantic.BaseModel):
    columns: tuple[_Typed, ...] = ()


class _Types(pydantic.BaseModel):
    """The types that a document names, whatever else it holds."""

    keys: tuple[_Typed, ...] = ()
    features: tuple[_Typed, ...] = ()
    behaviour: _Recorded = _Recorded()


def _why_unreadable(data: bytes, error: pydantic.ValidationError) -> str:
    """What a document is instead, reading on from its path.

    Values of a type that is not known fit no field of ours, and a document has hundreds of them: pydantic's own message
    has three lines for each, and none that says what to do.
    """
    with contextlib.suppress(pydantic.ValidationError):
        if (newer := _Format.model_validate_json(data).format) > FORMAT:
            return f"is of format {newer}, this version of Stillwell reads {FORMAT}: upgrade"
        types = _Types.model_validate_json(data)
        if unknown := unknown_types((*types.keys, *types.features, *types.behaviour.columns)):
            return of_types(unknown)
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"is no ViewDocument of format {FORMAT}: {f'{place}: ' if place else ''}{first['msg']}{more}"


def _create(store: ObjectStore, document: ViewDocument) -> None:
    """Create a document, or find that there is one in its place, which need not be the same."""
    path = _path(document.view, document.version)
    for _ in range(ATTEMPTS):
        with contextlib.suppress(AlreadyExists, OutcomeUnknown):
            store.create(path, canonical(document.model_dump(mode="json")))
        if path in store.list(path):
            return
    raise StoreUnavailable(f"{store.url}: {path} is not there after {ATTEMPTS} creates without an answer")


def _each_view(definitions: DefinitionsSpec, judge: Callable[[ViewSpec], list[Caution]]) -> list[Caution]:
    cautions: list[Caution] = []
    mistakes: list[str] = []
    for view in pushed_views(definitions):
        try:
            cautions += judge(view)
        except DefinitionError as error:
            mistakes += error.args
    if mistakes:
        raise DefinitionError(*mistakes)
    return cautions


def _judged(store: ObjectStore, view: ViewSpec, grace: datetime.timedelta) -> Mapping[int, ViewDocument]:
    """What is registered of a view, by version. Raises DefinitionError if the view cannot join it."""
    found = {document.version: document for document in registered(store, view.name)}
    where = f"{view.file}: " if view.file else ""
    for document in found.values():
        # Of features the registry compares what they are called: it decodes the events alone.
        if unknown := unknown_types(document.behaviour.columns):
            raise FormatError(f"{store.url}: {_path(document.view, document.version)} {of_types(unknown)}")
        problems = _problems(view, document, max(found) + 1) or _other_grace(view, grace, document)
        if problems:
            raise DefinitionError(*(f"{where}{view.name} {problem}" for problem in problems))
    return found


def _problems(view: ViewSpec, document: ViewDocument, next_version: int) -> list[str]:
    """Why a view cannot run beside a version that did, and how it could; each reads on from the view's name."""
    fix = "rows that are there stay as they are: choose another STILLWELL_NAMESPACE"
    other = f"version {document.version}, which runs in this namespace,"
    if document.ttl_us != duration_us(view.ttl):
        return [f"has ttl={lasting(view.ttl)}, but {other} has {lasting(_duration(document.ttl_us))}; {fix}"]
    others = _other_rows(view, document)
    if document.version != view.version:
        return [f"{now}, but {other} {then}; {fix}" for now, then in others]
    return [f"{each}; {fix if others else f'raise version={next_version}'}" for each in _differences(view, document)]


def _other_grace(view: ViewSpec, grace: datetime.timedelta, document: ViewDocument) -> list[str]:
    """Keys expire at event time, TTL and grace: with another grace an older row could outlive a newer one."""
    if not document.ttl_us or document.grace_us == duration_us(grace):
        return []
    return [
        f"would run with STILLWELL_REDIS_GRACE={spelled(grace)}, but version {document.version}, which runs in this "
        f"namespace, with {spelled(_duration(document.grace_us))}; set it back, or choose another STILLWELL_NAMESPACE"
    ]


def _cautions(view: ViewSpec, found: Mapping[int, ViewDocument]) -> Iterator[Caution]:
    newest = max(found, default=view.version)
    document = found.get(view.version)
    if document and view.source_digest and document.source_digest not in ("", view.source_digest):
        yield Caution(
            view.name,
            view.version,
            f"view {view.name} version {view.version}: the source has changed since it was registered; "
            "it computes the same on every recorded event, but if it is meant to compute anything else, "
            f"raise version={newest + 1}",
        )
    if newest > view.version:
        yield Caution(
            view.name,
            view.version,
            f"view {view.name} version {view.version}: version {newest} has run in this namespace, and its rows win "
            f"over those of version {view.version} for the same events",
        )


def _behaviour(view: ViewSpec, examples: Sequence[ExampleSpec]) -> Behaviour:
    """What a view makes of events. Of rows that are only ever pushed, finished, there is none to be seen."""
    if not view.source.columns:
        return Behaviour(columns=(), events=(), outcomes=())
    return observe(view, golden_events(view.source, examples))


def _document(view: ViewSpec, grace: datetime.timedelta, behaviour: Behaviour) -> ViewDocument:
    document = ViewDocument(
        view=view.name,
        version=view.version,
        topic=view.source.topic,
        entity=view.entity.name,
        keys=_keys(view),
        features=_features(view),
        sources=tuple(_source(column) for column in view.source.columns),
        ttl_us=duration_us(view.ttl),
        grace_us=duration_us(grace),
        behaviour=behaviour,
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


def _source(column: ColumnSpec) -> Source:
    return Source(
        column=column.name,
        origin=column.origin.value,
        path=column.path,
        unit=column.unit,
        expectations=tuple(each.rule for each in column.expectations if each.action == "reject"),
    )


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
    gained = () if view.function is not None else (name for name in columns_read(view) if name not in known)
    problems = [
        f"reads {view.source.qualified_name(name)}, which did not exist when version {document.version} was registered"
        for name in gained
    ]
    registered = f"but version {document.version} is registered with"
    read = {*columns_read(view), *_columns_of_rows(view)}
    for now, then in _changed_sources(view, document):
        name = view.source.qualified_name(now.column)
        if now.column in read and _comes_from(now) != _comes_from(then):
            problems.append(f"reads {name} from {_place(now)}, {registered} {_place(then)}")
        if now.column in read and now.expectations != then.expectations:
            problems.append(f"expects of {name} {_rules(now)}, {registered} {_rules(then)}")
    return problems


def _changed_sources(view: ViewSpec, document: ViewDocument) -> Iterator[tuple[Source, Source]]:
    """The columns that are read from a record otherwise than they were: how now, and how then."""
    recorded = {source.column: source for source in document.sources}
    for now in map(_source, view.source.columns):
        then = recorded.get(now.column, now)
        if now != then:
            yield now, then


def _columns_of_rows(view: ViewSpec) -> set[str]:
    """The columns that decide which rows there are, whatever their features: all of them for a function."""
    found = {*columns_of(view, [*view.keys, view.where]), view.source.event_time}
    if view.source.sequence is not None:
        found.add(view.source.sequence)
    return found if view.function is None else {*found, *columns_read(view)}


def _comes_from(source: Source) -> tuple[object, ...]:
    return source.origin, source.path, source.unit


def _place(source: Source) -> str:
    """Where in a record a column is, in words."""
    place = {
        Origin.VALUE.value: f"the value's {'.'.join(map(_quoted, source.path))}",
        Origin.KEY.value: "the key",
        Origin.HEADER.value: f"the header {'.'.join(source.path)}",
        Origin.RECORD_TIMESTAMP.value: "the record's timestamp",
    }[source.origin]
    return f"{place} in {source.unit}" if source.unit else f"{place} as it is"


def _quoted(name: str) -> str:
    return repr(name) if "." in name else name


def _rules(source: Source) -> str:
    return " and ".join(source.expectations) or "nothing"


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
    deciding = _columns_of_rows(view)
    for source, other in _changed_sources(view, document):
        if source.column in deciding and _comes_from(source) != _comes_from(other):
            name = view.source.qualified_name(source.column)
            return [(f"reads {name} from {_place(source)}", f"reads it from {_place(other)}")]
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
        f"{view.source.qualified_name(column.name)}={shown(column.type, value)}"
        for column, value in values
        if column.name in read
    )


def _signature(name: str, columns: Sequence[Column]) -> str:
    return f"{name}({', '.join(f'{column.name}: {_type(column)}' for column in columns)})"


def _type(column: Column) -> str:
    return f"{column.type} | None" if column.nullable else column.type


def _duration(microseconds: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=microseconds)
