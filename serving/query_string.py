"""The words behind the `?` of a URL, as people type them: what cannot be meant is refused, and not guessed at.

A library would pass an unfinished code on as it is, put U+FFFD for bytes that are no text, and take a word without `=`
for an empty one: then another entity is looked up than was meant, and found not to be there.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from stillwell.errors import RequestError
from stillwell.wording import shorten

_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


def words_of(query: str) -> Iterator[tuple[str, str]]:
    """Each name and its text, decoded. query: as it came. Raises RequestError, by the name that is wrong."""
    for part in query.split("&"):
        if not part:
            continue
        name, equals, text = part.partition("=")
        name = _decoded(name, name)
        if not equals:
            raise RequestError(shorten(name), f"has no value; write {shorten(name)}=…, and & within a value as %26")
        yield name, _decoded(name, text)


def _decoded(name: str, text: str) -> str:
    """Part of a query string without codes. name: of the word that it is in."""
    if "%" not in text and "+" not in text:
        return text
    if wrong := _NO_CODE.search(text):
        raise RequestError(shorten(name), f"holds {wrong[0]!r}, which is the code of no byte; write % itself as %25")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise RequestError(
            shorten(name), f"holds codes of bytes that are no UTF-8: {shorten(text)!r}; write é as %C3%A9"
        ) from None
