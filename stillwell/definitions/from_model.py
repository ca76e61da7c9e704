"""Topics from a team's pydantic models: which columns a model's fields are, and what of a model no column can say.

Nothing of a model is run on records: the decoder alone judges them. So whatever a model asks that a column's type and
rules do not say is a mistake, until the topic's author redeclares the column, or says to do without.
"""

import dataclasses
import datetime
import enum
import inspect
import re
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types as at
from pydantic import AliasPath, AllowInfNan, AwareDatetime, BaseModel, RootModel, Strict
from pydantic.fields import FieldInfo

from stillwell.definitions.columns import Col, ColumnOptions, Field, Rule
from stillwell.definitions.fields import Declared
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, FieldType, list_of

_TYPES: Mapping[object, FieldType] = {
    bool: BOOL,
    int: INT64,
    float: FLOAT64,
    str: STRING,
    datetime.datetime: TIMESTAMP,
    AwareDatetime: TIMESTAMP,
}
_INSTEAD: Mapping[object, str] = {
    Decimal: "`{name}: Col[String{null}]`, or Col[Float64{null}] where producers write a number",
    bytes: "`{name}: Col[Bytes{null}]`, which is base64, or Col[String{null}]",
    uuid.UUID: "`{name}: Col[String{null}]`",
    datetime.date: "`{name}: Col[String{null}]`",
    datetime.time: "`{name}: Col[String{null}]`",
    datetime.timedelta: "`{name}: Col[String{null}]`",
}
"""What to declare for a type that no column has, as producers write it in JSON. null: where it may be null."""

_LONGEST = 1_000
"""Characters up to which a length can be a pattern: it is compiled to as many states."""

_NOT_ASKED = (Strict, AllowInfNan)
"""What decoding is anyway: of one type, and of numbers that JSON has."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field of a model that is a column.

    type: None where no column can hold it. problems: what no column can say of it; each reads on from its name.
    """

    name: str
    type: FieldType | None
    nullable: bool
    options: ColumnOptions
    problems: tuple[str, ...]


class ModelColumns:
    """The columns that a topic has of a model: put on the class before its fields are read, and settled afterwards."""

    def __init__(self, cls: type, model: object, without: object, mistakes: Mistakes) -> None:
        """model, without: as the class statement gives them. What is wrong with them is noted as a mistake."""
        self._cls = cls
        self._mistakes = mistakes
        self._body = dict(inspect.get_annotations(cls))
        self._bare = {name for name in self._body if not isinstance(vars(cls).get(name), Field)}
        self._found: dict[str, _Field] = {}
        self.closed = False
        """Whether the model refuses records with fields that it does not have."""
        if not _has_fields(model):
            mistakes.add(f"has model={model!r}; give a class that derives from pydantic.BaseModel")
            return
        reader = _Reader(model, _names(without, mistakes), mistakes)
        for field in reader.fields():
            if field.name in self._found:
                mistakes.add(f"is two fields of {model.__name__}; leave one out by without=(…,)", field=field.name)
            self._found[field.name] = field
        reader.check_without()
        self.closed = reader.closed()
        self._put()

    def settle(self, fields: Iterable[Declared[Col[Any]]]) -> None:
        """Give what the body says of the model's columns the rest that it does not say; note what nobody has settled.

        A name with a type alone is the model's column, as type checkers want it written, if the type is the model's.
        """
        redeclared = set()
        for declared in fields:
            found = self._found.get(declared.name)
            if found is None or declared.name not in self._body:
                continue
            if declared.name in self._bare and (declared.type, declared.nullable) == (found.type, found.nullable):
                declared.field.options = found.options
            else:
                redeclared.add(declared.name)
                declared.field.options = _in_its_place(declared.field.options, found.options)
        for field in self._found.values():
            if field.name not in redeclared:
                for problem in field.problems:
                    self._mistakes.add(problem, field=field.name)

    def _put(self) -> None:
        """On the class, as if its body had declared them; before those that it does."""
        of_model = {}
        for field in self._found.values():
            if field.type is not None:
                kind: Any = _written(field.type)
                of_model[field.name] = Col[kind | None] if field.nullable else Col[kind]
                if field.name not in self._body:
                    made: Col[Any] = Col(field.options)
                    made.__set_name__(self._cls, field.name)
                    setattr(self._cls, field.name, made)
        self._cls.__annotations__ = {**of_model, **self._body}


def _has_fields(model: object) -> TypeGuard[type[BaseModel]]:
    """Whether it is a model of objects. What a RootModel holds stands in its place, not within it."""
    if not isinstance(model, type):
        return False
    return issubclass(model, BaseModel) and model is not BaseModel and not issubclass(model, RootModel)


