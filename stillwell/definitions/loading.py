"""From the name of a definitions package to all that it defines, or to all that is wrong with it."""

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from stillwell.definitions.alias import Alias
from stillwell.definitions.aliases import AliasNames
from stillwell.definitions.checks import check_nulls, check_on_demand_locality, check_row_locality
from stillwell.definitions.entity import Entity
from stillwell.definitions.golden import golden_events, load_examples
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.model import Model
from stillwell.definitions.names import doubles, name_problem
from stillwell.definitions.on_demand import OnDemandView
from stillwell.definitions.overwritten import overwritten
from stillwell.definitions.request import Request
from stillwell.definitions.service import FeatureService
from stillwell.definitions.source import location, shown_path
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View
from stillwell.errors import DefinitionError
from stillwell.spec import DefinitionsSpec, ExampleSpec

Definition = (
    type[Entity] | type[Topic] | type[View] | type[Request] | type[OnDemandView] | type[FeatureService] | type[Model]
)
D = TypeVar("D", Entity, Topic, View, Request, OnDemandView, FeatureService, Model)

GOLDEN = "golden"
"""The folder of examples beside the definitions."""


def load_definitions(name: str, folder: pathlib.Path | None = None) -> DefinitionsSpec:
    """Import a package (or module) of definitions with everything below it, and check it as a whole.

    folder is where the package may lie without being installed: the working directory, if none is given. It comes last
    on the module search path, so that whatever else lies there hides nothing that is installed.

    Raises DefinitionError with every mistake that could be found: those of single classes and modules first, and only
    if there are none, those between definitions, and then what shows when views are tried on events.
    """
    modules = _import_all(name, folder or pathlib.Path.cwd())
    found = _Found.in_modules(modules)
    found.check(name)
    topics = tuple(topic.spec for topic in found.topics)
    names = AliasNames({each.alias: each.name for each in found.aliases})
    views = tuple(view._named(names) for view in found.views)
    examples = load_examples(_folder_of(modules[0]) / GOLDEN, topics, views)
    _try_views(found.views, found.on_demand, examples)
    return DefinitionsSpec(
        entities=tuple(entity.spec for entity in found.entities),
        topics=topics,
        views=views,
        examples=examples,
        aliases=tuple(names.spec(each.alias) for each in found.aliases),
        requests=tuple(request.spec for request in found.requests),
        on_demand=tuple(view._named(names) for view in found.on_demand),
        services=tuple(service._named(names) for service in found.services),
        models=tuple(model._named(names) for model in found.models),
    )


def _folder_of(module: ModuleType) -> pathlib.Path:
    """Where a package lies, or the folder in which a module does."""
    inside = next(iter(getattr(module, "__path__", ())), None)
    return pathlib.Path(inside) if inside else pathlib.Path(module.__file__ or "").parent


def _try_views(
    views: Sequence[type[View]], on_demand: Sequence[type[OnDemandView]], examples: Sequence[ExampleSpec]
) -> None:
    """Raise DefinitionError with everything that trying the views brings to light."""
    golden = {view.spec.source.topic: golden_events(view.spec.source, examples) for view in views}
    messages: list[str] = []
    for view in views:
        mistakes = Mistakes(view)
        check_row_locality(view.spec, golden[view.spec.source.topic], mistakes)
        check_nulls(view.spec, golden[view.spec.source.topic], mistakes)
        messages += mistakes.messages
    for computed in on_demand:
        mistakes = Mistakes(computed)
        check_on_demand_locality(computed.spec, mistakes)
        messages += mistakes.messages
    if messages:
        raise DefinitionError(*messages)


