"""Models: predictions that are cached for each entity, and what keeps them fresh."""

import dataclasses
import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Required, Unpack, get_args

import polars as pl

from stillwell.definitions.alias import Alias
from stillwell.definitions.aliases import UNNAMED, AliasNames, text_of
from stillwell.definitions.columns import Output
from stillwell.definitions.entity import Entity
from stillwell.definitions.fields import Declared, declared_fields, refuse_strangers
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.on_demand import OnDemandView
from stillwell.definitions.references import Reference, reference_of
from stillwell.definitions.request import Request
from stillwell.definitions.source import location
from stillwell.definitions.spoken import name_of
from stillwell.definitions.view import View
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.errors import DefinitionError
from stillwell.evaluate import root_names
from stillwell.layout.prediction import OutputLayout
from stillwell.spec import AS_OF, InputSpec, ModelSpec, OpenInferenceSpec, OutputSpec
from stillwell.types import FieldType

Policy = Literal["cached", "refresh", "wait"]

LOG_COLUMNS = ("model_version", "computed_at")
"""Columns of the log of predictions, beside keys, outputs and `event_timestamp`."""

MAX_RETRIES = 10
MAX_BATCH = 4096
MAX_FAN_OUT = 10_000

_VECTOR_INSTEAD = "a model takes and gives vectors: Annotated[list[Float32], Size(128)]"

