"""On-demand views: features computed when they are read."""

from collections.abc import Iterator
from typing import Any, ClassVar, Required, Unpack

import polars as pl

from stillwell.definitions.alias import Alias
from stillwell.definitions.aliases import UNNAMED, AliasNames
from stillwell.definitions.checks import check_on_demand_nulls
from stillwell.definitions.columns import Feature
from stillwell.definitions.expressions import on_demand_problem
from stillwell.definitions.fields import Declared, declared_fields, feature_specs, refuse_strangers
from stillwell.definitions.functions import Maker
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.request import Request
from stillwell.definitions.source import location, source_digest
from stillwell.definitions.view import View, check_version
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.evaluate import root_names
from stillwell.spec import AS_OF as AS_OF_COLUMN
from stillwell.spec import (
    OnDemandInput,
    OnDemandSpec,
    RequestSpec,
    input_fields,
    input_qualifier,
)

AS_OF = pl.col(AS_OF_COLUMN)
"""The instant for which an on-demand feature is computed, a Timestamp: the request's online, the row's over history,
the event's on write. Nothing else reads a clock."""

Input = type[View] | Alias | type[Request]


class OnDemandWords(CardWords, total=False):
    """What may follow `OnDemandView` in the class statement."""

    inputs: Required[tuple[Input, ...]]
    version: int


class OnDemandView:
    """Features that are computed when they are read, from stored features, request values and AS_OF:

        class Waiting(OnDemandView, inputs=(AirportDepartures, Search)):
            quiet_s: Feature[Int64 | None] = feature((AS_OF - AirportDepartures.departed_at).dt.total_seconds())

    inputs are views, aliases and requests; version is raised when what it computes is meant to change. What is not
    stored for an entity, or is past its TTL, is null to the expressions: a feature that is never null says by
    `.fill_null(…)` what it is then.
    """

    spec: ClassVar[OnDemandSpec]
    _inputs: ClassVar[tuple[Input, ...]]

    def __init_subclass__(cls, **words: Unpack[OnDemandWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, OnDemandView, mistakes)
        complete = check_words(words, OnDemandWords, mistakes)
        features = declared_fields(cls, Feature, mistakes)
        functions = {name: value for name, value in vars(cls).items() if isinstance(value, Maker)}
        for name, function in functions.items():
            mistakes.add(f"is a {function.word} function; compute in expressions, by feature(…)", field=name)
        refuse_strangers(cls, functions, "an on-demand view has `Feature[…]` fields alone", mistakes)
        if not features and not mistakes.messages:
            mistakes.add("has no feature; write `<name>: Feature[Int64 | None] = feature(…)`")
        check_version(words.get("version", 1), mistakes)
        if complete:
            _check_inputs(words["inputs"], mistakes)
        told = card(cls, words, mistakes)
        mistakes.check()
        cls._inputs = words["inputs"]
        cls.spec = _spec(cls, features, words.get("version", 1)).model_copy(update=told)
        _check_features(cls.spec, mistakes)
        mistakes.check()
        check_on_demand_nulls(cls.spec, mistakes)
        mistakes.check()

    @classmethod
    def _uses(cls) -> Iterator[Any]:
        """The definitions that it refers to."""
        yield from cls._inputs

    @classmethod
    def _named(cls, names: AliasNames) -> OnDemandSpec:
        """What it says, now that aliases have names."""
        for given in cls._inputs:
            view = given._view if isinstance(given, Alias) else given
            if issubclass(view, View):
                view._named(names)
        cls.spec = cls.spec.model_copy(update={"inputs": tuple(_input_spec(each, names) for each in cls._inputs)})
        return cls.spec


def _check_inputs(inputs: object, mistakes: Mistakes) -> None:
    if not isinstance(inputs, tuple) or not inputs:
        mistakes.add(f"has inputs={inputs!r}; write a tuple of views, aliases and requests, as inputs=(Airport…,)")
        return
    seen: set[str] = set()
    for given in inputs:
        if isinstance(given, type) and issubclass(given, OnDemandView) and given is not OnDemandView:
            mistakes.add(f"has the input {given.__name__}, an on-demand view; give what that is computed from")
        elif not is_input(given):
            mistakes.add(f"has the input {_shown(given)}; give views, aliases (View.at(…)) and requests")
        else:
            qualifier = input_qualifier(_input_spec(given, UNNAMED))
            if qualifier in seen:
                mistakes.add(f"has the input {_shown(given)} twice; give each once")
            seen.add(qualifier)


def is_input(given: object) -> bool:
    """Whether an on-demand view can read it."""
    if isinstance(given, type):
        return issubclass(given, View | Request) and given not in (View, Request)
    return isinstance(given, Alias)


def _shown(given: object) -> str:
    return given.__name__ if isinstance(given, type) else repr(given)


def _input_spec(given: Input, names: AliasNames) -> OnDemandInput:
    return names.spec(given) if isinstance(given, Alias) else given.spec


def _spec(cls: type[OnDemandView], features: list[Declared[Feature[Any]]], version: int) -> OnDemandSpec:
    return OnDemandSpec(
        name=cls.__name__,
        version=version,
        inputs=tuple(_input_spec(each, UNNAMED) for each in cls._inputs),
        features=feature_specs(features),
        file=location(cls),
        source_digest=source_digest(cls, *(each._view if isinstance(each, Alias) else each for each in cls._inputs)),
    )


def _check_features(spec: OnDemandSpec, mistakes: Mistakes) -> None:
    taken = _names_beside(spec)
    read: set[str] = set()
    for feature in spec.features:
        if owner := taken.get(feature.name.casefold()):
            mistakes.add(f"has the name of {owner}; rename the feature", field=feature.name)
        if feature.expression is None:
            mistakes.add("has no expression; write `= feature(…)`", field=feature.name)
        elif problem := on_demand_problem(feature.expression, spec.inputs, feature.type):
            mistakes.add(problem, field=feature.name)
        else:
            read.update(root_names(feature.expression))
    if not mistakes.messages:
        for given in spec.inputs:
            if not read & input_fields(given).keys():
                mistakes.add(f"has the input {input_qualifier(given)}, which no feature reads; take it out")


def _names_beside(spec: OnDemandSpec) -> dict[str, str]:
    """What stands beside the features in an answer or a row: keys and request columns, by their names in lower case."""
    taken: dict[str, str] = {}
    for given in spec.inputs:
        if isinstance(given, RequestSpec):
            names = {column.name: f"{given.name}.{column.name}" for column in given.columns}
        else:
            names = {key.name: f"{given.entity.name}'s key {key.name}" for key in given.entity.keys}
        taken |= {name.casefold(): shown for name, shown in names.items()}
    return taken
