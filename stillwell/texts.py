"""Values written as text: keys and request values in a URL or on the command line. One reading of them for all.

A list is written as in JSON, as a whole: `[1.5, 2]`."""

import math
import re
from collections.abc import Mapping

import msgspec

from stillwell.floats import meant
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, STRING, TIMESTAMP, FieldType
from stillwell.wire import FITS
from stillwell.wording import shorten

_TAKES: Mapping[str, str] = {
    BOOL.name: "true or false",
    FLOAT32.name: "a number",
    FLOAT64.name: "a number",
    BYTES.name: "base64",
    TIMESTAMP.name: "a time with its zone, as in 2026-01-31T12:00:00Z",
}
_elements_of_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def value_of(kind: FieldType, text: str) -> object:
    """A value from text: true or false, a number as JSON has it, text as it is, base64, ISO-8601 with a zone, or a list
    in JSON.

    Raises ValueError, whose message says what is taken.
    """
    if kind is STRING:
        return text
    if kind.element is not None:
        return _list_of(kind, text)
    takes = _TAKES.get(kind.name, f"a whole number that fits {kind.name}")
    refused = ValueError(f"must be {takes}, got {text!r}")
    if kind in (FLOAT32, FLOAT64):
        named = meant(text)
        if named is not None:
            return named
        if not _NUMBER.fullmatch(text) or math.isinf(float(text)):  # in JSON, too, one too large is a mistake
            raise refused
        return float(text)
    if kind is BOOL:
        if text not in ("true", "false"):
            raise refused
        return text == "true"
    try:
        value: object = msgspec.convert(text, FITS[kind.name], strict=kind is TIMESTAMP)
    except msgspec.ValidationError:
        raise refused from None
    if kind.python is int and str(value) != text:
        raise refused
    return value


def _list_of(kind: FieldType, text: str) -> list[object]:
    try:
        written = _elements_of_json(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise ValueError(f"must be {kind.name}: a list in JSON, as [1, 2]; got {shorten(text)!r}") from None
    if kind.size not in (None, len(written)):
        raise ValueError(f"must be {kind.name}, a list of exactly {kind.size}, not of {len(written)}")
    return [_element(kind, number, bytes(each)) for number, each in enumerate(written)]


def _element(kind: FieldType, number: int, written: bytes) -> object:
    is_quoted, is_text = written.startswith(b'"'), kind.scalar in (STRING, BYTES, TIMESTAMP)
    text = msgspec.json.decode(written) if is_quoted else written.decode()
    try:
        if is_quoted != is_text and not (is_quoted and kind.scalar in (FLOAT32, FLOAT64) and meant(text) is not None):
            raise ValueError(f"must be {kind.scalar.name}, got {shorten(written.decode())}")
        return value_of(kind.scalar, text)
    except ValueError as error:
        raise ValueError(f"has an element {number} that {error}") from None
