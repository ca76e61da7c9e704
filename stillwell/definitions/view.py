"""Views: features of one entity, computed from one topic, or from what is pushed for an on-demand view."""

import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Required, Unpack

import polars as pl

from stillwell.definitions.alias import Readable
from stillwell.definitions.aliases import AliasNames
from stillwell.definitions.checks import check_nulls
from stillwell.definitions.columns import Feature
from stillwell.definitions.entity import Entity
from stillwell.definitions.expressions import expression_problem
from stillwell.definitions.fields import Declared, declared_fields, feature_specs, refuse_strangers
from stillwell.definitions.functions import FrameMethod, Maker, RowsMethod
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.on_write import check_on_write, is_on_demand, taken_over
from stillwell.definitions.samples import empty_events
from stillwell.definitions.source import location, source_digest
from stillwell.definitions.topic import Topic
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.errors import DefinitionError
from stillwell.layout.value import RowLayout
from stillwell.pushing.on_write import on_write_topic
from stillwell.spec import EntitySpec, FeatureSpec, OnDemandSpec, TopicSpec, ViewSpec
from stillwell.types import BOOL

if TYPE_CHECKING:
    from stillwell.definitions.on_demand import OnDemandView

MAX_VERSION = 65_535
"""A version is two bytes of a row's stamp."""


_FORMS = {RowsMethod: "rows", FrameMethod: "frame"}
"""The word of the spec for each form of a function."""


class ViewWords(CardWords, total=False):
    """What may follow `View` in the class statement."""

    source: Required["type[Topic] | type[OnDemandView]"]
    entity: Required[type[Entity]]
    ttl: Required[datetime.timedelta]
    keys: Mapping[str, pl.Expr]
    where: pl.Expr
    version: int
    freshness: datetime.timedelta


