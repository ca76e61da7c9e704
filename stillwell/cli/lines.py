"""The lines of a file that holds one JSON object a line, as they come."""

from collections.abc import AsyncIterator
from typing import BinaryIO

import click

_LONGEST_LINE = 1024 * 1024
"""Bytes: neither a request nor, where nobody says otherwise, a record of Kafka's may have more."""

_PIECE = 64 * 1024


async def lines(file: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """Each line with its number, from 1; those of nothing but blanks are passed over.

    Who writes to a pipe may take a while over the next line, and those that are there do not wait for it. Raises
    UsageError for a file that holds a JSON array, and for a line that is too long to be an object of its own.
    """
    number = 0
    first = True
    async for line in _whole_lines(file):
        number += 1
        if not line.strip():
            continue
        if first and line.lstrip().startswith(b"["):
            raise click.UsageError(
                "the file holds a JSON array, and one object a line is needed: `jq -c .[] FILE` writes it so"
            )
        first = False
        yield number, line


async def _whole_lines(file: BinaryIO) -> AsyncIterator[bytes]:
    from stillwell.threads import ThreadPool

    left = b""
    # Without the buffer, whose lock the thread would hold: neither Ctrl-C nor closing the file must wait for a line.
    read = getattr(file, "raw", file).read
    thread = ThreadPool("input", 1)
    try:
        while piece := await thread.call(read, _PIECE):
            *whole, left = (left + piece).split(b"\n")
            if max(map(len, (left, *whole))) > _LONGEST_LINE:
                raise click.UsageError(f"a line has more than {_LONGEST_LINE} bytes: is it one JSON object a line?")
            for line in whole:
                yield line
        if left:
            yield left
    finally:
        thread.close()
