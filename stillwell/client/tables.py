"""Columns as tables of Arrow, Polars and pandas, each of which is loaded when it is first wanted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


def arrow_table(columns: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> "pyarrow.Table":
    """A table of Arrow. types: of columns, as definitions write them; others are what their values are."""
    import pyarrow as pa

    from stillwell.types import field_type

    return pa.table(
        {
            name: pa.array(values, field_type(types[name]).arrow if name in types else None)
            for name, values in columns.items()
        }
    )


def polars_frame(table: "pyarrow.Table") -> "polars.DataFrame":
    """The same as a frame of Polars."""
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def pandas_frame(table: "pyarrow.Table") -> "pandas.DataFrame":
    """The same as a frame of pandas, which must be installed. Columns keep their Arrow types, so that a null stays a
    null and a whole number whole."""
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "to_pandas needs pandas, which Stillwell does not install: pip install pandas, or use to_polars",
            name="pandas",
        ) from None
    return table.to_pandas(types_mapper=pd.ArrowDtype)
