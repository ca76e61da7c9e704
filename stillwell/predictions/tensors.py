"""The Open Inference Protocol, version 2, as JSON: a batch of entities as named tensors, and back. Pure.

| type      | tensor                    | what is sent, and taken                                                     |
|-----------|---------------------------|-----------------------------------------------------------------------------|
| Bool      | BOOL                      |                                                                             |
| Int32     | INT32                     | taken also from narrower integers                                           |
| Int64     | INT64                     | taken also from narrower integers                                           |
| Float32   | FP32                      | taken also from FP16 and FP64. Null, NaN and infinities are sent as `null`  |
| Float64   | FP64                      | taken also from FP16 and FP32, and sent as above                            |
| String    | BYTES                     | as text                                                                     |
| Bytes     | BYTES                     | as base64                                                                   |
| Timestamp | INT64                     | µs since the epoch                                                          |

A tensor has the shape [entities] or [entities, 1], that of a vector [entities, its size]: what is sent is flat, and the
elements of one vector stand beside each other; what is taken may be nested as well. Lists of any length are no tensors,
and definitions refuse them.

The protocol has no nulls: a float has `null`, which MLServer and its like read as NaN; another input that is null, a
vector too, keeps its entity from being predicted. A model with a single output takes the server's single output
whatever it is called, since many servers call theirs `predict` and know no other name.
"""

import binascii
import dataclasses
import itertools
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stillwell.counting import counted
from stillwell.errors import ModelError
from stillwell.layout.prediction import is_finite
from stillwell.spec import ModelSpec, OutputSpec
from stillwell.types import BYTES, FLOAT32, FLOAT64, STRING, TIMESTAMP, FieldType
from stillwell.wire import FITS

DATATYPES: Mapping[str, str] = {
    "Bool": "BOOL",
    "Int32": "INT32",
    "Int64": "INT64",
    "Float32": "FP32",
    "Float64": "FP64",
    "String": "BYTES",
    "Bytes": "BYTES",
    "Timestamp": "INT64",
}
"""What each type is sent as."""

_INTEGERS = ("INT8", "INT16", "INT32", "UINT8", "UINT16")
_FLOATS = ("FP16", "FP32", "FP64")
_TAKEN: Mapping[str, tuple[str, ...]] = {
    "Bool": ("BOOL",),
    "Int32": _INTEGERS,
    "Int64": (*_INTEGERS, "INT64", "UINT32"),
    "Float32": _FLOATS,
    "Float64": _FLOATS,
    "String": ("BYTES",),
    "Bytes": ("BYTES",),
    "Timestamp": ("INT64",),
}
_QUOTED = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Unusable:
    """Why there is no prediction for an entity, though others of its batch may have one."""

    reason: str


Said = Mapping[str, object] | Unusable
"""What a model says of one entity: a value for each output. A Timestamp is µs since the epoch."""


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]
    model_version: str | None = None


class _Declared(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class Metadata(msgspec.Struct):
    """What a server says of a model."""

    name: str
    versions: list[str] | None = None
    inputs: list[_Declared] | None = None
    outputs: list[_Declared] | None = None


_answer_of_json = msgspec.json.Decoder(_Answer).decode
_metadata_of_json = msgspec.json.Decoder(Metadata).decode


def metadata_of(body: bytes) -> Metadata:
    """Raises ModelError for what is no metadata."""
    try:
        return _metadata_of_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"its metadata is not that of the Open Inference Protocol: {error}") from None


def mismatches(model: ModelSpec, metadata: Metadata) -> list[str]:
    """How a model's inputs and outputs differ from what its server says: names, datatypes, shapes."""
    found = []
    if metadata.versions and model.version not in metadata.versions:
        found.append(
            f"version {model.version!r} is not there, only {', '.join(metadata.versions)}: deploy it, or correct "
            "version="
        )
    if metadata.inputs:
        inputs = {each.name: each for each in metadata.inputs}
        for each in model.inputs:
            found += _mismatch("input", each.name, [DATATYPES[each.type.scalar.name]], each.type, inputs)
        found += [
            f"the server wants an input {name!r}, which inputs= does not have"
            for name in inputs.keys() - {each.name for each in model.inputs}
        ]
    if metadata.outputs:
        outputs = {each.name: each for each in metadata.outputs}
        if len(outputs) == len(model.outputs) == 1:
            outputs = {model.outputs[0].name: metadata.outputs[0]}
        for output in model.outputs:
            found += _mismatch("output", output.name, _TAKEN[output.type.scalar.name], output.type, outputs)
    return found


