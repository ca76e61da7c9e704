"""What on-demand views of tests are computed from: a view, an alias of it, and a request."""

import polars as pl

from stillwell.spec import AS_OF, AliasSpec, EntitySpec, KeySpec, RequestColumnSpec, RequestSpec
from stillwell.types import BYTES, FLOAT32, FLOAT64, INT64, STRING, TIMESTAMP
from tests.batches import column, feature, topic, view

T = topic(column("id", INT64), column("amount", FLOAT64, nullable=True), column("small", FLOAT32))
STORED = view(
    T,
    {"id": (INT64, pl.col("T.id"))},
    feature("amount", FLOAT64, pl.col("T.amount"), nullable=True),
    feature("small", FLOAT32, pl.col("T.small")),
    feature("seen", TIMESTAMP, pl.col("T.at")),
    name="Stored",
)
PAIR = EntitySpec(name="Pair", keys=(KeySpec(name="left", type=INT64),))
OTHER = AliasSpec(name="Other", view=STORED, entity=PAIR, keys={"id": "left"})
ASKED = RequestSpec(
    name="Asked",
    columns=(
        RequestColumnSpec(name="price", type=FLOAT64, nullable=False),
        RequestColumnSpec(name="text", type=STRING, nullable=True),
        RequestColumnSpec(name="secret", type=BYTES, nullable=True),
    ),
)
AGE_US = (pl.col(AS_OF) - pl.col("Stored.seen")).dt.total_microseconds()
"""How old what is stored is."""