class _BoundAlias(NamedTuple):
    """An alias, and the name that a module gives it."""

    name: str
    alias: Alias


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """What a definitions package defines, in the order of its modules and of the statements in each.

    aliases: under every name that a module gives them.
    """

    entities: tuple[type[Entity], ...]
    topics: tuple[type[Topic], ...]
    views: tuple[type[View], ...]
    aliases: tuple[_BoundAlias, ...]
    requests: tuple[type[Request], ...]
    on_demand: tuple[type[OnDemandView], ...]
    services: tuple[type[FeatureService], ...]
    models: tuple[type[Model], ...]

    @classmethod
    def in_modules(cls, modules: Sequence[ModuleType]) -> "_Found":
        """What the modules define, and entities, topics and requests elsewhere that it refers to."""
        views = tuple(_defined(modules, View))
        aliases = tuple(_aliases(modules))
        on_demand, models = tuple(_defined(modules, OnDemandView)), tuple(_defined(modules, Model))
        entities = [
            *_defined(modules, Entity),
            *(view._entity for view in views),
            *(each.alias._entity for each in aliases),
            *(model._entity for model in models),
        ]
        topics = [*_defined(modules, Topic), *(view._source for view in views if issubclass(view._source, Topic))]
        users: list[Any] = [*on_demand, *models]
        used = [each for user in users for each in user._uses()]
        requests = [*_defined(modules, Request), *(each for each in used if _is(each, Request))]
        return cls(
            entities=tuple(dict.fromkeys(entities)),
            topics=tuple(dict.fromkeys(topics)),
            views=views,
            aliases=aliases,
            requests=tuple(dict.fromkeys(requests)),
            on_demand=on_demand,
            services=tuple(_defined(modules, FeatureService)),
            models=models,
        )

    def check(self, name: str) -> None:
        """Raise DefinitionError where two definitions cannot stand beside each other, or where there is none."""
        if not self.topics and not self.views:
            raise DefinitionError(f"{name} defines no topic; write a class that derives from stillwell.Topic")
        mistakes = [*_alias_mistakes(self.aliases), *self._same_names(), *self._strangers()]
        by_kafka_name: dict[str, type[Topic]] = {}
        for topic in self.topics:
            first = by_kafka_name.setdefault(topic.spec.topic, topic)
            if first is not topic:
                found = Mistakes(topic)
                found.add(
                    f"reads Kafka's topic {topic.spec.topic}, as does {first.__name__} in {location(first)}; "
                    "declare its columns in one class"
                )
                mistakes.extend(found.messages)
        if mistakes:
            raise DefinitionError(*mistakes)

    def _same_names(self) -> Iterator[str]:
        """A mistake for each definition whose name another has: `Departure.delay` must mean one thing."""
        classes: list[Definition] = [
            *self.entities,
            *self.topics,
            *self.views,
            *self.requests,
            *self.on_demand,
            *self.services,
            *self.models,
        ]
        named = [(cls.__name__, location(cls)) for cls in classes]
        named += [(each.name, each.alias._place) for each in self.aliases]
        for first, second in doubles([name for name, _ in named]):
            (other, where), (name, here) = named[first], named[second]
            yield f"{here}: {name} has the name of {other} in {where}; rename one (case does not count)"

    def _strangers(self) -> Iterator[str]:
        """A mistake for each definition that refers to one which these definitions do not have."""
        known = {*self.views, *self.requests, *self.on_demand, *self.models, *(each.alias for each in self.aliases)}
        users: list[Any] = [*self.views, *self.on_demand, *self.services, *self.models]
        for user in users:
            found = Mistakes(user)
            for used in user._uses():
                if isinstance(used, Alias) and used not in known:
                    found.add(f"reads an alias without a name; bind it in a module, as Origin = {used!r}")
                elif used not in known:
                    found.add(f"reads {used.__name__} of {used.__module__}, which is no module of these definitions")
            yield from found.messages
        for each in self.aliases:
            if each.alias._view not in known:
                view = each.alias._view
                yield (
                    f"{each.alias._place}: {each.name} reads {view.__name__} of {view.__module__}, which is no module "
                    "of these definitions"
                )


def _is(used: object, base: type) -> bool:
    return isinstance(used, type) and issubclass(used, base)


def _defined(modules: Iterable[ModuleType], base: type[D]) -> Iterator[type[D]]:
    """The definitions of one kind that stand in the modules themselves, not those that they import."""
    for module in modules:
        for value in dict.fromkeys(filter(inspect.isclass, vars(module).values())):
            if issubclass(value, base) and value is not base and value.__module__ == module.__name__:
                yield value


