"""The class statement: the words that may stand in it, and the docstring under it."""

import inspect
from collections.abc import Mapping

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


def description_of(cls: type) -> str:
    """The class's docstring without its indentation, or ''."""
    return inspect.cleandoc(cls.__doc__) if cls.__doc__ else ""
