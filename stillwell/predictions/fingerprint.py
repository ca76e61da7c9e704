"""Which inputs a prediction is of: a hash over what the model reads, and the stamps of the stored rows that it was
computed from.

Two readings of the same rows have the same fingerprint, and a new row another one, even if it has the same values. For
each row also counts whether it was within its view's TTL: past it the model is given nulls. What else depends on the
clock alone (a feature on demand that counts from AS_OF) stays outside: with it no prediction would ever be fresh.

The same rows are other inputs where definitions read other features of them, or compute them on demand by another
version: what was predicted before is not of those.
"""

import hashlib
from collections.abc import Mapping, Sequence

from stillwell.layout.prediction import FINGERPRINT_BYTES
from stillwell.layout.stamp import STAMP_BYTES
from stillwell.layout.value import LENGTH_AT, STAMP_AT
from stillwell.spec import InputSpec

_ABSENT = b"\0"
_CURRENT = b"\1"
_PAST_TTL = b"\2"
_TIME_END = STAMP_AT + 8


def what_is_read(inputs: Sequence[InputSpec], versions: Mapping[str, int]) -> bytes:
    """What stands for the inputs of a model as they are defined. versions: of on-demand views."""
    lines = []
    for each in inputs:
        version = versions.get(each.reference.partition(":")[0])
        lines.append(f"{each.name} {each.reference}{'' if version is None else f' {version}'}\n")
    return hashlib.sha256("".join(lines).encode()).digest()[:FINGERPRINT_BYTES]


def fingerprint(read: bytes, rows: Sequence[bytes | None], earliest: Sequence[bytes | None]) -> bytes:
    """Of one entity's rows as they are stored, one for each view that the model reads, in the order of its plan.

    read: what stands for what is read of them. earliest: for each view, the first 8 bytes of the least stamp within its
    TTL, None where it has none.
    """
    said = read
    for row, least in zip(rows, earliest, strict=True):
        if row is None:
            said += _ABSENT
        elif least is not None and row[STAMP_AT:_TIME_END] < least:
            said += _PAST_TTL + row[STAMP_AT:LENGTH_AT]
        else:
            said += _CURRENT + row[STAMP_AT:LENGTH_AT]
    return hashlib.sha256(said).digest()[:FINGERPRINT_BYTES]


def request_digest(values: Sequence[object]) -> bytes:
    """What stands for request values in a key: the same for the same values of the same types."""
    said = "\0".join(f"{type(value).__name__}\1{value!r}" for value in values)
    return hashlib.sha256(said.encode()).hexdigest()[:32].encode()


assert LENGTH_AT - STAMP_AT == STAMP_BYTES