def _aliases(modules: Iterable[ModuleType]) -> Iterator[_BoundAlias]:
    """The aliases that modules hold, each once under each of its names. A name with _ before it is a helper's."""
    bound = (
        _BoundAlias(name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Alias) and not name.startswith("_")
    )
    return iter(dict.fromkeys(bound))


def _alias_mistakes(aliases: Sequence[_BoundAlias]) -> Iterator[str]:
    """A mistake for each alias that has several names, or one that nobody can use."""
    first: dict[str, _BoundAlias] = {}
    for each in aliases:
        if problem := name_problem(each.name):
            yield f"{each.alias._place}: {each.name} {problem}"
        known = first.setdefault(each.alias._qualifier, each)
        if known is each:
            continue
        if known.alias is each.alias:
            yield f"{each.alias._place}: an alias is called {known.name} and {each.name}; keep one of the names"
        else:
            yield (
                f"{each.alias._place}: {each.name} is what {known.name} in {known.alias._place} is, {each.alias!r}; "
                f"import that one"
            )


def _import_all(name: str, folder: pathlib.Path) -> list[ModuleType]:
    """The package and its modules, each imported. Raises DefinitionError with what is wrong with any of them."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    if replaced := list(overwritten(name)):
        raise DefinitionError(*replaced)
    package = _import_root(name, folder)
    # Walking imports packages to look into them; what goes wrong there goes wrong again below, and is told there.
    found = pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}.", onerror=lambda name: None)
    names = sorted(module.name for module in found)
    modules = [package]
    mistakes: list[str] = []
    for module in names:
        try:
            modules.append(importlib.import_module(module))
        except Exception as error:
            mistakes.extend(_import_mistakes(error, module))
    if mistakes:
        # A module that another one imports fails twice.
        raise DefinitionError(*dict.fromkeys(mistakes))
    return modules


def _import_root(name: str, folder: pathlib.Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise DefinitionError(*_import_mistakes(error, name)) from error
        near = did_you_mean(name, (module.name for module in pkgutil.iter_modules([str(folder)])))
        raise DefinitionError(
            f"STILLWELL_DEFINITIONS is {name!r}, but there is no such package installed or in {folder}{near}"
        ) from error
    except Exception as error:
        raise DefinitionError(*_import_mistakes(error, name)) from error


_UNKNOWN_WORD = re.compile(r"(?P<function>\w+)\(\) got an unexpected keyword argument '(?P<word>\w+)'")
_NO_POLARS_TYPE = re.compile(r"cannot parse input of type .* into Polars data type \(given: .*, (?P<type>\w+)\]\)")

_AS_POLARS_HAS_IT = {"Bool": "Boolean", "Bytes": "Binary", "Timestamp": 'Datetime("us", "UTC")'}
"""Our types that Polars has by another name."""


def _meant(error: Exception) -> str:
    """What may have been meant: a column or feature by one that a class does not have, a word by one that a function of
    ours does not take, a type of Polars' by one of ours."""
    if isinstance(error, TypeError) and (unknown := _UNKNOWN_WORD.match(str(error))):
        # From the start: of `Datetime.__init__()` the last name is one that every module has.
        function = getattr(sys.modules["stillwell"], unknown["function"], None)
        return did_you_mean(unknown["word"], inspect.signature(function).parameters) if callable(function) else ""
    if isinstance(error, TypeError) and (ours := _NO_POLARS_TYPE.search(str(error))):
        name = ours["type"]
        return f"; in expressions types are Polars', as pl.{_AS_POLARS_HAS_IT.get(name, name)}"
    if not (isinstance(error, AttributeError) and error.name and isinstance(error.obj, type)):
        return ""
    return did_you_mean(error.name, vars(error.obj).get("__annotations__", ()))


def _import_mistakes(error: Exception, module: str) -> tuple[str, ...]:
    """What went wrong in a module, with the line of its package that it happened at."""
    if isinstance(error, DefinitionError):
        return error.args
    said = f"{type(error).__name__}: {error}{_meant(error)}"
    if isinstance(error, SyntaxError):
        return (f"{shown_path(error.filename or module)}:{error.lineno}: {said}",)
    package = module.partition(".")[0]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return (f"{shown_path(frame.f_code.co_filename)}:{line}: {said}",)
    return (f"{module}: {said}",)
