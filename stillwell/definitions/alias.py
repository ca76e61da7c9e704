"""Aliases: a view read by the keys of another entity."""

import sys
from collections.abc import Mapping
from typing import ClassVar, final

import polars as pl

from stillwell.definitions import spoken
from stillwell.definitions.entity import Entity
from stillwell.definitions.mistakes import did_you_mean
from stillwell.definitions.references import reference_of, referring
from stillwell.definitions.source import shown_path
from stillwell.errors import DefinitionError
from stillwell.spec import AliasSpec, ViewSpec, qualifier_of_alias


@final
class Alias:
    """A view read by keys of another entity, with the view's features as attributes: made by `View.at(…)`.

    Its name in requests is that of the variable of a module that it is bound to, which it learns when the definitions
    are loaded. Until then expressions name it by what it is: `AirportDepartures[airport=Route.origin].late`.
    """

    def __init__(
        self, view: "type[Readable]", entity: type[Entity], keys: Mapping[str, str], place: str, module: str
    ) -> None:
        """keys: for each key of the view's entity, the key of `entity` that holds its value. place: file and line, and
        module: the name of the module in which it was made."""
        self._view = view
        self._entity = entity
        self._keys = keys
        self._place = place
        self._module = module
        self._qualifier = qualifier_of_alias(view.spec, entity.spec, keys)
        spoken.remember(self._qualifier, self)

    def __getattr__(self, name: str) -> pl.Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        features = [feature.name for feature in self._view.spec.features]
        if name not in features:
            raise AttributeError(f"{self._view.__name__} has no feature {name!r}{did_you_mean(name, features)}")
        return referring(f"{self._qualifier}.{name}", self, name)

    def __repr__(self) -> str:
        pairs = (f"{key.name}={self._entity.__name__}.{self._keys[key.name]}" for key in self._view.spec.entity.keys)
        return f"{self._view.__name__}.at({', '.join(pairs)})"

    def _named(self, name: str) -> AliasSpec:
        """What it says, under the name that it goes by."""
        return AliasSpec(name=name, view=self._view.spec, entity=self._entity.spec, keys=self._keys)


def make_alias(view: "type[Readable]", keys: Mapping[str, pl.Expr], depth: int) -> Alias:
    """The alias that `view.at(…)` makes. depth: how many calls lie between this one and the user's module.

    Raises DefinitionError with every mistake.
    """
    frame = sys._getframe(depth)
    place = f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
    problems: list[str] = []
    mapped: dict[str, str] = {}
    entities: dict[type[Entity], None] = {}
    wanted = {key.name: key.type for key in view.spec.entity.keys}
    entity_name = view.spec.entity.name
    for name in keys.keys() - wanted.keys():
        problems.append(f"maps the key {name!r}, which {entity_name} does not have{did_you_mean(name, wanted)}")
    for name, kind in wanted.items():
        if name not in keys:
            problems.append(f"does not map the key {name} of {entity_name}; add {name}=<Entity>.<key>")
            continue
        reference = reference_of(keys[name])
        if reference is None or not (isinstance(reference.owner, type) and issubclass(reference.owner, Entity)):
            given = keys[name] if reference is None else f"{reference.owner.__name__}.{reference.field}"
            problems.append(f"has {name}={given}, which is no key of an entity; write {name}=<Entity>.<key>")
            continue
        entities[reference.owner] = None
        mapped[name] = reference.field
        given_type = next(key.type for key in reference.owner.spec.keys if key.name == reference.field)
        if given_type.key_tag != kind.key_tag:
            shown = f"{reference.owner.__name__}.{reference.field}"
            problems.append(
                f"has {name}={shown}, a {given_type.name}, but {entity_name}.{name} is {kind.name}; keys of different "
                "types never meet"
            )
    if len(entities) > 1:
        several = " and ".join(entity.__name__ for entity in entities)
        problems.append(f"is led to by keys of {several}; use those of one entity")
    if problems:
        raise DefinitionError(*(f"{place}: {view.__name__}.at(…) {problem}" for problem in problems))
    (entity,) = entities
    return Alias(view, entity, mapped, place, str(frame.f_globals.get("__name__", "")))


class Readable:
    """What can be read by the keys of another entity: a view."""

    spec: ClassVar[ViewSpec]

    @classmethod
    def at(cls, **keys: pl.Expr) -> Alias:
        """The view read by keys of another entity, one for each key of its own:

            Origin = AirportDepartures.at(airport=Route.origin)

        The name of the variable, which is one of a module, is the alias's name in requests: `Origin:late`.
        """
        return make_alias(cls, keys, depth=2)
