"""Values on the command line: from text to a key's type, and from whatever came from outside to text that is safe."""

import base64
import datetime
import json
from typing import TYPE_CHECKING

from stillwell.floats import writable

if TYPE_CHECKING:
    from stillwell.types import FieldType

_EXCERPT = 120
"""Characters of a value that are shown where it is only told which one is meant."""


def parse(kind: "FieldType", text: str) -> object:
    """A value from text: true or false, a number as JSON has it, text as it is, base64, or ISO-8601 with a zone.

    Raises ValueError, whose message says what is taken.
    """
    from stillwell.texts import value_of

    return value_of(kind, text)


def jsonable(value: object) -> object:
    """A value as JSON has it: times in ISO-8601, bytes in base64, a number that it lacks by name, lists of such."""
    if isinstance(value, list | tuple):
        return list(map(jsonable, value))
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return writable(value) if isinstance(value, float) else value


def shown(value: object) -> str:
    """A value on one line for people; of a long list its beginning."""
    if isinstance(value, list) and len(value) > _MOST_ELEMENTS:
        begin = json.dumps(jsonable(value[:_MOST_ELEMENTS]), ensure_ascii=False)[:-1]
        return printable(f"{begin}, …] ({len(value):,} elements)")
    return printable(json.dumps(jsonable(value), ensure_ascii=False))


_MOST_ELEMENTS = 8
"""Of a list that people are shown; `--json` has all."""


def printable(text: str) -> str:
    """Text that came from outside, without what a terminal would obey: such characters are escaped."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def excerpt(data: bytes | None) -> str | None:
    """The beginning of a record's value, on one line."""
    if data is None:
        return None
    text = printable(data[: 4 * _EXCERPT].decode(errors="backslashreplace")).replace("\n", " ")
    return f"{text[:_EXCERPT]}…" if len(data) > 4 * _EXCERPT or len(text) > _EXCERPT else text


def text_of(data: bytes) -> tuple[str, str]:
    """Bytes as text, and how they are encoded in it: `utf-8`, or `base64` where they are no text."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def instant(milliseconds: int) -> str:
    """A time of Kafka's (in ms since the epoch) in ISO-8601; the number itself where it is in no calendar."""
    try:
        return str(jsonable(datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)))
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
