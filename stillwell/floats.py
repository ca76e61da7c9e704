"""Floats that JSON has no numbers for, and the texts that stand for them: as protobuf writes them."""

import math
from collections.abc import Mapping
from typing import Final

NAMED: Final[Mapping[str, float]] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def writable(value: float) -> float | str:
    """A float as JSON can have it: a number, or its name."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
