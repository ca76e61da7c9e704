"""Which type an annotation means, and what is wrong with one that means none.

Float32                                     a single value
list[Float32]                               a list of any length
Annotated[list[Float32], Size(128)]         a vector: a list of exactly so many
"""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import polars as pl

from stillwell.types import FIELD_TYPES, MAX_SIZE, FieldType, Size, list_of, of_polars, vector_of

SCALARS = tuple(FIELD_TYPES)
"""The names of the types of single values."""

_SCALARS = ", ".join(SCALARS)
_SUGGESTIONS = {bool: "Bool", int: "Int64", float: "Float64", str: "String", bytes: "Bytes"}
_VECTOR = "Annotated[list[Float32], Size(128)]"


def field_type_of(annotation: object) -> FieldType | None:
    """The type that an annotation means; None where it means none."""
    if (scalar := _scalar(annotation)) is not None:
        return scalar
    listed, sizes = _without_size(annotation)
    element = _scalar(_element(listed))
    if element is None or len(sizes) > 1:
        return None
    if not sizes:
        return list_of(element)
    (size,) = sizes
    return vector_of(element, size.size) if _is_size(size.size) else None


def type_problem(annotation: object) -> str:
    """What is wrong with an annotation that means no type. Reads on from `has the type …, `."""
    listed, sizes = _without_size(annotation)
    if listed is list or get_origin(listed) is list:
        return _list_problem(listed, sizes)
    if sizes:
        return f"which has a Size, and is no list; write {_VECTOR}, or take Size away"
    if _is_array(listed):
        return f"which is no list; use list[Float32], or {_VECTOR} where all are of one length"
    better = _SUGGESTIONS.get(annotation) if isinstance(annotation, type) else None
    return f"which says no width; use {better or f'one of {_SCALARS} from stillwell'}"


def shown_type(annotation: object) -> str:
    """A type as its author wrote it, as far as that can be told."""
    if (field_type := field_type_of(annotation)) is not None:
        return field_type.name
    listed, sizes = _without_size(annotation)
    if sizes:
        return f"Annotated[{shown_type(listed)}, {', '.join(f'Size({each.size!r})' for each in sizes)}]"
    if get_origin(listed) is list:
        return f"list[{', '.join(map(shown_type, get_args(listed)))}]"
    if get_origin(listed) in (Union, types.UnionType):
        return " | ".join("None" if each is types.NoneType else shown_type(each) for each in get_args(listed))
    return listed.__name__ if isinstance(listed, type) and not get_args(listed) else str(listed)


def _list_problem(listed: object, sizes: list[Size]) -> str:
    element = _element(listed)
    if element is None:
        return "which says nothing of its elements; write list[Float32]"
    if get_origin(_without_size(element)[0]) is list or element is list:
        return "a list of lists, which are not stored; flatten it, or give each inner list a field of its own"
    if types.NoneType in get_args(element):
        return "whose elements are never null; take `| None` away from them, or declare the list itself `| None`"
    if _scalar(element) is None:
        better = _SUGGESTIONS.get(element) if isinstance(element, type) else None
        return f"whose elements have no width; use {f'list[{better}]' if better else f'one of {_SCALARS} in it'}"
    if len(sizes) > 1:
        return "which has several sizes; keep one"
    return f"whose size is no integer from 1 to {MAX_SIZE}; write one, as Size(128)"


def _scalar(annotation: object) -> FieldType | None:
    """The type of a single value that an annotation means."""
    if get_origin(annotation) is not Annotated:
        return None
    extras = get_args(annotation)[1:]
    if any(isinstance(each, Size) for each in extras):
        return None
    found = (of_polars(each) for each in extras if isinstance(each, pl.DataType))
    return next((kind for kind in found if kind is not None and kind.element is None), None)


def _without_size(annotation: object) -> tuple[object, list[Size]]:
    """What an annotation annotates, and the sizes that it says. What says no size stays as it is."""
    if get_origin(annotation) is Annotated:
        annotated, *extras = get_args(annotation)
        sizes = [each for each in extras if isinstance(each, Size)]
        if sizes:
            rest = tuple(each for each in extras if not isinstance(each, Size))
            return (Annotated[(annotated, *rest)] if rest else annotated), sizes
    return annotation, []


def _element(listed: object) -> Any:
    """What a list is of; None for what is no list, or does not say."""
    arguments = get_args(listed)
    return arguments[0] if get_origin(listed) is list and len(arguments) == 1 else None


def _is_size(size: object) -> bool:
    return type(size) is int and 1 <= size <= MAX_SIZE


def _is_array(annotation: object) -> bool:
    """Whether it is something else than a list that holds several values."""
    origin = get_origin(annotation) or annotation
    if isinstance(annotation, pl.DataType):
        return isinstance(annotation, pl.List | pl.Array)
    if not isinstance(origin, type) or issubclass(origin, str | bytes | Mapping):
        return False
    return issubclass(origin, pl.List | pl.Array) or hasattr(origin, "__iter__")
