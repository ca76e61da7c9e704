"""Views that store an on-demand view's features: what their class statements say."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from stillwell.definitions.columns import Feature
from stillwell.definitions.fields import Declared
from stillwell.definitions.functions import Maker
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.references import reference_of
from stillwell.spec import FeatureSpec, OnDemandSpec
from stillwell.types import FieldType


def is_on_demand(source: object) -> TypeGuard[type[Any]]:
    """Whether it is an on-demand view: by what it says, since the class's module imports that of views."""
    return isinstance(source, type) and isinstance(getattr(source, "spec", None), OnDemandSpec)


def check_on_write(words: Mapping[str, Any], functions: Mapping[str, Maker], mistakes: Mistakes) -> None:
    """Note what a view has that its on-demand view makes meaningless."""
    source = words["source"].__name__
    if "keys" in words:
        mistakes.add(f"has keys=…, but what is pushed for {source} brings the keys by their names; take keys=… away")
    if "where" in words:
        mistakes.add(f"has where=…, but its source {source} is an on-demand view: every push counts; take where=… away")
    if functions:
        name, function = next(iter(functions.items()))
        mistakes.add(f"has the {function.word} function {name}, but {source} computes its features; take it away")


def taken_over(
    cls: type, source: type[Any], declared: Sequence[Declared[Feature[Any]]], mistakes: Mistakes
) -> tuple[FeatureSpec, ...]:
    """The features that a view stores: those that it declares, or all that its on-demand view has. The latter get
    descriptors on the class, like any other."""
    spec: OnDemandSpec = source.spec
    if not declared:
        for feature in spec.features:
            made: Feature[Any] = Feature(feature.expression, feature.description)
            made.__set_name__(cls, feature.name)
            setattr(cls, feature.name, made)
        return spec.features
    known = {feature.name: feature for feature in spec.features}
    return tuple(taken for each in declared if (taken := _one_taken_over(each, source, known, mistakes)) is not None)


def _one_taken_over(
    declared: Declared[Feature[Any]], source: type[Any], known: Mapping[str, FeatureSpec], mistakes: Mistakes
) -> FeatureSpec | None:
    given = declared.field.expression
    reference = reference_of(given)
    if given is None:
        name = declared.name
        meant = f"write `= feature({source.__name__}.{name})`" if name in known else _which(name, source, known)
        mistakes.add(f"does not say which feature of {source.__name__} it is; {meant}", field=name)
        return None
    if reference is None or reference.owner is not source:
        mistakes.add(
            f"is not a feature of {source.__name__} as it stands, and its source is that on-demand view; "
            f"compute in {source.__name__}, and {_which(declared.name, source, known)}",
            field=declared.name,
        )
        return None
    origin = known[reference.field]
    if declared.type is not origin.type or (origin.nullable and not declared.nullable):
        now, then = _type(declared.type, declared.nullable), _type(origin.type, origin.nullable)
        mistakes.add(
            f"is declared {now}, but {source.__name__}.{origin.name} is {then}; declare Feature[{then}]",
            field=declared.name,
        )
    return origin.model_copy(
        update={
            "name": declared.name,
            "nullable": declared.nullable,
            "description": declared.field.description or origin.description,
        }
    )


def _which(name: str, source: type[Any], known: Mapping[str, FeatureSpec]) -> str:
    example = name if name in known else next(iter(known))
    near = "" if name in known else did_you_mean(name, known)
    return f"write `= feature({source.__name__}.{example})`{near}"


def _type(kind: FieldType, nullable: bool) -> str:
    return f"{kind.name} | None" if nullable else kind.name
