"""Hints: that a prediction should be computed again. Records of the topic `<project>.<namespace>.refresh`.

The key is the model's name, `:`, and the entity key (and `:` with the digest of request values, where there are any):
so that hints of one prediction meet in one partition. The value is one JSON object:

    {"model": "RouteDelay", "entity": {"dest": "LAX", "origin": "JFK"}, "cause": "write"}

    model     its name; of which version, the worker decides that computes it
    entity    a value for each key of the model's entity, and for each request column that it reads: times in ISO-8601,
              bytes in base64, floats that JSON has no number for as "NaN", "Infinity" or "-Infinity"
    cause     `read`, `write` or `command`
    early     true: a reader would have it computed before its end; left out otherwise
    read_at   with it: when the inputs were read of the prediction that he saw, as `read_at` of its record, in µs since
              the epoch. What was computed since is left; where this is missing, what was read after the record's time

Whoever may write to the topic may hint: what cannot be read is counted and left out, and so is, after a while, what is
unknown: a worker of newer definitions may come that knows it. A hint is nothing but a reason to look: the agent reads
the inputs anew, and leaves what is fresh.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from stillwell.floats import NAMED, writable
from stillwell.predictions.engine import Engine
from stillwell.predictions.outcome import Entity
from stillwell.spec import ModelSpec
from stillwell.types import FLOAT32, FLOAT64, FieldType
from stillwell.wire import FITS
from stillwell.wording import shorten


class Cause(enum.StrEnum):
    """Why a prediction should be computed again."""

    READ = "read"
    WRITE = "write"
    COMMAND = "command"


@dataclasses.dataclass(frozen=True, slots=True)
class Hint:
    """One hint. values: of the entity's keys and the request columns, in Python's types. early and fingerprint: see
    `of`."""

    model: str
    key: bytes
    digest: bytes
    values: Mapping[str, Any]
    cause: Cause
    early: int = 0
    fingerprint: bytes = b""

    @classmethod
    def of(cls, model: str, entity: Entity, cause: Cause, early: int = 0, fingerprint: bytes = b"") -> "Hint":
        """To compute the prediction of an entity. early: although it is fresh, because that ends soon: unless its
        inputs were read later than this, in µs since the epoch; 0 for one that is left where it is fresh. fingerprint:
        of the inputs that were seen, where they were; it is not written, and tells hints of this process apart."""
        return cls(model, entity.key, entity.digest, entity.values, cause, early, fingerprint)

    @property
    def entity(self) -> Entity:
        """Whose prediction it is about."""
        return Entity(self.key, self.digest, self.values)


class UnknownModel(ValueError):
    """A hint is for a model that is not defined here, or is of another shape: other definitions may know it."""


class _Value(msgspec.Struct):
    model: str
    entity: dict[str, Any]
    cause: Literal["read", "write", "command"] = "read"
    early: bool = False
    read_at: int | None = None


_value_of_json = msgspec.json.Decoder(_Value).decode


def refresh_topic(project: str, namespace: str) -> str:
    """Kafka's name of the topic of hints."""
    return f"{project}.{namespace}.refresh"


def encode(hint: Hint) -> tuple[bytes, bytes]:
    """Key and value of a record."""
    key = b"%b:%b" % (hint.model.encode(), hint.key)
    if hint.digest:
        key += b":" + hint.digest
    values = {name: _written(value) for name, value in hint.values.items()}
    value: dict[str, Any] = {"model": hint.model, "entity": values, "cause": hint.cause.value}
    if hint.early:
        value |= {"early": True, "read_at": hint.early}
    return key, msgspec.json.encode(value)


def _written(value: Any) -> Any:
    # Or it would be a null, and that another prediction.
    if isinstance(value, list):
        return list(map(_written, value))
    return writable(value) if isinstance(value, float) else value


def _read(value: Any, kind: FieldType) -> Any:
    if value is None:
        return None
    if kind.element is not None:
        listed = msgspec.convert(value, list[Any])
        if len(listed) != (kind.size or len(listed)):
            raise msgspec.ValidationError(f"Expected a list of {kind.size}, got one of {len(listed)}")
        return [_read(each, kind.element) for each in listed]
    if kind in (FLOAT32, FLOAT64) and isinstance(value, str) and value in NAMED:
        return float(value)
    return msgspec.convert(value, FITS[kind.name])


def decode(value: bytes | None, models: Mapping[str, Engine], made_us: int) -> Hint:
    """The hint that a record is. made_us: the record's time, in µs since the epoch. Raises UnknownModel for what only
    other definitions can have written, ValueError for what cannot be read."""
    try:
        said = _value_of_json(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the hint cannot be read: {error}") from None
    engine = models.get(said.model)
    if engine is None:
        raise UnknownModel(f"there is no model {shorten(said.model)!r}")
    types = types_of(engine.model) | {name: column.type for name, column in engine.inputs.request.items()}
    if said.entity.keys() != types.keys():
        raise UnknownModel(
            f"a hint for {said.model} names {shorten(', '.join(sorted(said.entity)))}, not {', '.join(sorted(types))}"
        )
    try:
        columns = {name: [_read(said.entity[name], kind)] for name, kind in types.items()}
    except msgspec.ValidationError as error:
        raise ValueError(f"a hint for {said.model} has a value that does not fit: {error}") from None
    (entity,) = engine.entities(columns)
    early = (made_us if said.read_at is None else said.read_at) if said.early else 0
    return Hint.of(said.model, entity, Cause(said.cause), early)


def types_of(model: ModelSpec) -> dict[str, FieldType]:
    """The types of the keys of a model's entity, by name."""
    return {key.name: key.type for key in model.entity.keys}


class Hints(Protocol):
    """Where hints go."""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Have predictions computed again, soon; False for one that somebody has just asked for. Never waits."""

    @property
    def problem(self) -> str:
        """Why they do not get through, so that nothing is queued; empty where they do, as far as is known."""


class NoHints:
    """Forgets them: for a process that computes by itself, or not at all."""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Nothing is queued."""
        return [False] * len(hints)

    @property
    def problem(self) -> str:
        """That nothing is queued here."""
        return "no worker is asked from here to compute it anew"
