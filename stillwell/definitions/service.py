"""Feature services: lists of features under a name."""

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar, Required, Unpack

import polars as pl

from stillwell.definitions.alias import Alias
from stillwell.definitions.aliases import UNNAMED, AliasNames, text_of
from stillwell.definitions.fields import refuse_strangers
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.model import Model
from stillwell.definitions.on_demand import OnDemandView
from stillwell.definitions.references import Reference, reference_of
from stillwell.definitions.request import Request
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View
from stillwell.definitions.words import CardWords, card, check_class, check_words
from stillwell.spec import FeatureServiceSpec

Listed = pl.Expr | type[View] | Alias | type[OnDemandView] | type[Model]


class FeatureServiceWords(CardWords, total=False):
    """What may follow `FeatureService` in the class statement."""

    features: Required[tuple[Listed, ...]]


class FeatureService:
    """A list of features under a name, which requests may give in its place:

        class DelayInputs(FeatureService, features=(AirportDepartures.late, RouteDepartures, Origin.late)):
            \"\"\"What the delay model is asked with.\"\"\"

    A view, alias, on-demand view or model stands for all of its features or outputs.
    """

    spec: ClassVar[FeatureServiceSpec]
    _references: ClassVar[tuple[Reference, ...]]

    def __init_subclass__(cls, **words: Unpack[FeatureServiceWords]) -> None:
        """Read the class statement. Raises DefinitionError with every mistake in it."""
        mistakes = Mistakes(cls)
        check_class(cls, FeatureService, mistakes)
        complete = check_words(words, FeatureServiceWords, mistakes)
        for name in inspect.get_annotations(cls):
            mistakes.add("is a field, and a feature service has none; name it in features=(…)", field=name)
        refuse_strangers(cls, (), "a feature service has no fields; name features in features=(…)", mistakes)
        cls._references = tuple(_references(words["features"], mistakes)) if complete else ()
        named = [shown(each) for each in cls._references]
        for twice in dict.fromkeys(name for number, name in enumerate(named) if name in named[:number]):
            mistakes.add(f"has {twice} twice; name each feature once")
        told = card(cls, words, mistakes)
        mistakes.check()
        cls.spec = FeatureServiceSpec(name=cls.__name__, features=_texts(cls._references, UNNAMED), **told)

    @classmethod
    def _uses(cls) -> Iterator[Any]:
        """The definitions that it refers to."""
        yield from dict.fromkeys(each.owner for each in cls._references)

    @classmethod
    def _named(cls, names: AliasNames) -> FeatureServiceSpec:
        """What it says, now that aliases have names."""
        cls.spec = cls.spec.model_copy(update={"features": _texts(cls._references, names)})
        return cls.spec


def _references(given: object, mistakes: Mistakes) -> Iterator[Reference]:
    if not isinstance(given, tuple) or not given:
        mistakes.add(f"has features={given!r}; write a tuple of features, as features=(AirportDepartures.late,)")
        return
    for each in given:
        if (fields := fields_of(each)) is not None:
            yield from (Reference(each, field) for field in fields)
            continue
        reference = reference_of(each)
        if reference is None:
            mistakes.add(
                f"has {each} in features; name features as they stand (View.feature), and compute in an OnDemandView"
            )
        elif fields_of(reference.owner) is None:
            mistakes.add(
                f"has {shown(reference)}, which is {kind_of(reference.owner)}; name features and outputs alone"
            )
        else:
            yield reference


def fields_of(owner: object) -> list[str] | None:
    """The names of all features or outputs of a definition; None for anything that has neither."""
    if isinstance(owner, Alias):
        owner = owner._view
    if not isinstance(owner, type) or owner in (View, OnDemandView, Model):
        return None
    if issubclass(owner, View | OnDemandView):
        return [feature.name for feature in owner.spec.features]
    return [output.name for output in owner.spec.outputs] if issubclass(owner, Model) else None


def kind_of(owner: type) -> str:
    """What a field of an owner is that has no features."""
    if issubclass(owner, Topic):
        return "a column of a topic"
    return "a value that a request brings" if issubclass(owner, Request) else "a key"


def shown(reference: Reference) -> str:
    """A field as definitions write it."""
    owner = reference.owner
    return f"{owner._qualifier if isinstance(owner, Alias) else owner.__name__}.{reference.field}"


def _texts(references: tuple[Reference, ...], names: AliasNames) -> tuple[str, ...]:
    return tuple(text_of(each, names) for each in references)
