"""What a caller names, as requests name it: texts as they are, and definitions, if the caller has them, by their names.

Nothing is loaded for texts: a client of texts alone needs no Polars.
"""

import collections.abc
import itertools
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from stillwell.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from stillwell.definitions.alias import Alias
    from stillwell.definitions.model import Model
    from stillwell.definitions.on_demand import OnDemandView
    from stillwell.definitions.service import FeatureService
    from stillwell.definitions.view import View

    NamedFeature: TypeAlias = str | pl.Expr
    """A feature or an output: `Origin.late`, or `"Origin:late"`."""

    NamedFeatures: TypeAlias = (
        NamedFeature | type[View] | Alias | type[OnDemandView] | type[Model] | type[FeatureService]
    )
    """One of those, or what has several: then all of them."""

    Asking: TypeAlias = NamedFeatures | Sequence[NamedFeatures]
    """What a request for features asks for."""

    NamedView: TypeAlias = str | type[View]
    NamedModel: TypeAlias = str | type[Model]


_T = TypeVar("_T")


class AskedFor(NamedTuple):
    """References, or the name of a feature service."""

    references: tuple[str, ...]
    service: str | None


def asked_for(features: "Asking") -> AskedFor:
    """What is asked for. Raises RequestError for an object that has no features."""
    if isinstance(features, str):
        return AskedFor((features,), None) if ":" in features else AskedFor((), features)
    if isinstance(features, collections.abc.Iterable):
        given = tuple(features)
        texts = tuple(each for each in given if isinstance(each, str))
        return AskedFor(texts if len(texts) == len(given) else _listed(given), None)
    from stillwell.definitions.naming import feature_service_name

    service = feature_service_name(features)
    return AskedFor((), service) if service else AskedFor(_listed((features,)), None)


def _listed(given: "Sequence[NamedFeatures]") -> tuple[str, ...]:
    """References, each once: a feature may be named by itself, and be one of a feature service besides."""
    from stillwell.definitions.naming import references

    found = ((each,) if isinstance(each, str) else references(each, f"features[{at}]") for at, each in enumerate(given))
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


def view_of(view: "NamedView") -> str:
    """A view's name. Raises RequestError."""
    if isinstance(view, str):
        return view
    from stillwell.definitions.naming import view_name

    return view_name(view)


def model_of(model: "NamedModel") -> str:
    """A model's name. Raises RequestError."""
    if isinstance(model, str):
        return model
    from stillwell.definitions.naming import model_name

    return model_name(model)


def reference_of(feature: "NamedFeature") -> str:
    """A feature's reference. Raises RequestError."""
    if isinstance(feature, str):
        return feature
    from stillwell.definitions.naming import references

    found = references(feature, "feature")
    if len(found) != 1:
        raise RequestError("feature", f"stands for {len(found)} features; name one")
    return found[0]


def found_in(answer: "Mapping[str, _T]", name: str) -> _T:
    """What an answer has under a name. Raises KeyError, which says what there is."""
    try:
        return answer[name]
    except KeyError:
        raise KeyError(f"the answer has no {name}; it has {', '.join(answer) or 'nothing'}") from None


def output_of(output: "NamedFeature") -> str:
    """An output's name. Raises RequestError."""
    if isinstance(output, str):
        return output
    from stillwell.definitions.naming import output_name

    return output_name(output)