def _mismatch(
    what: str, name: str, allowed: Sequence[str], kind: FieldType, declared: Mapping[str, _Declared]
) -> list[str]:
    if name not in declared:
        return [f"{what} {name!r} is not among the server's: {', '.join(declared)}"]
    server = declared[name]
    found = []
    if server.datatype not in allowed:
        found.append(
            f"{what} {name!r} is {kind.name}, which wants {' or '.join(allowed)}, and {server.datatype} at the server"
        )
    width = kind.size or 1
    wrong = not server.shape or any(each not in (-1, width) for each in server.shape[1:]) or len(server.shape) > 2
    if wrong or (width > 1 and len(server.shape) == 1):
        of_each = "one value" if kind.size is None else f"{kind.size} values"
        found.append(
            f"{what} {name!r} has the shape {server.shape} at the server: {of_each} for each entity, [-1, {width}]"
        )
    return found


def left_out(model: ModelSpec, columns: Mapping[str, Sequence[object]], count: int) -> dict[int, Unusable]:
    """The entities that cannot be asked about, by their numbers: those with a null that no tensor can hold."""
    found: dict[int, Unusable] = {}
    for each in model.inputs:
        if each.type in (FLOAT32, FLOAT64) or None not in columns[each.name]:
            continue
        for number, value in enumerate(columns[each.name][:count]):
            if value is None:
                found.setdefault(
                    number,
                    Unusable(
                        f"input {each.name} ({each.reference}) is null or missing, and a tensor of {each.type.name} "
                        "has no nulls: fill it in the view, or use a float"
                    ),
                )
    return found


def request(model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> bytes:
    """The body that asks about some entities. columns: values for each input; nothing is null but floats."""
    tensors = []
    for each in model.inputs:
        values = columns[each.name]
        scalar = each.type.scalar
        flat = values if each.type.element is None else list(itertools.chain.from_iterable(values))
        tensor: dict[str, object] = {
            "name": each.name,
            "shape": [len(values), each.type.size or 1],
            "datatype": DATATYPES[scalar.name],
            "data": _SENT.get(scalar.name, list)(flat),
        }
        if scalar in (STRING, BYTES):
            tensor["parameters"] = {"content_type": "str" if scalar is STRING else "base64"}
        tensors.append(tensor)
    return msgspec.json.encode({"inputs": tensors})


def _floats(values: Sequence[Any]) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else value for value in values]


_SENT: Mapping[str, Callable[[Sequence[Any]], list[Any]]] = {
    "Float32": _floats,
    "Float64": _floats,
    "Bytes": lambda values: [b64encode(value).decode() for value in values],
}


def answers(model: ModelSpec, body: bytes, count: int) -> list[Said]:
    """What an answer says of each entity. Raises ModelError where it is none for this model and so many entities."""
    answer = _decoded(body)
    if answer.model_version and answer.model_version != model.version:
        raise ModelError(f"it was answered by version {answer.model_version!r}, not {model.version!r}")
    tensors = {each.name: each for each in answer.outputs}
    if len(answer.outputs) == len(model.outputs) == 1:
        tensors = {model.outputs[0].name: answer.outputs[0]}
    columns = [_column(output, tensors, count) for output in model.outputs]
    names = [output.name for output in model.outputs]
    return [_said(names, values) for values in zip(*columns, strict=True)]


def _decoded(body: bytes) -> _Answer:
    try:
        return _answer_of_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = error
    try:
        # Python's own servers write NaN, which is no JSON: it shall cost the entities that it is about, and no others.
        return msgspec.convert(json.loads(body), _Answer)
    except (ValueError, RecursionError, msgspec.ValidationError):
        raise ModelError(f"its answer is not that of the Open Inference Protocol: {problem}") from None


def _column(output: OutputSpec, tensors: Mapping[str, _Tensor], count: int) -> list[object]:
    """An output's value for each entity, or why it has none."""
    tensor = tensors.get(output.name)
    if tensor is None:
        raise ModelError(f"its answer has no output {output.name!r}, only {', '.join(tensors) or 'none'}")
    if tensor.datatype not in _TAKEN[output.type.scalar.name]:
        raise ModelError(f"output {output.name} must be {output.type.name}, not a tensor of {tensor.datatype}")
    data = tensor.data or []
    if output.type.size is not None:
        return _vectors(output, output.type.size, tensor.shape, data, count)
    if data and all(type(each) is list and len(each) == 1 for each in data):
        data = [each[0] for each in data]
    if tensor.shape not in ([count], [count, 1]) or len(data) != count:
        raise ModelError(
            f"output {output.name} has the shape {tensor.shape} and {counted(len(data), 'value')}, "
            f"for {counted(count, 'entity', 'entities')}"
        )
    return [_value(output, value) for value in data]


