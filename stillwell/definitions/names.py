"""What things may be called. A name becomes a Parquet column, a folder, a part of Redis keys and of messages."""

import re
from collections.abc import Iterator, Sequence

MAX_NAME_LENGTH = 64
"""Redis keys repeat a view's name for every entity, and folders and metric labels carry it too."""

RESERVED = frozenset({"event_timestamp", "spec"})
"""`event_timestamp` is a column of every row, `spec` the attribute of every definition."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_KAFKA_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


def name_problem(name: str) -> str | None:
    """Why a class or field cannot have this name, or None where it can."""
    if name.startswith("_"):
        return "starts with _, which is kept for Stillwell's own columns; take the _ away"
    if name in RESERVED:
        return "has a name that Stillwell uses itself; choose another"
    if len(name) > MAX_NAME_LENGTH:
        return f"has a name of {len(name)} characters; use {MAX_NAME_LENGTH} at most"
    if not _NAME.fullmatch(name):
        return "has a name that not every store takes; use letters of ASCII, digits and _, a letter first"
    return None


def kafka_name_problem(name: str) -> str | None:
    """Why Kafka would refuse a topic's name, or None where it would not."""
    if not _KAFKA_NAME.fullmatch(name) or name in (".", ".."):
        return f"has name={name!r}, which Kafka refuses; use 1 to 249 of the letters of ASCII, digits, '.', '_' and '-'"
    return None


def doubles(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Positions (first, other) of names that are equal but for case: DuckDB, Spark and BigQuery take them for one."""
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        first = seen.setdefault(name.casefold(), position)
        if first != position:
            yield first, position
