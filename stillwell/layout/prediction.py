"""The cached prediction of a model for one entity, as it is kept in Redis: the newest outputs, and the newest failure.

    at  bytes  field
     0      1  format         1
     1      4  length         of the outputs' part in bytes, 0 for none; unsigned
     5      …  outputs        what the model said last
     …      …  failure        why it said nothing since then; nothing here where it did not fail

    the outputs' part                                        the failure's part
     0      8  read at        the input instant               0      8  read at      the input instant
     8     16  fingerprint    of the inputs                   8     16  fingerprint  of the inputs
    24      8  computed at                                   24      8  failed at
    32      4  cost           µs that computing took         32      8  retry at     nobody is to try before
    36      4  layout id      of the outputs                 40      2  attempts     failed in a row, unsigned
    40      n  null bitmap    one bit for each output        42      …  reason       UTF-8, to the end
     …      …  fixed body     one slot for each output
     …      …  tail           of texts and binaries

Integers of the parts' heads are big-endian and unsigned, times µs since the epoch. Bitmap, body and tail are those of
`stillwell.layout.value`. The model and its version stand in the key.

**read at** is Redis's own time at the instant at which the inputs were read. The greatest wins, for each part by
itself, and a failure of inputs that were read no later than those of the outputs is dropped. Parts of one instant are
compared as bytes. So completions that arrive in any order, or twice, end in the same record; `merged` is the rule, and
the script and the twin follow it.

A part that was read more than a second from now, by the clock of the server that merges, was read by another server's,
which this one has taken over from: it is older than any other part. By its instant alone it would win until this
server's clock has come as far.
"""

import dataclasses
import hashlib
import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Self

from stillwell.errors import DefinitionError, FormatError
from stillwell.layout import elements
from stillwell.layout.value import MAX_FEATURES, slot_code
from stillwell.spec import ModelSpec, OutputSpec
from stillwell.types import STRING

FORMAT = 1
FINGERPRINT_BYTES = 16
MAX_REASON_BYTES = 500
MAX_RECORD_BYTES = 1 << 20
_MOST_BYTES = MAX_RECORD_BYTES - 2 * MAX_REASON_BYTES
"""Of outputs; a reason may stand beside them."""

AHEAD_US = 1_000_000
"""How far ahead of a server's clock an instant may be that was read by it: not at all, but for its own corrections."""

