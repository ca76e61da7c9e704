"""Pushing any number of rows, or a table, in one call: cut into parts, one after the other."""

import dataclasses
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from stillwell.client.errors import PartlyPushed
from stillwell.client.pushed import Pushed, PushedRow, Pushing, together
from stillwell.client.rows import MOST_BYTES, MOST_ROWS, NAMED_ROW, encoded_row, rows_of
from stillwell.errors import RequestError, StillwellError
from stillwell.pushing.token import Token


async def pushed_in_parts(push: Callable[[Pushing], Awaitable[Pushed]], whole: Pushing, rows: Any) -> Pushed:
    """What became of rows, or of a table, that are pushed one part after the other. whole: the push, without its rows.

    Raises RequestError, PartlyPushed where a part fails that is not the first, and what the first one raises.
    """
    token: Token | None = None
    told: list[PushedRow] = []
    try:
        for number, part in enumerate(_parts(rows)):
            key = whole.idempotency_key
            own = dataclasses.replace(whole, rows=part, idempotency_key=key and _key_of(key, number))
            pushed = await _of_whole(push(own), len(told))
            token = together(token, pushed.token)
            told += pushed.rows
    except StillwellError as error:
        if not told:
            raise
        raise PartlyPushed(Pushed(token, tuple(told)), error) from error
    return Pushed(token, tuple(told))


async def _of_whole(push: Awaitable[Pushed], before: int) -> Pushed:
    """What became of a part. before: so many rows, by which its own are counted on in errors."""
    try:
        return await push
    except RequestError as error:
        named = NAMED_ROW.match(error.field)
        if not before or named is None:
            raise
        field = f"rows[{int(named[1]) + before}]{error.field[named.end() :]}"
        raise RequestError(field, str(error).removeprefix(f"{error.field}: ")) from error


def _key_of(key: str, part: int) -> str:
    """The idempotency key of a part: that of the whole for the first, which most often is the only one."""
    return hashlib.sha256(f"{key}#{part}".encode("utf-8", "surrogatepass")).hexdigest() if part else key


def _parts(rows: Any) -> Iterator[tuple[msgspec.Raw, ...]]:
    """Rows in JSON, as many at once as one request may have; one part at least. Raises RequestError."""
    part: list[msgspec.Raw] = []
    nbytes = 0
    for number, row in enumerate(rows_of(rows)):
        encoded = encoded_row(row, number)
        size = len(bytes(encoded))
        if part and (len(part) == MOST_ROWS or nbytes + size > MOST_BYTES):
            yield tuple(part)
            part, nbytes = [], 0
        part.append(encoded)
        nbytes += size
    yield tuple(part)