class View(Readable):
    """Features of one entity: of each entity the newest row counts. They are computed from the events of a topic:

        class AirportDepartures(View, source=Departure, entity=Airport, keys={"airport": Departure.origin},
                                where=~Departure.cancelled, ttl=timedelta(hours=6)):
            late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False), description="over 15 min")

    keys gives an expression for each key of the entity; where tells which events count (null is no); ttl how long
    after its event time a row counts as current (zero: for ever); version is raised when what the view computes is
    meant to change; freshness is the objective: an older row is served, and told to be late. A view with a `@rows` or
    `@frame` function has neither keys nor expressions: the function gives both.

    Or they are an on-demand view's, computed when what they read is pushed, and stored:

        class RiskAtPayment(View, source=Risk, entity=Card, ttl=timedelta(days=30)):
            surge: Feature[Float64 | None] = feature(Risk.surge)

    Such a view has no keys and no where, since what is pushed brings the keys, and every push counts; without any
    feature of its own it has all of the on-demand view's.
    """

    _source: ClassVar["type[Topic] | type[OnDemandView]"]
    _entity: ClassVar[type[Entity]]

    def __init_subclass__(cls, **words: Unpack[ViewWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, View, mistakes)
        complete = check_words(words, ViewWords, mistakes)
        features = declared_fields(cls, Feature, mistakes)
        makers = {name: value for name, value in vars(cls).items() if isinstance(value, Maker)}
        refuse_strangers(
            cls, makers, "write @rows or @frame above a function that makes rows, _ before a helper's name", mistakes
        )
        on_write = is_on_demand(words.get("source"))
        if not features and not on_write and not mistakes.messages:
            mistakes.add("has no feature; write `<name>: Feature[Float32] = feature(…)`")
        if len(makers) > 1:
            words_of = " and ".join(sorted({maker.word for maker in makers.values()}))
            mistakes.add(f"has several {words_of} functions, {' and '.join(makers)}; keep one")
        if complete:
            _check_statement(words, mistakes)
            if on_write:
                check_on_write(words, makers, mistakes)
        told = card(cls, words, mistakes)
        mistakes.check()
        cls._source, cls._entity = words["source"], words["entity"]
        maker = next(iter(makers.values()), None)
        if on_write:
            cls.spec = _spec_on_write(cls, words, taken_over(cls, words["source"], features, mistakes), mistakes)
        else:
            cls.spec = _spec_of_topic(cls, words, features, maker, mistakes)
        cls.spec = cls.spec.model_copy(update=told)
        mistakes.check()
        try:
            RowLayout.of(cls.spec)
        except DefinitionError as error:
            mistakes.add(f"cannot be stored: {error}")
        mistakes.check()
        # Golden examples come with loading, where this is done again; most mistakes show without them, at their line.
        check_nulls(cls.spec, empty_events(cls.spec.source), mistakes)
        mistakes.check()

    @classmethod
    def _uses(cls) -> Iterator[Any]:
        """The on-demand view that it stores, if it does."""
        if is_on_demand(cls._source):
            yield cls._source

    @classmethod
    def _named(cls, names: AliasNames) -> ViewSpec:
        """What it says, now that aliases have names: what is pushed may be called by them."""
        if is_on_demand(cls._source):
            topic = on_write_topic(cls.__name__, cls.spec.entity, cls._source._named(names), cls.spec.features)
            cls.spec = cls.spec.model_copy(update={"source": topic})
        return cls.spec


def _spec_of_topic(
    cls: type, words: ViewWords, features: list[Declared[Feature[Any]]], maker: Maker | None, mistakes: Mistakes
) -> ViewSpec:
    source, entity = words["source"].spec, words["entity"].spec
    assert isinstance(source, TopicSpec)
    specs = feature_specs(features)
    _check_names(specs, entity, mistakes)
    for declared in features:
        _check_feature(declared, source, maker, mistakes)
    where = words.get("where")
    if where is not None and (problem := expression_problem(where, source, BOOL)):
        mistakes.add(f"has a where that {problem}")
    keys = _keys(words, source, entity, maker, mistakes)
    made_by = {_FORMS[type(maker)]: maker.function} if maker else {}
    return _spec(cls, words, source, specs, keys).model_copy(update={"where": where, **made_by})


def _spec_on_write(cls: type, words: ViewWords, features: tuple[FeatureSpec, ...], mistakes: Mistakes) -> ViewSpec:
    on_demand, entity = words["source"].spec, words["entity"].spec
    assert isinstance(on_demand, OnDemandSpec)
    _check_names(features, entity, mistakes)
    source = on_write_topic(cls.__name__, entity, on_demand, features)
    return _spec(cls, words, source, features, tuple(pl.col(source.qualified_name(key.name)) for key in entity.keys))


def _spec(
    cls: type, words: ViewWords, source: TopicSpec, features: tuple[FeatureSpec, ...], keys: tuple[pl.Expr, ...]
) -> ViewSpec:
    return ViewSpec(
        name=cls.__name__,
        version=words.get("version", 1),
        entity=words["entity"].spec,
        source=source,
        ttl=words["ttl"],
        freshness=words.get("freshness"),
        features=features,
        keys=keys,
        file=location(cls),
        source_digest=source_digest(cls, words["source"], words["entity"]),
    )


def _check_names(features: tuple[FeatureSpec, ...], entity: EntitySpec, mistakes: Mistakes) -> None:
    keys = {key.name.casefold(): key.name for key in entity.keys}
    for feature in features:
        if key := keys.get(feature.name.casefold()):
            mistakes.add(f"has the name of {entity.name}'s key {key}; rename the feature", field=feature.name)
        if feature.name == "at":
            mistakes.add("has the name of View.at(…), which makes aliases; choose another", field=feature.name)


def _check_statement(words: ViewWords, mistakes: Mistakes) -> None:
    if not is_on_demand(words["source"]):
        _check_derives("source", words["source"], Topic, ", or an on-demand view to store the features of", mistakes)
    _check_derives("entity", words["entity"], Entity, "", mistakes)
    ttl = words["ttl"]
    if not isinstance(ttl, datetime.timedelta):
        mistakes.add(f"has ttl={ttl!r}; write timedelta(hours=…)")
    elif ttl < datetime.timedelta(0):
        mistakes.add(f"has ttl={ttl!r}, which is negative; use timedelta(0) for rows that count for ever")
    if "freshness" in words:
        _check_freshness(words["freshness"], ttl, mistakes)
    check_version(words.get("version", 1), mistakes)


def _check_derives(word: str, given: object, base: type, otherwise: str, mistakes: Mistakes) -> None:
    if not (isinstance(given, type) and issubclass(given, base) and given is not base):
        mistakes.add(f"has {word}={given!r}; give a class that derives from {base.__name__}{otherwise}")


def check_version(version: object, mistakes: Mistakes) -> None:
    """Note a version that is none."""
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        mistakes.add(f"has version={version!r}; use an integer from 1 to {MAX_VERSION}")


def _check_freshness(freshness: object, ttl: object, mistakes: Mistakes) -> None:
    if not isinstance(freshness, datetime.timedelta):
        mistakes.add(f"has freshness={freshness!r}; write timedelta(minutes=…)")
    elif freshness <= datetime.timedelta(0):
        mistakes.add(f"has freshness={freshness!r}; an objective is longer than nothing")
    elif isinstance(ttl, datetime.timedelta) and datetime.timedelta(0) < ttl < freshness:
        mistakes.add(
            f"has freshness={freshness!r}, which is longer than its ttl, so that no row is ever late: it is "
            "outside its age before; make freshness shorter"
        )


def _check_feature(
    declared: Declared[Feature[Any]], source: TopicSpec, maker: Maker | None, mistakes: Mistakes
) -> None:
    expression = declared.field.expression
    if maker is None and expression is None:
        mistakes.add("has no expression; write `= feature(…)`", field=declared.name)
    elif maker is not None and expression is not None:
        mistakes.add(
            f"has an expression, but the view has a {maker.word} function; take one of them away", field=declared.name
        )
    elif maker is None and (problem := expression_problem(expression, source, declared.type)):
        mistakes.add(problem, field=declared.name)


def _keys(
    words: ViewWords, source: TopicSpec, entity: EntitySpec, maker: Maker | None, mistakes: Mistakes
) -> tuple[pl.Expr, ...]:
    given = words.get("keys", {})
    if maker is not None:
        if "keys" in words:
            mistakes.add(f"has keys=…, but its {maker.word} function gives the keys; take keys=… away")
        return ()
    wanted = {key.name: key.type for key in entity.keys}
    for name in given.keys() - wanted.keys():
        mistakes.add(f"maps the key {name!r}, which {entity.name} does not have{did_you_mean(name, wanted)}")
    for name, key_type in wanted.items():
        if name not in given:
            mistakes.add(f'does not map the key {name} of {entity.name}; add keys={{"{name}": {source.name}.…}}')
        elif problem := expression_problem(given[name], source, key_type):
            mistakes.add(f"has a key {name!r} that {problem}")
    return tuple(given[name] for name in wanted if name in given and isinstance(given[name], pl.Expr))
