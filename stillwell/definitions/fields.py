"""The fields that a class body declares, read from its annotations."""

import dataclasses
import datetime
import inspect
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from stillwell.definitions.annotated import SCALARS, field_type_of, shown_type, type_problem
from stillwell.definitions.columns import Feature, Field, Key
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.names import doubles, name_problem
from stillwell.spec import FeatureSpec
from stillwell.types import FieldType

F = TypeVar("F", bound=Field[Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Declared(Generic[F]):
    """One field: its name, what type it has, whether it may be null, and the descriptor that stands on the class."""

    name: str
    type: FieldType
    nullable: bool
    field: F


def declared_fields(cls: type, kind: type[F], mistakes: Mistakes) -> list[Declared[F]]:
    """The fields of a class body in order; puts a descriptor on the class for each that has none.

    Whatever is not of this kind is noted as a mistake, but names with a leading underscore: those are helpers of the
    body.
    """
    fields = []
    for name, annotation in inspect.get_annotations(cls).items():
        if problem := name_problem(name):
            mistakes.add(problem, field=name)
        elif (parsed := _parse(cls, name, annotation, kind, mistakes)) is not None:
            fields.append(Declared(name, *parsed, _descriptor(cls, name, kind, mistakes)))
    for name in _without_type(cls):
        mistakes.add(f"has no type; write `{name}: {kind.__name__}[…] = …`", field=name)
    names = [field.name for field in fields]
    for first, second in doubles(names):
        problem = f"differs from {names[first]} by case alone, which SQL engines do not see; rename one"
        mistakes.add(problem, field=names[second])
    return fields


def feature_specs(features: Iterable[Declared[Feature[Any]]]) -> tuple[FeatureSpec, ...]:
    """What the fields of a view say."""
    return tuple(
        FeatureSpec(
            name=declared.name,
            type=declared.type,
            nullable=declared.nullable,
            expression=declared.field.expression,
            description=declared.field.description,
        )
        for declared in features
    )


def _without_type(cls: type) -> Iterator[str]:
    annotated = inspect.get_annotations(cls)
    return (name for name, value in vars(cls).items() if isinstance(value, Field) and name not in annotated)


def _descriptor(cls: type, name: str, kind: type[F], mistakes: Mistakes) -> F:
    """The field's own descriptor, made by `col(…)` or `feature(…)`, or else a new one, put in its place."""
    given = vars(cls).get(name)
    if isinstance(given, kind):
        return given
    if given is not None:
        mistakes.add(f"is set to {given!r}; use {kind.__name__.lower()}(…)", field=name)
    made = kind()
    made.__set_name__(cls, name)
    setattr(cls, name, made)
    return made


_MEANT: Mapping[object, str] = {
    bool: "Bool",
    int: "Int64",
    float: "Float64",
    bytes: "Bytes",
    datetime.datetime: "Timestamp",
}
"""The types that stand for Python's, where no other is said."""


def _parse(
    cls: type, name: str, annotation: object, kind: type[Field[Any]], mistakes: Mistakes
) -> tuple[FieldType, bool] | None:
    """The type and nullability that `Col[Float32 | None]` says; None, and a mistake, where it says neither."""
    example = f"write `{name}: {kind.__name__}[String]`"
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, vars(sys.modules[cls.__module__]), dict(vars(cls)))
        except NameError as error:
            near = did_you_mean(error.name or "", [*SCALARS, kind.__name__])
            mistakes.add(f"has an annotation that cannot be read: {error}{near}", field=name)
            return None
        except Exception as error:
            mistakes.add(f"has an annotation that cannot be read: {error}; {example}", field=name)
            return None
    if get_origin(annotation) is not kind:
        meant = _meant(annotation, kind)
        mistakes.add(f"is annotated {_shown(annotation)}; write `{name}: {kind.__name__}[{meant}]`", field=name)
        return None
    (inner,) = get_args(annotation)
    members = _members(inner)
    nullable = type(None) in members
    members.discard(type(None))
    if len(members) != 1:
        mistakes.add(f"has several types, {_shown(inner)}; choose one, with `| None` where it may be null", field=name)
        return None
    (member,) = members
    field_type = field_type_of(member)
    if field_type is None:
        mistakes.add(f"has the type {_shown(member)}, {type_problem(member)}", field=name)
        return None
    return field_type, nullable


def _meant(annotation: object, kind: type[Field[Any]]) -> str:
    """The type that stands for Python's; String where there is none, and for a float as a key, which no float is."""
    meant = _MEANT.get(annotation, "String") if isinstance(annotation, type) else "String"
    return "String" if kind is Key and meant == "Float64" else meant


def _members(annotation: object) -> set[object]:
    if get_origin(annotation) in (Union, types.UnionType):
        return set(get_args(annotation))
    return {annotation}


def _shown(annotation: object) -> str:
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Field):
        return f"{origin.__name__}[{', '.join(map(_shown, get_args(annotation)))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(_shown, get_args(annotation)))
    return shown_type(annotation)


def refuse_strangers(cls: type, known: Collection[str], fix: str, mistakes: Mistakes) -> None:
    """Note every public attribute of a class body that is no field of it."""
    fields = inspect.get_annotations(cls)
    for name, value in vars(cls).items():
        if not (name.startswith("_") or name in fields or name in known or isinstance(value, Field)):
            mistakes.add(f"is no field; {fix}", field=name)
