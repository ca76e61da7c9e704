"""The rows of a file that is pushed: JSON lines, CSV or Parquet, read piece by piece."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar

import click

from stillwell.cli.lines import lines

if TYPE_CHECKING:
    from stillwell.client import PushedRow
    from stillwell.spec import ColumnSpec

    Row = dict[str, object] | PushedRow
    """A row, or why it is none."""

    Types = Mapping[str, ColumnSpec]

Format = Literal["json", "csv", "parquet"]

FORMATS: tuple[Format, ...] = ("json", "csv", "parquet")

_T = TypeVar("_T")

_AT_A_TIME = 500
"""Rows that are read from a CSV or Parquet file before the first of them goes on its way."""


def format_of(name: str) -> Format:
    """How a file of this name is written, as its ending says; JSON lines where that says nothing."""
    ending = name.rpartition(".")[2].lower()
    return "parquet" if ending in ("parquet", "pq") else "csv" if ending == "csv" else "json"


async def rows_of(file: BinaryIO, format: Format, types: "Callable[[], Types]") -> "AsyncIterator[tuple[int, Row]]":
    """Each row with its number: of the line that it ends on, or in a Parquet file its own, from 1.

    types: the columns that a row may have, asked for where a file has text alone. Raises UsageError for a file that is
    none of this format.
    """
    if format == "json":
        async for each in _of_json(file):
            yield each
        return
    made = _of_csv(file, types()) if format == "csv" else _of_parquet(file)
    async for each in _off_the_loop(made):
        yield each


# ---- JSON lines ----


async def _of_json(file: BinaryIO) -> "AsyncIterator[tuple[int, Row]]":
    """As soon as each line is there. Empty lines are passed over."""
    import msgspec

    from stillwell.client import PushedRow, PushStatus

    decoder = msgspec.json.Decoder(dict[str, object])
    async for number, line in lines(file):
        try:
            yield number, decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield number, PushedRow(PushStatus.REJECTED, "malformed", f"the line is no JSON object: {error}")


# ---- CSV and Parquet ----


async def _off_the_loop(rows: Iterator[_T]) -> AsyncIterator[_T]:
    """What an iterator gives that reads a file, some hundreds at a time."""
    from stillwell.threads import ThreadPool

    thread = ThreadPool("input", 1)
    try:
        while some := await thread.call(lambda: list(itertools.islice(rows, _AT_A_TIME))):
            for each in some:
                yield each
    finally:
        thread.close()


def _of_csv(file: BinaryIO, types: "Types") -> "Iterator[tuple[int, Row]]":
    """A CSV file says nothing of types: its cells are read by those of the columns. An empty cell is null."""
    import csv
    import io

    from stillwell.client import PushedRow, PushStatus
    from stillwell.definitions.mistakes import did_you_mean

    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")  # spreadsheets put a mark before the first name
    reader = csv.reader(text, strict=True)
    try:
        names = next(reader, [])
        for name in names:
            if name not in types:
                raise click.UsageError(f"the first line names a column {name!r}{did_you_mean(name, types)}")
            if types[name].type.element is not None:
                raise click.UsageError(
                    f"the column {name!r} is {types[name].type.name}, and a cell of CSV holds a single value; push "
                    "JSON lines or Parquet"
                )
        if len(set(names)) < len(names):
            raise click.UsageError("the first line names a column twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                said = f"the line has {len(cells)} cells, the first one names {len(names)} columns"
                yield reader.line_num, PushedRow(PushStatus.REJECTED, "malformed", said)
                continue
            try:
                yield (
                    reader.line_num,
                    {name: _cell(types[name], cell) for name, cell in zip(names, cells, strict=True)},
                )
            except ValueError as error:
                yield reader.line_num, PushedRow(PushStatus.REJECTED, "malformed", str(error))
    except (csv.Error, UnicodeDecodeError) as error:
        raise click.UsageError(f"line {reader.line_num + 1} is not CSV in UTF-8: {error}") from None
    finally:
        text.detach()  # who opened the file closes it


def _cell(column: "ColumnSpec", cell: str) -> object:
    """A cell as the column's value. Raises ValueError."""
    from stillwell.texts import value_of
    from stillwell.types import INT64, STRING

    if not cell and (column.nullable or column.type is not STRING):
        return None
    try:
        return value_of(column.type if column.unit is None else INT64, cell)
    except ValueError as error:
        raise ValueError(f"{column.name} {error}") from None


def _of_parquet(file: BinaryIO) -> "Iterator[tuple[int, Row]]":
    """A Parquet file has types of its own. One row group at a time is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.seekable():
        raise click.UsageError("Parquet is read from its end: push it as a file, not by standard input")
    try:
        numbers = itertools.count(1)
        for batch in pq.ParquetFile(file).iter_batches(_AT_A_TIME):
            for row in batch.to_pylist():
                yield next(numbers), row
    except pa.ArrowException as error:
        raise click.UsageError(f"the file cannot be read as Parquet: {error}") from None
