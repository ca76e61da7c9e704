"""Guesses as a module of definitions."""

import dataclasses
import datetime
import keyword
import re
from collections.abc import Iterator, Sequence

from stillwell.counting import counted
from stillwell.inferring.guessing import WRITTEN_WITH, Column, Guess

_LINE = 110
"""Characters of a line, where nothing in it is longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inferred:
    """A module of definitions, and the name of the view in it."""

    source: str
    view: str


def write(topic: str, guess: Guess) -> Inferred:
    """The definitions as source, with a comment at every guess."""
    names = _class_names(topic, guess.key.name, guess.columns)
    features = [each for each in guess.columns if each is not guess.event_time and each is not guess.key]
    words = {"Col", "Entity", "Feature", "Key", "Topic", "View", "feature"}
    words |= {word for each in guess.columns for word in re.findall(r"[A-Z]\w+", each.type)} | (
        {"col"} if any(each.options for each in guess.columns) else set()
    )
    if not features:
        words |= {"Bool"}
    lines = [
        *_head(topic, guess, names.view),
        "",
        "from datetime import timedelta",
        "",
        *_import(sorted(words)),
        "",
        "",
        f"class {names.entity}(Entity):",
        f'    """Whom the events of {topic} are about."""',
        "",
        *_comment(f"{guess.key_note}", "    "),
        f"    {guess.key.name}: Key[{guess.key.type}]",
        "",
        "",
        f'class {names.topic}(Topic, name="{topic}", event_time="{guess.event_time.name}"):',
        *_comment(f"event_time, when an event happened: {guess.event_time.name}; {guess.event_time_note}", "    "),
        *(line for column in guess.columns for line in _column(column)),
        *_left_out(guess),
        "",
        "",
        f"class {names.view}(",
        "    View,",
        f"    source={names.topic},",
        f"    entity={names.entity},",
        f'    keys={{"{guess.key.name}": {names.topic}.{guess.key.name}}},',
        "    ttl=timedelta(days=30),  # how long after its event a row counts as current; timedelta(0) is for ever",
        "):",
        f'    """The latest of {topic} for each {names.entity.lower()}."""',
        "",
        *(_feature(column, names.topic) for column in features),
    ]
    if not features:
        lines.append(f"    seen: Feature[Bool] = feature({names.topic}.{guess.key.name}.is_not_null())")
    return Inferred("\n".join(lines) + "\n", names.view)


@dataclasses.dataclass(frozen=True, slots=True)
class _ClassNames:
    entity: str
    topic: str
    view: str


def _class_names(topic: str, key: str, columns: Sequence[Column]) -> _ClassNames:
    """`Customer`, `Order` and `LatestOrder` for `shop.orders` and `customer_id`."""
    parts = [part for part in re.split(r"[._-]+", topic) if not re.fullmatch(r"v?\d*", part)]
    last = parts[-1] if parts else "events"
    singular = last[:-1] if last.endswith("s") and not last.endswith("ss") and len(last) > 3 else last
    event = _camel(singular) or "Event"
    about = _camel(re.sub(r"_?(id|key|uuid|no|number)_?$", "", key, flags=re.IGNORECASE)) or "Subject"
    taken = WRITTEN_WITH | {column.name for column in columns}
    if about in taken or keyword.iskeyword(about):
        about = f"The{about}"
    while (
        event in taken
        or keyword.iskeyword(event)
        or about.casefold() in (event.casefold(), f"latest{event}".casefold())
    ):
        event = f"{event}Event"
    return _ClassNames(about[:60], event[:57], f"Latest{event[:57]}")


def _camel(name: str) -> str:
    joined = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", name))
    return joined if joined[:1].isalpha() else f"The{joined}" if joined else ""


def _head(topic: str, guess: Guess, view: str) -> Iterator[str]:
    observed = guess.observed
    times = dict.fromkeys(_day(at) for at in (min(observed.timestamps), max(observed.timestamps)))
    others = (
        f"; {counted(len(observed.others), 'record')} beside them that no JSON object was" if observed.others else ""
    )
    yield from _comment(
        f"Guessed by `stillwell topics infer {topic}` from {counted(observed.count, 'record')} of "
        f"{' to '.join(times)}{others}. Look at each comment, and take it away. Then:",
        "",
    )
    yield f"#   stillwell check; stillwell try {view}"


def _day(milliseconds: int) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(milliseconds / 1_000, datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def _import(words: list[str]) -> list[str]:
    whole = f"from stillwell import {', '.join(words)}"
    if len(whole) <= _LINE:
        return [whole]
    return ["from stillwell import (", *(f"    {word}," for word in words), ")"]


def _comment(text: str, indent: str) -> Iterator[str]:
    """A comment, broken into lines."""
    line = ""
    for word in _safe(text).split(" "):
        if line and len(indent) + len(line) + len(word) + 3 > _LINE:
            yield f"{indent}# {line}"
            line = ""
        line = f"{line} {word}" if line else word
    if line:
        yield f"{indent}# {line}"


def _column(column: Column) -> Iterator[str]:
    kind = f"{column.type} | None" if column.nullable else column.type
    said = f" = col({', '.join(column.options)})" if column.options else ""
    if column.note:
        yield from _comment(column.note, "    ")
    yield f"    {column.name}: Col[{kind}]{said}"


def _left_out(guess: Guess) -> Iterator[str]:
    for name, why in guess.left_out:
        yield from _comment(f"left out: {name}, {why}", "    ")


def _feature(column: Column, topic: str) -> str:
    kind = f"{column.type} | None" if column.nullable else column.type
    # A view has a word `at` of its own.
    name = "at_" if column.name == "at" else column.name
    return f"    {name}: Feature[{kind}] = feature({topic}.{column.name})"


def _safe(text: str) -> str:
    """Text of the records' own, without what would end a comment."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
