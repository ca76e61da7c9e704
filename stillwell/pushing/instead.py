"""What is said to who names what is no view, as to push to it: what it is, and which view to name instead. Pure."""

from collections.abc import Iterable

from stillwell.definitions.mistakes import did_you_mean
from stillwell.spec import AliasSpec, DefinitionsSpec, OnDemandSpec, ViewSpec
from stillwell.wording import shorten

_SHOWN = 10
"""Views that a sentence lists."""


def not_a_view(
    definitions: DefinitionsSpec, name: str, do: str = "push to", nothing: str = "nothing can be pushed for it"
) -> str:
    """The sentence for a name that is no view.

    do: with a view, in its place; nothing: what is said where no view is behind the name.
    """
    what = _what(definitions, name)
    if what is None:
        known = [view.name for view in definitions.views]
        return f"there is no view {shorten(name)!r}{did_you_mean(name, known)}"
    told, views = what
    listed = list(dict.fromkeys(views))
    if not listed:
        return f"{name} is {told}: {nothing}"
    more = ", …" if len(listed) > _SHOWN else ""
    return f"{name} is {told}: {do} {' or '.join(listed[:_SHOWN])}{more}"


def _what(definitions: DefinitionsSpec, name: str) -> tuple[str, Iterable[str]] | None:
    """What a name stands for, and the views that are behind it; None where the definitions do not have it."""
    for model in definitions.models:
        if model.name == name:
            told = "a model, whose predictions are computed from what it reads"
            return told, _behind(definitions, (each.reference for each in model.inputs))
    for alias in definitions.aliases:
        if alias.name == name:
            return f"an alias, which shows rows of {alias.view.name} by other keys", [alias.view.name]
    for on_demand in definitions.on_demand:
        if on_demand.name == name:
            stored = [view.name for view in definitions.views if view.source.name == name]
            told = "an on-demand view, which is computed from what it reads when it is asked for"
            return told, stored + _read(on_demand)
    for service in definitions.services:
        if service.name == name:
            return "a feature service, which lists features", _behind(definitions, service.features)
    for request in definitions.requests:
        if request.name == name:
            return "what a request brings, and is not stored", ()
    for topic in definitions.topics:
        if name in (topic.name, topic.topic):
            return "a topic", (view.name for view in definitions.views if view.source.name == topic.name)
    for entity in definitions.entities:
        if entity.name == name:
            return "an entity", (view.name for view in definitions.views if view.entity.name == name)
    return None


def _behind(definitions: DefinitionsSpec, references: Iterable[str]) -> Iterable[str]:
    """The views that features are of, or are computed from."""
    views = {view.name for view in definitions.views}
    on_demand = {each.name: each for each in definitions.on_demand}
    for reference in references:
        owner = reference.partition(":")[0]
        if owner in views:
            yield owner
        elif owner in on_demand:
            yield from _read(on_demand[owner])
        elif what := _what(definitions, owner):
            yield from what[1]


def _read(on_demand: OnDemandSpec) -> list[str]:
    """The views that an on-demand view reads."""
    views = (given.view if isinstance(given, AliasSpec) else given for given in on_demand.inputs)
    return [view.name for view in views if isinstance(view, ViewSpec)]