_HEAD = struct.Struct(">BI")
_OUTPUTS = struct.Struct(">Q16sQI4s")
_FAILURE = struct.Struct(">Q16sQQH")
_WHOLE_HEAD = struct.Struct(">BIQ16sQI4s")
"""That of a record and that of its outputs' part behind it."""
_MOST_COST = 2**32 - 1
_MOST_ATTEMPTS = 2**16 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Outputs:
    """What a model said. read_at, computed_at: µs since the epoch; cost_us: what computing took; body: see
    `OutputLayout`."""

    read_at: int
    fingerprint: bytes
    computed_at: int
    cost_us: int
    layout: bytes
    body: bytes

    def pack(self) -> bytes:
        """As it is stored."""
        head = _OUTPUTS.pack(
            self.read_at, self.fingerprint, self.computed_at, min(self.cost_us, _MOST_COST), self.layout
        )
        return head + self.body


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """That a model said nothing of use, and why. attempts: how many in a row; retry_at: nobody is to try before."""

    read_at: int
    fingerprint: bytes
    failed_at: int
    retry_at: int
    attempts: int
    reason: str

    def pack(self) -> bytes:
        """As it is stored; a long reason is cut."""
        reason = self.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        attempts = min(self.attempts, _MOST_ATTEMPTS)
        head = _FAILURE.pack(self.read_at, self.fingerprint, self.failed_at, self.retry_at, attempts)
        return head + reason.encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of one prediction."""

    outputs: Outputs | None
    failure: Failure | None

    def pack(self) -> bytes:
        """As it is stored."""
        return _joined(self.outputs.pack() if self.outputs else b"", self.failure.pack() if self.failure else b"")

    @classmethod
    def unpack(cls, stored: bytes) -> Self:
        """Raises FormatError for what is no record of this format."""
        outputs, failure = _parts(stored)
        try:
            return cls(
                Outputs(*(*_OUTPUTS.unpack_from(outputs), outputs[_OUTPUTS.size :])) if outputs else None,
                Failure(*(*_FAILURE.unpack_from(failure), failure[_FAILURE.size :].decode())) if failure else None,
            )
        except (struct.error, UnicodeDecodeError) as error:
            raise FormatError(f"a prediction's {len(stored)} bytes do not end where they should ({error})") from None


def merged(stored: bytes | None, given: bytes, now_us: int | None = None) -> bytes:
    """What is to stand in the place of two records of one prediction: the rule, on packed records.

    now_us: the server's time; None where all instants are in its past. It is associative, commutative and idempotent.
    Raises FormatError.
    """

    def age(part: bytes) -> tuple[bytes, bytes]:
        ahead = now_us is not None and part != b"" and int.from_bytes(part[:8]) > now_us + AHEAD_US
        return b"" if ahead else part[:8], part

    def instant(part: bytes) -> tuple[bytes, bytes]:
        return age(part)[0], part[:8]

    outputs, failure = _parts(given)
    if stored:
        stored_outputs, stored_failure = _parts(stored)
        outputs, failure = max(outputs, stored_outputs, key=age), max(failure, stored_failure, key=age)
    return _joined(outputs, b"" if instant(failure) <= instant(outputs) else failure)


def lived_from(record: bytes) -> int:
    """From when on a packed record's life is counted: when the inputs of its outputs were read, or of its failure where
    it has none. µs since the epoch."""
    outputs, failure = _parts(record)
    return int.from_bytes((outputs or failure)[:8])


def _parts(record: bytes) -> tuple[bytes, bytes]:
    if len(record) < _HEAD.size or record[0] != FORMAT:
        raise FormatError(
            f"{record[:8]!r}… is no prediction of format {FORMAT}, the only one that this version knows: upgrade, or "
            "find out who else writes to these keys"
        )
    end = _HEAD.size + int.from_bytes(record[1:5])
    if end > len(record):
        raise FormatError(f"a prediction's {len(record)} bytes do not end where they should")
    return record[_HEAD.size : end], record[end:]


def _joined(outputs: bytes, failure: bytes) -> bytes:
    return _HEAD.pack(FORMAT, len(outputs)) + outputs + failure


class OutputLayout:
    """How the outputs of one model are laid out: bitmap, slots and tail, as those of a row are."""

    def __init__(self, model: str, outputs: Sequence[OutputSpec]) -> None:
        """Raises DefinitionError for more outputs than a row may have features, and vectors that no record can hold."""
        if len(outputs) > MAX_FEATURES:
            raise DefinitionError(f"model {model}: has {len(outputs)} outputs, at most {MAX_FEATURES} are allowed")
        if sum(output.type.width for output in outputs) > _MOST_BYTES:
            raise DefinitionError(
                f"model {model}: its outputs would take more than {_MOST_BYTES} bytes, most of them its vectors; make "
                "them shorter"
            )
        self.model = model
        self.outputs = tuple(outputs)
        lines = [model, *(f"{output.name} {output.type.name}" for output in outputs)]
        self.id = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest()[:4]
        self._bitmap_bytes = -(-len(outputs) // 8)
        self._body = struct.Struct("<" + "".join(slot_code(output.type) for output in outputs))
        self._plain = struct.Struct(f"<{self._bitmap_bytes}s{self._body.format[1:]}")
        self._plain_length = _OUTPUTS.size + self._plain.size
        self._no_nulls = bytes(self._bitmap_bytes)
        self._variable = [at for at, output in enumerate(outputs) if not output.type.width]
        self._lists = [
            (at, elements.unpacker(output.type)) for at, output in enumerate(outputs) if output.type.element is not None
        ]

    @classmethod
    def of(cls, model: ModelSpec) -> Self:
        """The layout of a model as it is defined."""
        return cls(model.name, model.outputs)

    def encode(self, values: Mapping[str, object]) -> bytes:
        """The body of outputs that fit their types; a Timestamp is µs since the epoch. Raises ValueError for a body
        that is too long, and what `struct` raises for a value that does not fit."""
        nulls, end = 0, 0
        slots: list[object] = []
        tails: list[bytes] = []
        for at, output in enumerate(self.outputs):
            value = values[output.name]
            if value is None:
                nulls |= 1 << at
            elif output.type.element is not None:
                value = elements.pack(output.type, value)  # type: ignore[arg-type]
            if output.type.width:
                nothing = 0 if output.type.element is None else b""
                slots.append(nothing if value is None else value)
                continue
            tails.append(b"" if value is None else value.encode() if isinstance(value, str) else bytes(value))  # type: ignore[call-overload]
            end += len(tails[-1])
            slots.append(end)
        body = nulls.to_bytes(self._bitmap_bytes, "little") + self._body.pack(*slots) + b"".join(tails)
        if len(body) > _MOST_BYTES:
            raise ValueError(f"the outputs take {len(body)} bytes, more than a record may have")
        return body

    def of_inputs(self, record: bytes, fingerprint: bytes) -> tuple[int, int, int, tuple[object, ...]] | None:
        """When the inputs were read, when it was computed, what that took, and the values of the outputs in a packed
        record, if they are of these inputs; None where they are not, or `Record.unpack` must look closer.

        What most reads need, and no more: a microsecond of each.
        """
        if len(record) < _WHOLE_HEAD.size:
            return None
        format, length, read_at, of, computed_at, cost_us, layout = _WHOLE_HEAD.unpack_from(record)
        if of != fingerprint or format != FORMAT or layout != self.id or self._variable:
            return None
        if length != self._plain_length or len(record) < _HEAD.size + length:
            return None
        slots = self._plain.unpack_from(record, _WHOLE_HEAD.size)
        if slots[0] != self._no_nulls:
            return None
        if self._lists:
            values = list(slots[1:])
            for at, unpack in self._lists:
                values[at] = unpack(values[at])
            return read_at, computed_at, cost_us, tuple(values)
        return read_at, computed_at, cost_us, slots[1:]

    def decode(self, outputs: Outputs) -> tuple[object, ...]:
        """The values, in the order of the model's outputs. Raises FormatError for those of another layout."""
        if outputs.layout != self.id:
            raise FormatError(
                f"model {self.model}: a prediction has the layout {outputs.layout.hex()}: it is of other outputs. Give "
                "a model whose outputs change a new version"
            )
        body = outputs.body
        tail_at = self._bitmap_bytes + self._body.size
        if len(body) < tail_at:
            raise self._damaged(body)
        slots: list[object] = list(self._body.unpack_from(body, self._bitmap_bytes))
        ends = [0, *(int(slots[at]) for at in self._variable)]  # type: ignore[call-overload]
        if ends != sorted(ends) or tail_at + ends[-1] != len(body):
            raise self._damaged(body)
        for at, (begin, end) in zip(self._variable, itertools.pairwise(ends), strict=True):
            data = body[tail_at + begin : tail_at + end]
            slots[at] = data.decode(errors="replace") if self.outputs[at].type is STRING else data
        nulls = int.from_bytes(body[: self._bitmap_bytes], "little")
        for at, unpack in self._lists:
            if not nulls >> at & 1:
                try:
                    slots[at] = unpack(slots[at])  # type: ignore[arg-type]
                except ValueError:
                    raise self._damaged(body) from None
        if nulls:
            slots = [None if nulls >> at & 1 else slot for at, slot in enumerate(slots)]
        return tuple(slots)

    def _damaged(self, body: bytes) -> FormatError:
        return FormatError(f"model {self.model}: the {len(body)} bytes of outputs do not end where their layout says")


def is_finite(value: object) -> bool:
    """Whether an output is anything but NaN or an infinity: a model that says those has failed."""
    return not isinstance(value, float) or math.isfinite(value)
