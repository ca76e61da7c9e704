"""Bodies as they come: whole or compressed, and never more of them than is allowed, however small they were made."""

import zlib
from collections.abc import Mapping
from typing import Final

ENCODINGS: Final[Mapping[str, int]] = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
"""What a body may be compressed by (Content-Encoding of RFC 9110), and what zlib is told of it."""


class TooLarge(Exception):
    """A body has too many bytes."""


class Broken(Exception):
    """A body cannot be read; says why. Not ConnectionError, which may be a page's own."""


class UnknownEncoding(Exception):
    """A body is compressed in a way that is not read here."""


class Body:
    """A body, part by part."""

    def __init__(self, encoding: str, most: int) -> None:
        """encoding: as it is announced, "" where it is not. most: bytes, unpacked. Raises UnknownEncoding."""
        self._most = most
        self._body = bytearray()
        self._zlib = None
        if (name := encoding.strip().lower()) not in ("", "identity"):
            if name not in ENCODINGS:
                raise UnknownEncoding(encoding)
            self._zlib = zlib.decompressobj(ENCODINGS[name])

    def feed(self, part: bytes) -> None:
        """Take a part. Raises TooLarge, and Broken for what is not compressed as announced."""
        if self._zlib:
            try:
                # One byte more than there may be, so that it shows; what is behind it is not unpacked at all.
                part = self._zlib.decompress(part, self._most + 1 - len(self._body))
            except zlib.error as error:
                raise Broken(f"it is not compressed as its Content-Encoding says: {error}") from None
        self._body += part
        if len(self._body) > self._most:
            raise TooLarge
        if self._zlib and self._zlib.unused_data:
            raise Broken("something stands behind the end of what is compressed")

    def whole(self) -> bytes:
        """All of it. Raises Broken for what is compressed and cut off."""
        if self._zlib and not self._zlib.eof:
            raise Broken("what is compressed is cut off")
        return bytes(self._body)
