"""What requests call definitions that are given as objects: for programs that import them, and load nothing as a whole.

A class goes by its name. An alias goes by that of the variable that it is bound to in a module: it is looked for where
it was made, then in the other modules of that package, and in the script or notebook that runs.
"""

import sys
from collections.abc import Iterator
from types import ModuleType

from stillwell.definitions.alias import Alias
from stillwell.definitions.aliases import AliasNames, text_of
from stillwell.definitions.model import Model
from stillwell.definitions.references import Reference, reference_of
from stillwell.definitions.service import FeatureService, fields_of, kind_of, shown
from stillwell.definitions.view import View
from stillwell.errors import RequestError


def references(given: object, field: str) -> tuple[str, ...]:
    """The features that an object stands for, as requests name them: a feature or an output for itself; a view, alias,
    on-demand view or model for all that it has; a feature service for its list.

    field: what a RequestError calls it, which is raised for anything else.
    """
    if isinstance(given, type) and issubclass(given, FeatureService) and given is not FeatureService:
        return tuple(_text(each, field) for each in given._references)
    if (fields := fields_of(given)) is not None:
        return tuple(_text(Reference(given, each), field) for each in fields)
    reference = reference_of(given)
    if reference is None:
        raise RequestError(
            field,
            f"must be a feature as it stands (View.feature), or what has features, not {_told(given)}; compute in an "
            "OnDemandView",
        )
    if fields_of(reference.owner) is None:
        raise RequestError(field, f"is {shown(reference)}, {kind_of(reference.owner)}; name features and outputs alone")
    return (_text(reference, field),)


def feature_service_name(given: object) -> str | None:
    """The name of a feature service; None for any other object."""
    is_one = isinstance(given, type) and issubclass(given, FeatureService) and given is not FeatureService
    return given.__name__ if is_one else None  # type: ignore[attr-defined]


def view_name(given: object) -> str:
    """The name of a view. Raises RequestError for any other object."""
    if isinstance(given, type) and issubclass(given, View) and given is not View:
        return given.__name__
    raise RequestError("view", f"must be a view, or its name, not {_told(given)}")


def model_name(given: object) -> str:
    """The name of a model. Raises RequestError for any other object."""
    if isinstance(given, type) and issubclass(given, Model) and given is not Model:
        return given.__name__
    raise RequestError("model", f"must be a model, or its name, not {_told(given)}")


def output_name(given: object) -> str:
    """The name of a model's output. Raises RequestError for what is none."""
    reference = reference_of(given)
    if reference is None or not (isinstance(reference.owner, type) and issubclass(reference.owner, Model)):
        raise RequestError("output", f"must be an output as it stands (Model.output), or its name, not {_told(given)}")
    return reference.field


def _text(reference: Reference, field: str) -> str:
    owner = reference.owner
    return text_of(reference, AliasNames({owner: _name_of(owner, field)} if isinstance(owner, Alias) else {}))


def _name_of(alias: Alias, field: str) -> str:
    for module in _modules_of(alias):
        for name, value in list(vars(module).items()):
            if value is alias and not name.startswith("_"):
                return name
    raise RequestError(field, f"is of {alias!r}, which has no name; bind it in a module, as Origin = {alias!r}")


def _modules_of(alias: Alias) -> Iterator[ModuleType]:
    home = sys.modules.get(alias._module)
    if home is not None:
        yield home
    package = alias._module.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in (package, "__main__") and module is not home:
            yield module


def _told(given: object) -> str:
    return given.__name__ if isinstance(given, type) else f"{given!r:.80}"
