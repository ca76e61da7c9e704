"""The class statement: the words that may stand in it, and the docstring under it."""

import inspect
from collections.abc import Mapping
from typing import Any, TypedDict

from stillwell.definitions.mistakes import Mistakes, did_you_mean
from stillwell.definitions.names import name_problem

_EXAMPLES = {
    "name": 'name="flights.departures" (Kafka\'s topic)',
    "event_time": 'event_time="departed_at" (a Timestamp column that is never null)',
    "source": "source=Departure (a Topic)",
    "entity": "entity=Airport",
    "ttl": "ttl=timedelta(days=7) (how long a row counts as current; timedelta(0) is for ever)",
    "inputs": "inputs=… (what it is computed from)",
    "features": "features=(AirportDepartures.late, …)",
    "server": 'server=OpenInference(url="env:DELAY_URL", model="delay"), or a function',
    "version": 'version="1" (the model\'s own)',
    "policy": 'policy="refresh" (or "cached", or "wait")',
    "max_staleness": "max_staleness=timedelta(minutes=10) (how long a prediction counts as fresh)",
}


class CardWords(TypedDict, total=False):
    """What may follow the base of any definition in its class statement: it is for people."""

    owner: str
    tags: Mapping[str, str]


def check_class(cls: type, base: type, mistakes: Mistakes) -> None:
    """Note what is wrong with a definition's own name and bases."""
    if problem := name_problem(cls.__name__):
        mistakes.add(problem)
    if cls.__bases__ != (base,):
        bases = ", ".join(other.__name__ for other in cls.__bases__)
        mistakes.add(f"derives from {bases}; a definition derives from {base.__name__} alone, write out its fields")


def check_words(words: Mapping[str, object], known: type, mistakes: Mistakes) -> bool:
    """Note words that a class statement does not know and such as are missing. True if none is missing.

    known is a TypedDict: a type checker refuses the same by it.
    """
    required: frozenset[str] = known.__required_keys__  # type: ignore[attr-defined]
    optional: frozenset[str] = known.__optional_keys__  # type: ignore[attr-defined]
    for word in words.keys() - required - optional:
        mistakes.add(f"has {word}=…, which means nothing here{did_you_mean(word, required | optional)}")
    missing = sorted(required - words.keys())
    for word in missing:
        mistakes.add(f"lacks {word}; write {_EXAMPLES[word]} in its class statement")
    return not missing


def card(cls: type, words: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """What a definition says to people, as `DefinitionSpec` has it; what is no owner or tag is noted as a mistake."""
    owner, tags = words.get("owner", ""), words.get("tags", {})
    if "owner" in words and not _is_text(owner):
        mistakes.add(f'has owner={owner!r}; write who answers for it, as owner="payments"')
    if not isinstance(tags, Mapping):
        mistakes.add(f'has tags={tags!r}; write texts by their names, as tags={{"tier": "1"}}')
        tags = {}
    for name, value in tags.items():
        if not _is_text(name) or not isinstance(value, str):
            mistakes.add(f'has tags={{{name!r}: {value!r}}}; a tag is a text by its name, as {{"tier": "1"}}')
    description = inspect.cleandoc(cls.__doc__) if cls.__doc__ else ""
    return {"owner": owner, "tags": tuple(tags.items()), "description": description}


def _is_text(given: object) -> bool:
    return isinstance(given, str) and bool(given.strip())