_VERSION = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_URL = re.compile(r"https?://[^/\s?#]+(/[^\s?#]*)?|env:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NOTHING = datetime.timedelta(0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenInference:
    """A model server that speaks the Open Inference Protocol, version 2, over HTTP.

    url is its root, as `http://host:port`, or `env:NAME` to read it from the environment when it is first needed; model
    the model's name there; timeout for one call, from sending to the whole answer; retries how often a call is made
    again that found no server, or one that could not answer now; max_batch the most entities in one call.
    """

    url: str
    model: str
    timeout: datetime.timedelta = datetime.timedelta(seconds=1)
    retries: int = 2
    max_batch: int = 64


class ModelWords(CardWords, total=False):
    """What may follow `Model` in the class statement."""

    entity: Required[type[Entity]]
    version: Required[str]
    inputs: Required[Mapping[str, pl.Expr]]
    server: Required[OpenInference | Callable[..., Any]]
    policy: Required[Policy]
    max_staleness: Required[datetime.timedelta]
    refresh_on_write: tuple[type[View] | Alias, ...]
    debounce: datetime.timedelta
    max_debounce: datetime.timedelta
    max_fan_out: int


class Model:
    """A model whose predictions are cached for each entity:

        class RouteDelay(Model, entity=Route, version="3", policy="refresh", max_staleness=timedelta(minutes=10),
                         inputs={"late": Origin.late, "delay": RouteDepartures.delay},
                         server=OpenInference(url="env:DELAY_URL", model="delay"),
                         refresh_on_write=(RouteDepartures,), debounce=timedelta(seconds=1)):
            minutes: Output[Float32]

    version is the model's own: another version has other predictions. inputs gives each input of the model a feature
    of its entity, one that an alias leads to, an on-demand feature or a request's column. server is an OpenInference,
    or a function of this process, from a mapping of input names to sequences to the same of output names.

    policy says what a read does that finds no fresh prediction: `cached` answers with what there is, `refresh` does so
    and asks for a refresh, `wait` waits for the model. max_staleness is how long after its inputs were read a
    prediction counts as fresh. refresh_on_write names views of the entity, and aliases, whose writes ask for a refresh;
    debounce is how long a write waits for others of the same entity first, max_debounce the most of that (ten times
    debounce unless given), max_fan_out how many entities one write to an aliased view may have refreshed.
    """

    spec: ClassVar[ModelSpec]
    _inputs: ClassVar[Mapping[str, Reference]]
    _refresh_on_write: ClassVar[tuple[type[View] | Alias, ...]]
    _entity: ClassVar[type[Entity]]

    def __init_subclass__(cls, **words: Unpack[ModelWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, Model, mistakes)
        complete = check_words(words, ModelWords, mistakes)
        outputs = declared_fields(cls, Output, mistakes)
        refuse_strangers(cls, (), "a model has `Output[…]` fields alone, _ before a helper's name", mistakes)
        if not outputs and not mistakes.messages:
            mistakes.add("has no output; write `<name>: Output[Float32]`")
        if complete:
            _check_statement(words, mistakes)
            _check_entity_and_inputs(cls, words, outputs, mistakes)
            _check_tensors(cls, outputs, mistakes)
        told = card(cls, words, mistakes)
        mistakes.check()
        server = words["server"]
        cls.spec = ModelSpec(
            name=cls.__name__,
            version=words["version"],
            entity=cls._entity.spec,
            inputs=_inputs(cls._inputs, UNNAMED),
            outputs=tuple(
                OutputSpec(name=each.name, type=each.type, nullable=each.nullable, description=each.field.description)
                for each in outputs
            ),
            server=OpenInferenceSpec(**dataclasses.asdict(server)) if isinstance(server, OpenInference) else server,
            policy=words["policy"],
            max_staleness=words["max_staleness"],
            refresh_on_write=_triggers(cls._refresh_on_write, UNNAMED),
            debounce=words.get("debounce", _NOTHING),
            max_debounce=words.get("max_debounce", _NOTHING),
            max_fan_out=words.get("max_fan_out", 0),
            file=location(cls),
            **told,
        )

    @classmethod
    def _uses(cls) -> Iterator[Any]:
        """The definitions that it refers to."""
        yield from dict.fromkeys([*(each.owner for each in cls._inputs.values()), *cls._refresh_on_write])

    @classmethod
    def _named(cls, names: AliasNames) -> ModelSpec:
        """What it says, now that aliases have names."""
        inputs, triggers = _inputs(cls._inputs, names), _triggers(cls._refresh_on_write, names)
        cls.spec = cls.spec.model_copy(update={"inputs": inputs, "refresh_on_write": triggers})
        return cls.spec


def _inputs(inputs: Mapping[str, Reference], names: AliasNames) -> tuple[InputSpec, ...]:
    return tuple(
        InputSpec(name=name, reference=text_of(each, names), type=_type_of(each)) for name, each in inputs.items()
    )


def _triggers(given: tuple[type[View] | Alias, ...], names: AliasNames) -> tuple[str, ...]:
    return tuple(names.of(each) if isinstance(each, Alias) else each.__name__ for each in given)


def _type_of(reference: Reference) -> FieldType:
    owner = reference.owner._view if isinstance(reference.owner, Alias) else reference.owner
    spec: Any = owner.spec
    fields = spec.columns if issubclass(owner, Request) else spec.features
    kind: FieldType = next(each.type for each in fields if each.name == reference.field)
    return kind


# The statement


def _check_statement(words: ModelWords, mistakes: Mistakes) -> None:
    version = words["version"]
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        mistakes.add(f'has version={version!r}; write version="1": 1 to 64 letters of ASCII, digits, ".", "_" and "-"')
    policy = words["policy"]
    if policy not in get_args(Policy):
        mistakes.add(f"has policy={policy!r}{did_you_mean(str(policy), get_args(Policy))}")
    _check_span("max_staleness", words["max_staleness"], mistakes)
    _check_server(words["server"], mistakes)
    _check_debounce(words, mistakes)


def _check_span(word: str, given: object, mistakes: Mistakes, whose: str = "") -> bool:
    if not isinstance(given, datetime.timedelta):
        mistakes.add(f"has {whose}{word}={given!r}; write timedelta(seconds=…)")
    elif given <= _NOTHING:
        mistakes.add(f"has {whose}{word}={given!r}; it must be longer than nothing")
    else:
        return True
    return False


def _check_server(server: object, mistakes: Mistakes) -> None:
    if not isinstance(server, OpenInference):
        if isinstance(server, type) or not callable(server):
            mistakes.add(f"has server={server!r}; give OpenInference(url=…, model=…), or a function")
        return
    if not isinstance(server.url, str) or not _URL.fullmatch(server.url):
        mistakes.add(f"has a server with url={server.url!r}; write http://host:port, or env:NAME for one that it holds")
    if not isinstance(server.model, str) or not server.model:
        mistakes.add(f"has a server with model={server.model!r}; write the model's name there")
    _check_span("timeout", server.timeout, mistakes, "a server with ")
    for word, given, least, most in (
        ("retries", server.retries, 0, MAX_RETRIES),
        ("max_batch", server.max_batch, 1, MAX_BATCH),
    ):
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            mistakes.add(f"has a server with {word}={given!r}; use an integer from {least} to {most}")


def _check_debounce(words: ModelWords, mistakes: Mistakes) -> None:
    for word in ("debounce", "max_debounce", "max_fan_out"):
        if word in words and not words.get("refresh_on_write"):
            mistakes.add(f"has {word}=…, but no write refreshes it; add refresh_on_write=(…,), or take {word} away")
    spans = [_check_span(word, words[word], mistakes) for word in ("debounce", "max_debounce") if word in words]
    if "max_debounce" in words and "debounce" not in words:
        mistakes.add("has max_debounce=…, but no debounce=…; give both")
    elif len(spans) == 2 and all(spans) and words["max_debounce"] < words["debounce"]:
        mistakes.add(f"has max_debounce={words['max_debounce']!r}, which is less than its debounce")
    fan_out = words.get("max_fan_out", 1)
    if isinstance(fan_out, bool) or not isinstance(fan_out, int) or not 1 <= fan_out <= MAX_FAN_OUT:
        mistakes.add(f"has max_fan_out={fan_out!r}; use an integer from 1 to {MAX_FAN_OUT}")


# Entity, inputs, outputs


def _check_entity_and_inputs(
    cls: type[Model], words: ModelWords, outputs: list[Declared[Output[Any]]], mistakes: Mistakes
) -> None:
    entity = words["entity"]
    if not (isinstance(entity, type) and issubclass(entity, Entity) and entity is not Entity):
        mistakes.add(f"has entity={entity!r}; give a class that derives from Entity")
        return
    taken = {key.name.casefold(): f"{entity.__name__}'s key {key.name}" for key in entity.spec.keys}
    taken |= {name: f"the column {name} of the log of predictions" for name in LOG_COLUMNS}
    for output in outputs:
        if owner := taken.get(output.name.casefold()):
            mistakes.add(f"has the name of {owner}; rename the output", field=output.name)
    cls._entity = entity
    cls._inputs = dict(_checked_inputs(words["inputs"], entity, mistakes))
    cls._refresh_on_write = tuple(_checked_triggers(cls, words, entity, mistakes))


def _check_tensors(cls: type[Model], outputs: list[Declared[Output[Any]]], mistakes: Mistakes) -> None:
    """Note inputs and outputs that are lists of any length: those of all entities are one tensor, which has a width."""
    lists = {f"has an input {name} that is": _type_of(each) for name, each in getattr(cls, "_inputs", {}).items()}
    for said, kind in lists.items():
        if kind.element is not None and kind.size is None:
            mistakes.add(f"{said} {kind.name}, of any length; {_VECTOR_INSTEAD}")
    for output in outputs:
        if output.type.element is not None and output.type.size is None:
            mistakes.add(f"is {output.type.name}, of any length; {_VECTOR_INSTEAD}", field=output.name)
    try:
        OutputLayout(cls.__name__, [OutputSpec(name=each.name, type=each.type) for each in outputs])
    except DefinitionError as error:
        mistakes.add(f"cannot be kept: {error}")


def _checked_inputs(given: object, entity: type[Entity], mistakes: Mistakes) -> Iterator[tuple[str, Reference]]:
    if not isinstance(given, Mapping) or not given:
        mistakes.add(f'has inputs={given!r}; write inputs={{"<input>": View.feature}}')
        return
    for name, expression in given.items():
        if not isinstance(name, str) or not _VERSION.fullmatch(name):
            mistakes.add(f'has an input called {name!r}; use 1 to 64 letters of ASCII, digits, ".", "_" and "-"')
            continue
        reference = reference_of(expression)
        if reference is None:
            mistakes.add(
                f"has an input {name} that is {expression}; name a feature as it stands (View.feature), and compute in "
                "an OnDemandView"
            )
        elif problem := _owner_problem(reference, entity):
            mistakes.add(f"has an input {name} that {problem}")
        else:
            yield name, reference


def _owner_problem(reference: Reference, entity: type[Entity]) -> str | None:
    """Why a model of an entity cannot have it as an input."""
    owner, field = reference
    if isinstance(owner, Alias) or (isinstance(owner, type) and issubclass(owner, View)):
        return _entity_problem(owner, entity)
    if issubclass(owner, Request):
        return None
    if issubclass(owner, OnDemandView):
        problems = (_entity_problem(each, entity) for each in _read_by(owner, field))
        problem = next((each for each in problems if each), None)
        return f"is {owner.__name__}.{field}, which {problem.replace('is', 'reads', 1)}" if problem else None
    if issubclass(owner, Model):
        return f"is {owner.__name__}.{field}, an output of a model; a model reads features and request values"
    return f"is {owner.__name__}.{field}, which is no feature; name a feature, or a request's column"


def _entity_problem(owner: Any, entity: type[Entity]) -> str | None:
    """What is wrong with reading a view or an alias for a model of an entity. Reads on from the input's name."""
    if isinstance(owner, Alias):
        if owner._entity.spec == entity.spec:
            return None
        view = owner._view
        keys = ", ".join(f"{key.name}={entity.__name__}.…" for key in view.spec.entity.keys)
        of_its_own = view.spec.entity == entity.spec
        return (
            f"is of {name_of(owner)}, which keys of {owner._entity.__name__} lead to; the model is of "
            f"{entity.__name__}: use {view.__name__}{' itself' if of_its_own else f'.at({keys})'}"
        )
    if owner.spec.entity == entity.spec:
        return None
    keys = ", ".join(f"{key.name}={entity.__name__}.…" for key in owner.spec.entity.keys)
    return (
        f"is of {owner.__name__}, a view of {owner.spec.entity.name}; the model is of {entity.__name__}: use an alias, "
        f"as {owner.__name__}.at({keys})"
    )


def _read_by(owner: type[OnDemandView], field: str) -> Iterator[Any]:
    """The views and aliases that an on-demand feature reads."""
    (feature,) = (each for each in owner.spec.features if each.name == field)
    roots = root_names(feature.expression) if feature.expression is not None else []
    qualifiers = {name.rpartition(".")[0] for name in roots if name != AS_OF}
    for given in owner._inputs:
        if isinstance(given, Alias):
            if given._qualifier in qualifiers:
                yield given
        elif issubclass(given, View) and given.__name__ in qualifiers:
            yield given


def _checked_triggers(
    cls: type[Model], words: ModelWords, entity: type[Entity], mistakes: Mistakes
) -> Iterator[type[View] | Alias]:
    given = words.get("refresh_on_write", ())
    if not isinstance(given, tuple):
        mistakes.add(f"has refresh_on_write={given!r}; write a tuple of views and aliases, as (RouteDepartures,)")
        return
    read = set(_stored_inputs(cls))
    requests = filter(None, map(_request_read, cls._inputs.values()))
    if given and (request := next(requests, None)):
        mistakes.add(
            f"has refresh_on_write=…, but its inputs need {request}'s values, which no write knows; take it away: "
            "such predictions are refreshed when they are read"
        )
    for each in given:
        shown = each.__name__ if isinstance(each, type) else name_of(each) if isinstance(each, Alias) else repr(each)
        if not (isinstance(each, Alias) or (isinstance(each, type) and issubclass(each, View) and each is not View)):
            mistakes.add(f"has {shown} in refresh_on_write; give views and aliases")
        elif given.count(each) > 1:
            mistakes.add(f"has {shown} twice in refresh_on_write; give each once")
        elif each not in read:
            mistakes.add(f"has {shown} in refresh_on_write, which none of its inputs reads; take it out")
        else:
            yield each
    aliases = [each for each in given if isinstance(each, Alias)]
    if aliases and "max_fan_out" not in words:
        mistakes.add(
            f"has the alias {name_of(aliases[0])} in refresh_on_write: one write may concern many of "
            f"{entity.__name__}; add max_fan_out=…, the most that it may have refreshed"
        )
    if "max_fan_out" in words and given and not aliases:
        mistakes.add("has max_fan_out=…, but no alias in refresh_on_write; take it away")


def _stored_inputs(cls: type[Model]) -> Iterator[Any]:
    """The views and aliases that inputs read, on-demand features' included."""
    for reference in cls._inputs.values():
        owner = reference.owner
        if isinstance(owner, type) and issubclass(owner, OnDemandView):
            yield from _read_by(owner, reference.field)
        else:
            yield owner


def _request_read(reference: Reference) -> str | None:
    """The request whose values an input needs; None where it needs none."""
    owner: Any = reference.owner
    if isinstance(owner, Alias) or issubclass(owner, View):
        return None
    if issubclass(owner, Request):
        return str(owner.__name__)
    (feature,) = (each for each in owner.spec.features if each.name == reference.field)
    names = {each.__name__ for each in owner._inputs if isinstance(each, type) and issubclass(each, Request)}
    read = (name.rpartition(".")[0] for name in root_names(feature.expression))
    return next((name for name in read if name in names), None)
