"""Features and columns as they stand: expressions that still know whose they are.

`AirportDepartures.late` is an expression, and a list of features, or a model's inputs, must tell it from
`AirportDepartures.late | other`: the first names a feature, the second would have to be computed somewhere.
"""

from typing import Any, NamedTuple

import polars as pl

_MARK = "_stillwell_reference"


class Reference(NamedTuple):
    """A field of a definition. owner: the class, or the alias, that it was read from."""

    owner: Any
    field: str


def referring(qualified: str, owner: object, field: str) -> pl.Expr:
    """The column of this name, as an expression that knows whose it is."""
    expression = pl.col(qualified)
    setattr(expression, _MARK, Reference(owner, field))
    return expression


def reference_of(value: object) -> Reference | None:
    """What an expression names, as it stands; None for anything that is computed, and for what is no expression."""
    if not isinstance(value, pl.Expr) or not value.meta.is_column():
        return None
    found: Reference | None = getattr(value, _MARK, None)
    return found
