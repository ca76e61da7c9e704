"""Rows that a caller gives, as the query service reads them: of one or several or a table, and in JSON."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from stillwell.client.pushed import Row
from stillwell.errors import RequestError
from stillwell.floats import writable

MOST_ROWS = 500
MOST_BYTES = 512 * 1024
"""The most of one request. A service that is as it comes takes twice that."""

NAMED_ROW = re.compile(r"rows\[(\d+)\]")
"""How an error's field begins that names a row of a request."""


def rows_of(rows: Any) -> Iterable[Row]:
    """Rows from what a caller may give: one, several, or a table of Polars, pandas or Arrow, which is never there as
    Python values as a whole. Raises RequestError."""
    if isinstance(rows, Mapping):
        return [rows]
    if hasattr(rows, "iter_slices"):  # Polars
        return _listed(part.to_dicts() for part in rows.iter_slices(MOST_ROWS))
    if hasattr(rows, "itertuples"):  # pandas
        rows = _arrow_of(rows)
    if hasattr(rows, "to_pylist") and hasattr(rows, "slice"):  # Arrow
        return _listed(rows.slice(at, MOST_ROWS).to_pylist() for at in range(0, len(rows), MOST_ROWS))
    if hasattr(rows, "collect_schema") and hasattr(rows, "collect"):
        raise RequestError("rows", "is a table that is not computed yet; push what its collect() gives")
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise RequestError("rows", f"must be a row, a list of rows or a table, not {type(rows).__name__}")
    return rows


def _listed(parts: Iterable[Iterable[Row]]) -> Iterator[Row]:
    return itertools.chain.from_iterable(parts)


def _arrow_of(frame: Any) -> Any:
    """A frame of pandas as a table of Arrow: what pandas takes for missing, NaN too, is null, and an index that has a
    name is a column. Times are cut to microseconds, as everywhere here."""
    import pyarrow as pa

    named = any(name is not None for name in frame.index.names)
    try:
        table = pa.Table.from_pandas(frame.reset_index() if named else frame, preserve_index=False)
        micro = [
            field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
            for field in table.schema
        ]
        return table.cast(pa.schema(micro), safe=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RequestError("rows", f"holds a column that has no one type: {error}") from None


def encoded_row(row: Row, number: int = 0) -> msgspec.Raw:
    """A row in JSON: times in ISO-8601, bytes in base64, numbers that JSON lacks by name. Raises RequestError."""
    if not isinstance(row, Mapping):
        raise RequestError(f"rows[{number}]", f"must be a mapping of columns to values, not {type(row).__name__}")
    try:
        return msgspec.Raw(_encode({name: jsonable(value) for name, value in row.items()}))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"rows[{number}]", f"holds a value that JSON has no form for: {error}") from None


def jsonable(value: Any) -> Any:
    """A value as the service reads it: msgspec would write null for what is no number, in a list too."""
    if isinstance(value, float):
        return writable(value)
    return list(map(jsonable, value)) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """For msgspec: an array or scalar of NumPy's, which it does not know, as Python's."""
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if hasattr(value, "item"):
        return jsonable(value.item())
    raise TypeError(f"{type(value).__name__} {value!r:.80}")


_encode = msgspec.json.Encoder(enc_hook=plain).encode