def _vectors(output: OutputSpec, size: int, shape: Sequence[int], data: list[Any], count: int) -> list[object]:
    """The same of an output that is a vector."""
    if data and all(type(each) is list for each in data):
        rows = data
    else:
        rows = [data[at : at + size] for at in range(0, len(data), size)]
    flat_shape = size == 1 and shape == [count]
    if not (shape == [count, size] or flat_shape) or len(rows) != count or any(len(row) != size for row in rows):
        values = sum(map(len, rows))
        raise ModelError(
            f"output {output.name} has the shape {shape} and {counted(values, 'value')}, "
            f"for {counted(count, 'entity', 'entities')} with {size} each"
        )
    return [_value(output, row) for row in rows]


def spoken(model: ModelSpec, columns: object, count: int) -> list[Said]:
    """What a function in this process says of each entity. Raises ModelError where it says something else."""
    if not isinstance(columns, Mapping):
        came = "nothing (is a return missing?)" if columns is None else type(columns).__name__
        example = ", ".join(f'"{output.name}": [...]' for output in model.outputs)
        raise ModelError(f"it must return a mapping of outputs to sequences, as {{{example}}}, not {came}")
    taken = []
    for output in model.outputs:
        if output.name not in columns:
            raise ModelError(f"it returned no {output.name!r}, only {', '.join(map(str, columns)) or 'nothing'}")
        values = columns[output.name]
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise ModelError(
                f"it returned {values!r:.80} for {output.name}: give a sequence, with a value for each entity"
            )
        values = list(values)
        if len(values) != count:
            returned = f"{counted(len(values), 'value')} of {output.name}"
            raise ModelError(f"it returned {returned}, for {counted(count, 'entity', 'entities')}")
        taken.append([_value(output, value) for value in values])
    return [_said([output.name for output in model.outputs], values) for values in zip(*taken, strict=True)]


def _value(output: OutputSpec, value: Any) -> object:
    if value is None:
        if output.nullable:
            return None
        return Unusable(
            f"output {output.name} is null, None or NaN, and must be {output.type.name}: have the model give a value "
            f"for each entity, or define the output as {output.type.name} | None"
        )
    if output.type.element is not None:
        return _vector(output, value)
    return _single(output.name, output.type, value)


def _vector(output: OutputSpec, value: Any) -> object:
    """A vector as the model said it: a list, or what has a `tolist`, as arrays of NumPy's do."""
    kind = output.type
    values = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(values, list | tuple) or len(values) != kind.size:
        came = f"a list of {len(values)}" if isinstance(values, list | tuple) else repr(value)[:_QUOTED]
        return Unusable(f"output {output.name} must be {kind.name}, not {came}")
    if None in values:
        return Unusable(f"output {output.name} has a null in it, None or NaN: no element of {kind.name} is null")
    taken = [_single(f"{output.name}[{number}]", kind.scalar, each) for number, each in enumerate(values)]
    return next((each for each in taken if isinstance(each, Unusable)), taken)


def _single(name: str, kind: FieldType, value: Any) -> object:
    """A value that is no vector. name: of the output, or the element."""
    if not is_finite(value):
        return Unusable(f"output {name} is {value}")
    try:
        if kind is TIMESTAMP:
            return msgspec.convert(value, FITS["Int64"])
        if kind is BYTES:
            return value if isinstance(value, bytes) else b64decode(value, validate=True)
        fitting = msgspec.convert(value, FITS[kind.name])
    except (msgspec.ValidationError, binascii.Error, TypeError):
        return Unusable(f"output {name} must be {kind.name}, not {repr(value)[:_QUOTED]}")
    if kind is FLOAT32 and abs(fitting) > _LARGEST_FLOAT32:
        return Unusable(f"output {name} is {fitting}, too large for Float32")
    return fitting


_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


def _said(names: Sequence[str], values: Sequence[object]) -> Said:
    for value in values:
        if isinstance(value, Unusable):
            return value
    return dict(zip(names, values, strict=True))