def _written(kind: FieldType) -> Any:
    """A type as an annotation has it."""
    return types.GenericAlias(list, (_written(kind.element),)) if kind.element else Annotated[kind.python, kind.polars]


def _names(without: object, mistakes: Mistakes) -> dict[str, bool]:
    """The names to do without, none of them met so far."""
    if not isinstance(without, tuple) or not all(isinstance(each, str) for each in without):
        mistakes.add(f'has without={without!r}; write a tuple of names, as without=("note", "payer.account")')
        return {}
    return dict.fromkeys(without, False)


def _in_its_place(said: ColumnOptions, of_model: ColumnOptions) -> ColumnOptions:
    """What the body says of a column, read from the model's field unless it says from where."""
    elsewhere = said.path is not None or said.key or said.header is not None or said.record_timestamp
    return said if elsewhere else dataclasses.replace(said, path=of_model.path)


class _Reader:
    """Goes through a model and those within it."""

    def __init__(self, model: type[BaseModel], without: dict[str, bool], mistakes: Mistakes) -> None:
        """without: what is met is marked."""
        self._model = model
        self._without = without
        self._mistakes = mistakes
        self._known: list[str] = []
        self._validators: set[str] = set()
        self._extras: dict[str, bool] = {}

    def fields(self) -> Iterator[_Field]:
        """Those that are columns. What is wrong with others, and with models as a whole, is noted."""
        yield from self._fields_of(self._model, (), (), nullable=False, within=())

    def check_without(self) -> None:
        """Note names that nothing has."""
        for name, met in self._without.items():
            if not met:
                near = did_you_mean(name, self._known)
                self._mistakes.add(f"does without {name!r}, which {self._model.__name__} does not have{near}")

    def closed(self) -> bool:
        """Whether every model forbids what it does not have; that some do alone is noted, as columns cannot say it."""
        forbidding = [name for name, forbids in self._extras.items() if forbids]
        if forbidding and (others := [name for name, forbids in self._extras.items() if not forbids]):
            self._mistakes.add(
                f'has a model {forbidding[0]} with extra="forbid", and {others[0]} without; let all of them forbid, or '
                "none: a topic takes the fields of its columns alone, or any besides"
            )
        elif forbidding and (left_out := [name for name in self._without if name not in self._validators]):
            self._mistakes.add(
                f'has a model {forbidding[0]} with extra="forbid", and leaves {left_out[0]} out, which would be '
                "refused then; declare it in the body, or let the model ignore what it does not have"
            )
        return bool(forbidding)

    def _fields_of(
        self,
        model: type[BaseModel],
        names: tuple[str, ...],
        path: tuple[str, ...],
        *,
        nullable: bool,
        within: tuple[type[BaseModel], ...],
    ) -> Iterator[_Field]:
        self._extras[model.__name__] = model.model_config.get("extra") == "forbid"
        validators = _validators_of(model)
        self._check_whole(model, names, validators)
        for name, info in model.model_fields.items():
            dotted = ".".join((*names, name))
            if self._does_without(dotted):
                continue
            described = _described(model, name, info)
            asks = [each for each in validators.get(name, ()) if not self._does_without_validator(names, each)]
            described.problems += [f"the validator {each}" for each in asks]
            if asks:
                described.otherwise = f', or do without the validator by its name, "{".".join((*names, asks[0]))}"'
            here, there = (*names, name), (*path, *described.path)
            kind, may_be_null = described.annotation, nullable or described.nullable
            if _has_fields(kind) and described.path:
                self._check_nested(dotted, model, kind, described, within)
                if kind not in (*within, model):
                    yield from self._fields_of(kind, here, there, nullable=may_be_null, within=(*within, model))
                continue
            yield described.column("_".join(here), dotted, there, nullable=may_be_null)

    def _check_whole(self, model: type[BaseModel], names: tuple[str, ...], validators: Mapping[str, list[str]]) -> None:
        for name in validators.get("", ()):
            if not self._does_without_validator(names, name):
                dotted = ".".join((*names, name))
                self._mistakes.add(
                    f"has a model {model.__name__} with the validator {name}, which is not run on records: say what it "
                    f'asks by col(…), or in where=…, and do without it, by without=("{dotted}",)'
                )

    def _check_nested(
        self,
        dotted: str,
        model: type[BaseModel],
        kind: type[BaseModel],
        described: "_Described",
        within: tuple[type[BaseModel], ...],
    ) -> None:
        """Note what no column can say of a field that is an object."""
        if kind in (*within, model):
            described.problems.append(f"{kind.__name__} within itself")
        if described.problems:
            asked = " and ".join(described.problems)
            self._mistakes.add(
                f"has a model whose {dotted} asks for {asked}, which a topic does not look at; leave it out by "
                f'without=("{dotted}",)'
            )

    def _does_without(self, name: str) -> bool:
        self._known.append(name)
        if name in self._without:
            self._without[name] = True
        return name in self._without

    def _does_without_validator(self, names: tuple[str, ...], name: str) -> bool:
        dotted = ".".join((*names, name))
        self._validators.add(dotted)
        return self._does_without(dotted)


