"""Floats that JSON has no numbers for, and the texts that stand for them: as protobuf writes them, and a NaN with its
bits. Events and requests take the same ones."""

import math
import re
import struct
from collections.abc import Mapping
from typing import Final

NAMED: Final[Mapping[str, float]] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

TEXTS: Final = r"^(-?Infinity|NaN(:[7f]ff[89a-f][0-9a-f]{12})?)\Z"
"""Texts that stand for a float: the names, and `NaN:` with the 16 hexadecimal digits of another quiet NaN than the
usual one."""

_TEXT: Final = re.compile(TEXTS)
_BITS: Final = struct.Struct(">d")
_USUAL_NAN: Final = _BITS.pack(math.nan)


def writable(value: float) -> float | str:
    """A float as JSON can have it: a number, or its name."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def exactly(value: float) -> float | str:
    """The same with all bits of a NaN."""
    if not math.isnan(value):
        return writable(value)
    bits = _BITS.pack(value)
    return "NaN" if bits == _USUAL_NAN else f"NaN:{bits.hex()}"


def meant(text: str) -> float | None:
    """The float that a text stands for; None where it stands for none."""
    if not _TEXT.match(text):
        return None
    name, _, bits = text.partition(":")
    return float(_BITS.unpack(bytes.fromhex(bits))[0]) if bits else NAMED[name]
