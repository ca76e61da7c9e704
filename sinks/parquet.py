"""One Parquet file in the making: tables come in as they arrive, compressed bytes go out when its span is closed.

Rows wait uncompressed until there are enough for a row group, and are then compressed at once, so that a long window
costs the memory of its compressed bytes. Encoding releases the interpreter's lock: call `add` and `finish` from a
thread, one at a time.
"""

import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from stillwell.layout.parquet import memory_of

ROW_GROUP_BYTES = 16 << 20
"""Uncompressed bytes of a row group. Smaller ones compress worse and slow every reader down; larger ones hold more
memory for each open file, of which a worker has (views + 1) x partitions."""

_MERGED_TOGETHER = 16

_ALWAYS_NEW = {"value", "event_timestamp", "_offset", "_sequence"}

_ZSTD_LEVEL = 1  # level 3 saves a tenth of the bytes for half as much processor time again


class ParquetEncoder:
    """Collects the tables of one file, which all have the same columns. Not for use from two threads at a time."""

    def __init__(self) -> None:
        self._output = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[list[pa.Table]] = [[]]
        self._waiting_bytes = 0
        self.rows = 0
        self.nbytes = 0
        """What this file holds in memory, near enough: compressed row groups and rows that wait. A plain number, since
        the event loop reads it while a thread compresses."""

    def add(self, table: pa.Table) -> None:
        """Take rows in; compress a row group when enough have come together."""
        self._keep(table)
        self._waiting_bytes += memory_of(table)
        self.rows += table.num_rows
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._write_group()
        self._measure()

    def finish(self) -> bytes:
        """Compress what waits and return the file's bytes; the encoder is spent."""
        if self._waiting_bytes:
            self._write_group()
        if self._writer is None:
            raise ValueError("a Parquet file without rows is not written; leave it out of the link")
        self._writer.close()
        data: bytes = self._output.getvalue().to_pybytes()
        self.nbytes = len(data)
        return data

    def _keep(self, table: pa.Table) -> None:
        """Hold a table until its row group is full.

        A table costs some kilobytes however few rows it has, so that a slow topic's many small ones are merged, sixteen
        at a time, and then the merged ones: every row is copied once for each power of sixteen.
        """
        level = 0
        self._waiting[0].append(table)
        while len(self._waiting[level]) == _MERGED_TOGETHER:
            merged = pa.concat_tables(self._waiting[level]).combine_chunks()
            self._waiting[level] = []
            level += 1
            if level == len(self._waiting):
                self._waiting.append([])
            self._waiting[level].append(merged)

    def _write_group(self) -> None:
        in_order = [table for level in reversed(self._waiting) for table in level]
        table = pa.concat_tables(in_order)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._output,
                table.schema,
                compression="zstd",
                compression_level=_ZSTD_LEVEL,
                use_dictionary=_worth_a_dictionary(table.schema),
                write_statistics=True,
            )
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting = [[]]
        self._waiting_bytes = 0

    def _measure(self) -> None:
        self.nbytes = self._waiting_bytes + (self._output.tell() if self._writer else 0)


def _worth_a_dictionary(schema: pa.Schema) -> list[str]:
    """The columns whose values may come often. Of the others nearly each is new: to look each up in a dictionary that
    is thrown away in the end takes two thirds of the time of a view's file, and what is left of it a fifth more room.
    """
    leaves = itertools.chain.from_iterable(_leaves(field, field.name) for field in schema)
    return [path for path, kind in leaves if path not in _ALWAYS_NEW and not pa.types.is_floating(kind)]


def _leaves(field: pa.Field, path: str) -> Iterator[tuple[str, pa.DataType]]:
    """The columns that a field becomes, by their paths in Parquet, each with its type."""
    if pa.types.is_list(field.type):
        yield from _leaves(field.type.value_field, f"{path}.list.element")
    elif pa.types.is_struct(field.type):
        for child in field.type.fields:
            yield from _leaves(child, f"{path}.{child.name}")
    else:
        yield path, field.type