def _validators_of(model: type[BaseModel]) -> Mapping[str, list[str]]:
    """The names of a model's validators, by the field that each is of, and under '' those of the whole."""
    decorators: Any = model.__pydantic_decorators__
    found: dict[str, list[str]] = {"": [*decorators.model_validators, *decorators.root_validators]}
    for name, decorator in {**decorators.validators, **decorators.field_validators}.items():
        for field in model.model_fields if "*" in decorator.info.fields else decorator.info.fields:
            found.setdefault(field, []).append(name)
    after = next((each for each in model.__mro__ if "model_post_init" in vars(each)), BaseModel)
    if after is not BaseModel and vars(after)["model_post_init"].__module__ != "pydantic._internal._model_construction":
        found[""].append("model_post_init")
    return found


@dataclasses.dataclass(slots=True)
class _Described:
    """What a model says of one field. problems: what no column can say, each as a few words."""

    model: type[BaseModel]
    name: str
    annotation: object
    path: tuple[str, ...]
    nullable: bool
    rule: dict[str, Any]
    lengths: tuple[int, int | None] | None
    description: str
    problems: list[str]
    list_lengths: tuple[int | None, int | None] = (None, None)
    """The least and the most elements that a list must have."""
    otherwise: str = ""
    """What may be done instead, where it is asked for by a name."""

    def column(self, name: str, dotted: str, path: tuple[str, ...], *, nullable: bool) -> _Field:
        """As a column of this name."""
        kind, one_of = _kind(self.annotation)
        if one_of is not None:
            self.rule["one_of"] = one_of
        said = []
        if kind is None:
            said.append(self._say_no_type(name, dotted, nullable))
        elif self.lengths is not None:
            self._say_length()
        if self.problems:
            asked = " and ".join(self.problems)
            said.append(
                f"is {self.model.__name__}.{self.name}, which asks for {asked}, and no column can "
                f"say that: declare it in the body, {self._vector(name, kind, nullable) or 'with col(…)'}, or leave it "
                f'out by without=("{dotted}",){self.otherwise}'
            )
        options = ColumnOptions(path=path, must=Rule(**self.rule), description=self.description)
        return _Field(name, kind, nullable, options, tuple(said))

    def _say_no_type(self, name: str, dotted: str, nullable: bool) -> str:
        shown = _shown(self.annotation)
        instead = _INSTEAD.get(self.annotation) if isinstance(self.annotation, type) else None
        words = instead.format(name=name, null=" | None" if nullable else "") if instead else None
        declare = f"declare it in the body, as {words}, or " if words else ""
        return (
            f"is {self.model.__name__}.{self.name} of the type {shown}, which no column has: {declare}leave it out by "
            f'without=("{dotted}",)'
        )

    def _vector(self, name: str, kind: FieldType | None, nullable: bool) -> str:
        """How a list of numbers is declared that is always of one length; empty for what is none."""
        least, most = self.list_lengths
        if kind is None or kind.element is not FLOAT64 or not least or least != most or len(self.problems) > 2:
            return ""
        return f"as `{name}: Col[Annotated[list[Float32], Size({least})]{' | None' if nullable else ''}]`"

    def _say_length(self) -> None:
        """As a pattern, where the field has no other."""
        assert self.lengths is not None
        least, most = self.lengths
        if "regex" in self.rule or max(least, most or 0) > _LONGEST:
            self.problems.append(f"min_length={least}" if most is None else f"max_length={most}")
        else:
            self.rule["regex"] = "(?s:.{%d,%s})" % (least, "" if most is None else most)  # noqa: UP031  # of braces


def _described(model: type[BaseModel], name: str, info: FieldInfo) -> _Described:
    annotation, metadata, nullable = _unwrapped(info.annotation, info.metadata)
    path = _path(model, name, info)
    found = _Described(model, name, annotation, path or (), nullable, {}, None, info.description or "", [])
    if path is None:
        found.problems.append("a field by several names, or in a list")
    if not info.is_required() and (info.default_factory is not None or info.default is not None):
        default = "a default that is made" if info.default_factory is not None else f"the default {info.default!r}"
        found.problems.append(f"{default} where it is missing, which is null")
    elif not info.is_required():
        found.nullable = True
    for each in metadata:
        _note(found, each)
    if annotation is str:
        _note_config(found)
    return found


