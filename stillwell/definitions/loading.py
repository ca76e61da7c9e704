"""From the name of a definitions package to all that it defines, or to all that is wrong with it."""

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import TypeVar

from stillwell.definitions.checks import check_nulls, check_row_locality
from stillwell.definitions.entity import Entity
from stillwell.definitions.golden import golden_events, load_examples
from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.names import doubles
from stillwell.definitions.overwritten import overwritten
from stillwell.definitions.source import location, shown_path
from stillwell.definitions.topic import Topic
from stillwell.definitions.view import View
from stillwell.errors import DefinitionError
from stillwell.spec import DefinitionsSpec, ExampleSpec

Definition = type[Entity] | type[Topic] | type[View]
D = TypeVar("D", Entity, Topic, View)

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
    examples = load_examples(_folder_of(modules[0]) / GOLDEN, topics)
    _try_views(found.views, examples)
    return DefinitionsSpec(
        entities=tuple(entity.spec for entity in found.entities),
        topics=topics,
        views=tuple(view.spec for view in found.views),
        examples=examples,
    )


def _folder_of(module: ModuleType) -> pathlib.Path:
    """Where a package lies, or the folder in which a module does."""
    inside = next(iter(getattr(module, "__path__", ())), None)
    return pathlib.Path(inside) if inside else pathlib.Path(module.__file__ or "").parent


def _try_views(views: Sequence[type[View]], examples: Sequence[ExampleSpec]) -> None:
    """Raise DefinitionError with everything that trying the views brings to light."""
    golden = {view.spec.source.name: golden_events(view.spec.source, examples) for view in views}
    messages: list[str] = []
    for view in views:
        mistakes = Mistakes(view)
        check_row_locality(view.spec, golden[view.spec.source.name], mistakes)
        check_nulls(view.spec, golden[view.spec.source.name], mistakes)
        messages += mistakes.messages
    if messages:
        raise DefinitionError(*messages)


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """The classes of a definitions package, in the order of its modules and of the statements in each."""

    entities: tuple[type[Entity], ...]
    topics: tuple[type[Topic], ...]
    views: tuple[type[View], ...]

    @classmethod
    def in_modules(cls, modules: Sequence[ModuleType]) -> "_Found":
        """What the modules define, and what their views refer to elsewhere."""
        views = tuple(_defined(modules, View))
        entities = [*_defined(modules, Entity), *(view._entity for view in views)]
        topics = [*_defined(modules, Topic), *(view._source for view in views)]
        return cls(tuple(dict.fromkeys(entities)), tuple(dict.fromkeys(topics)), views)

    def check(self, name: str) -> None:
        """Raise DefinitionError where two definitions cannot stand beside each other, or where there is none."""
        if not self.topics:
            raise DefinitionError(f"{name} defines no topic; write a class that derives from stillwell.Topic")
        mistakes = list(_same_names([*self.entities, *self.topics, *self.views]))
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


def _defined(modules: Iterable[ModuleType], base: type[D]) -> Iterator[type[D]]:
    """The definitions of one kind that stand in the modules themselves, not those that they import."""
    for module in modules:
        for value in dict.fromkeys(filter(inspect.isclass, vars(module).values())):
            if issubclass(value, base) and value is not base and value.__module__ == module.__name__:
                yield value


def _same_names(classes: Sequence[Definition]) -> Iterator[str]:
    """A mistake for each class whose name another has: `Departure.delay` must mean one thing."""
    for first, second in doubles([cls.__name__ for cls in classes]):
        other = classes[first]
        found = Mistakes(classes[second])
        found.add(f"has the name of {other.__name__} in {location(other)}; rename one (case does not count)")
        yield from found.messages


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


def _import_mistakes(error: Exception, module: str) -> tuple[str, ...]:
    """What went wrong in a module, with the line of its package that it happened at."""
    if isinstance(error, DefinitionError):
        return error.args
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return (f"{shown_path(error.filename or module)}:{error.lineno}: {said}",)
    package = module.partition(".")[0]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return (f"{shown_path(frame.f_code.co_filename)}:{line}: {said}",)
    return (f"{module}: {said}",)