def _note(found: _Described, constraint: object) -> None:
    """Have a constraint as a rule, or as a problem."""
    match constraint:
        case at.Ge(ge=bound):
            found.rule["ge"] = bound
        case at.Gt(gt=bound):
            found.rule["gt"] = bound
        case at.Le(le=bound):
            found.rule["le"] = bound
        case at.Lt(lt=bound):
            found.rule["lt"] = bound
        case at.MinLen(min_length=least) if found.annotation is str:
            found.lengths = (least, found.lengths[1] if found.lengths else None)
        case at.MaxLen(max_length=most) if found.annotation is str:
            found.lengths = (found.lengths[0] if found.lengths else 0, most)
        case at.MinLen(min_length=least):
            found.list_lengths = (least, found.list_lengths[1])
            found.problems.append(_shown(constraint))
        case at.MaxLen(max_length=most):
            found.list_lengths = (found.list_lengths[0], most)
            found.problems.append(_shown(constraint))
        case _ if isinstance(constraint, _NOT_ASKED):
            pass
        case _ if type(constraint).__module__ == "pydantic._internal._fields":
            _note_words(found, vars(constraint))
        case _:
            found.problems.append(_shown(constraint))


def _note_words(found: _Described, words: Mapping[str, Any]) -> None:
    """What pydantic has no class for: a pattern, and the like."""
    for word, value in words.items():
        if word == "pattern" and isinstance(value, re.Pattern) and value.flags & ~re.UNICODE:
            found.problems.append(f"pattern={value!r}")  # flags that a rule cannot have
        elif word == "pattern" and value is not None:
            found.rule["regex"] = _whole(value if isinstance(value, str) else value.pattern)
        elif value and word not in ("strict", "allow_inf_nan"):
            found.problems.append(f"{word}={value!r}")


def _note_config(found: _Described) -> None:
    """What a model's configuration asks of its texts."""
    config = found.model.model_config
    changes = ("str_strip_whitespace", "str_to_lower", "str_to_upper")
    found.problems += [f"{word}=True" for word in changes if config.get(word)]
    least, most = config.get("str_min_length", 0), config.get("str_max_length")
    if found.lengths is None and (least or most is not None):
        found.lengths = (least, most)


def _whole(pattern: str) -> str:
    """A pattern that pydantic looks for anywhere in a text, as one that all of the text must match."""
    if pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$") and "|" not in pattern:
        return pattern[1:-1]
    return f"(?s:.*)(?:{pattern})(?s:.*)"


def _unwrapped(annotation: object, metadata: Sequence[object]) -> tuple[object, list[object], bool]:
    """A type without what is said of it, that, and whether it may be null."""
    found, nullable = list(_flat(metadata)), False
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation = arguments[0]
            found += _flat(arguments[1:])
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
            annotation = next(each for each in arguments if each is not type(None))
            nullable = True
        else:
            return annotation, found, nullable


def _flat(metadata: Iterable[object]) -> Iterator[object]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from _flat(each.metadata)
        elif isinstance(each, at.GroupedMetadata):
            yield from _flat(each)
        else:
            yield each


def _path(model: type[BaseModel], name: str, info: FieldInfo) -> tuple[str, ...] | None:
    """Where in its object a field is; None where that is not one place."""
    alias = info.validation_alias
    if alias is None or model.model_config.get("validate_by_alias") is False:
        return (name,)
    if alias != name and any(model.model_config.get(word) for word in ("populate_by_name", "validate_by_name")):
        return None  # by either
    if isinstance(alias, str):
        return (alias,)
    if isinstance(alias, AliasPath) and all(isinstance(each, str) for each in alias.path):
        return tuple(str(each) for each in alias.path)
    return None


def _kind(annotation: object) -> tuple[FieldType | None, list[object] | None]:
    """The type of a column that holds it, if there is one, and which values alone."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        values = [each.value for each in annotation]
    elif get_origin(annotation) is Literal:
        values = [each.value if isinstance(each, enum.Enum) else each for each in get_args(annotation)]
    elif get_origin(annotation) is list:
        return _list_type(*get_args(annotation)), None
    else:
        return (_TYPES.get(annotation) if isinstance(annotation, type) else None), None
    kinds = {type(value) for value in values}
    common = kinds.pop() if len(kinds) == 1 else None
    return (_TYPES[common], values) if common in (str, int) else (None, None)


def _list_type(element: object) -> FieldType | None:
    """Lists of elements that are of a type, and of which nothing more is asked: rules are about single values."""
    kind, one_of = _kind(element)
    return None if kind is None or one_of is not None or kind.element is not None else list_of(kind)


def _shown(given: object) -> str:
    """A type or constraint, as its author has written it, near enough."""
    if isinstance(given, type) and not get_args(given):
        return given.__name__
    return str(given).replace("typing.", "")
