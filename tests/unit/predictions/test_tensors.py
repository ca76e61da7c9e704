"""Batches as named tensors and back: what is sent, and what of an answer is taken, refused or left without a value."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stillwell.errors import ModelError
from stillwell.predictions.tensors import Said, Unusable, answers, left_out, metadata_of, mismatches, request, spoken
from stillwell.spec import ModelSpec, OutputSpec
from stillwell.types import FIELD_TYPES, FLOAT32, FLOAT64, STRING, vector_of
from tests.predicted import MINUTES, model


def tensor(name: str = "minutes", datatype: str = "FP32", data: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    data = [1.5, 2.5] if data is None else data
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def said(*tensors: object, of: ModelSpec | None = None, count: int = 2, **more: object) -> list[Said]:
    return answers(of or model(), json.dumps({"model_name": "delay", "outputs": tensors, **more}).encode(), count)


def test_every_type_has_its_tensor() -> None:
    columns: dict[str, list[Any]] = {
        "Bool": [True, False],
        "Int32": [1, -1],
        "Int64": [2**62, 0],
        "Float32": [1.5, None],
        "Float64": [math.nan, math.inf],
        "String": ["a", "é"],
        "Bytes": [b"\xff", b""],
        "Timestamp": [1_700_000_000_000_000, 0],
    }
    sent = json.loads(request(model({name: FIELD_TYPES[name] for name in columns}), columns))["inputs"]
    assert [(each["name"], each["datatype"], each["data"]) for each in sent] == [
        ("Bool", "BOOL", [True, False]),
        ("Int32", "INT32", [1, -1]),
        ("Int64", "INT64", [2**62, 0]),
        ("Float32", "FP32", [1.5, None]),
        ("Float64", "FP64", [None, None]),
        ("String", "BYTES", ["a", "é"]),
        ("Bytes", "BYTES", ["/w==", ""]),
        ("Timestamp", "INT64", [1_700_000_000_000_000, 0]),
    ]
    assert all(each["shape"] == [2, 1] for each in sent)


def test_an_entity_whose_null_no_tensor_can_hold_is_left_out() -> None:
    of = model({"delay": FLOAT32, "carrier": STRING})
    left = left_out(of, {"delay": [None, 1.0, 2.0], "carrier": ["UA", None, "AA"]}, 3)
    assert list(left) == [1]
    assert "input carrier (V:carrier) is null or missing" in left[1].reason


EMBEDDING = OutputSpec(name="embedding", type=vector_of(FLOAT32, 3))


def test_vectors_are_sent_flat_with_their_size_in_the_shape() -> None:
    columns: dict[str, list[Any]] = {
        "a": [[1.0, math.nan, 2.0], [3.0, 4.0, 5.0]],
        "b": [["x", "y"], ["é", ""]],
        "c": [[b"\xff"], [b""]],
    }
    kinds = {"a": vector_of(FLOAT32, 3), "b": vector_of(STRING, 2), "c": vector_of(FIELD_TYPES["Bytes"], 1)}
    sent = json.loads(request(model(kinds), columns))["inputs"]
    assert [(each["name"], each["datatype"], each["shape"], each["data"]) for each in sent] == [
        ("a", "FP32", [2, 3], [1.0, None, 2.0, 3.0, 4.0, 5.0]),
        ("b", "BYTES", [2, 2], ["x", "y", "é", ""]),
        ("c", "BYTES", [2, 1], ["/w==", ""]),
    ]
    assert [each.get("parameters") for each in sent] == [None, {"content_type": "str"}, {"content_type": "base64"}]


def test_a_null_vector_keeps_its_entity_from_being_asked_about() -> None:
    left = left_out(model({"a": vector_of(FLOAT32, 2)}), {"a": [[1.0, 2.0], None]}, 2)
    assert list(left) == [1]
    assert "input a (V:a) is null or missing, and a tensor of Vector[Float32, 2] has no nulls" in left[1].reason


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_a_vector_is_taken_flat_or_nested(data: list[Any]) -> None:
    found = said(tensor("embedding", data=data) | {"shape": [2, 3]}, of=model(outputs=(EMBEDDING,)))
    assert found == [{"embedding": [1.0, 2.0, 3.0]}, {"embedding": [4.0, 5.0, 6.0]}]
    flat = said(tensor("e", data=[7, 8]), of=model(outputs=(OutputSpec(name="e", type=vector_of(FLOAT32, 1)),)))
    assert flat == [{"e": [7.0]}, {"e": [8.0]}]


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2, 2], [1, 2, 3, 4]), ([2, 3], [1, 2, 3]), ([2, 3], [[1, 2, 3]]), ([2, 3], [[1, 2], [3, 4]]), ([6], [1] * 6)],
)
def test_vectors_of_another_size_are_refused_whole(shape: list[int], data: list[Any]) -> None:
    with pytest.raises(ModelError, match=r"output embedding has the shape .* for 2 entities with 3 each"):
        said(tensor("embedding", data=data) | {"shape": shape}, of=model(outputs=(EMBEDDING,)))


@pytest.mark.parametrize(
    ("odd", "telling"),
    [
        ([1, None, 3], "output embedding has a null in it"),
        ([1, math.inf, 3], "output embedding[1] is inf"),
        ([1, "x", 3], "output embedding[1] must be Float32, not 'x'"),
        ([1, 1e39, 3], "output embedding[1] is 1e+39, too large for Float32"),
    ],
)
def test_an_element_of_no_use_costs_its_entity_and_no_other(odd: list[Any], telling: str) -> None:
    of = model(outputs=(EMBEDDING,))
    for found in (
        said(tensor("embedding", data=[*odd, 4, 5, 6]) | {"shape": [2, 3]}, of=of),
        spoken(of, {"embedding": [odd, np.array([4, 5, 6], np.float32)]}, 2),
    ):
        first, second = found
        assert isinstance(first, Unusable)
        assert telling in first.reason
        assert second == {"embedding": [4.0, 5.0, 6.0]}


def test_a_functions_vectors_are_lists_or_rows_of_an_array() -> None:
    of = model(outputs=(EMBEDDING,))
    expected = [{"embedding": [1.0, 2.0, 3.0]}, {"embedding": [4.0, 5.0, 6.0]}]
    assert spoken(of, {"embedding": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, 2) == expected
    first, _ = spoken(of, {"embedding": [[1.0], [1.0, 2.0, 3.0]]}, 2)
    assert first == Unusable("output embedding must be Vector[Float32, 3], not a list of 1")


@pytest.mark.parametrize(("shape", "right"), [([-1, 3], True), ([-1, -1], True), ([-1], False), ([-1, 2], False)])
def test_a_servers_shape_of_a_vector_is_compared(shape: list[int], right: bool) -> None:
    said_by_server = {**METADATA, "outputs": [{"name": "embedding", "datatype": "FP32", "shape": shape}]}
    found = mismatches(model(outputs=(EMBEDDING,)), metadata_of(json.dumps(said_by_server).encode()))
    told = f"output 'embedding' has the shape {shape} at the server: 3 values for each entity, [-1, 3]"
    assert found == ([] if right else [told])


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_answers_are_taken_flat_or_nested(shape: list[int]) -> None:
    nested = [[1.5], [2.5]] if len(shape) == 2 else [1.5, 2.5]
    assert said(tensor(shape=shape)) == said(tensor(shape=shape, data=nested)) == [{"minutes": 1.5}, {"minutes": 2.5}]


def test_outputs_are_taken_by_name_in_whatever_order_they_come() -> None:
    of = model(outputs=(MINUTES, OutputSpec(name="word", type=STRING)))
    word = tensor("word", "BYTES", ["late", "early"])
    expected = [{"minutes": 1.5, "word": "late"}, {"minutes": 2.5, "word": "early"}]
    assert said(tensor(), word, of=of) == said(word, tensor(), tensor("other"), of=of) == expected


def test_a_single_output_may_have_another_name() -> None:
    assert said(tensor("predict")) == [{"minutes": 1.5}, {"minutes": 2.5}]
    with pytest.raises(ModelError, match="no output 'minutes', only a, b"):
        said(tensor("a"), tensor("b"))


def test_every_type_of_output_is_read() -> None:
    outputs: dict[str, tuple[str, list[Any], object]] = {
        "Bool": ("BOOL", [True], True),
        "Int32": ("INT32", [7], 7),
        "Int64": ("INT64", [-(2**63)], -(2**63)),
        "Float32": ("FP64", [1.5], 1.5),
        "Float64": ("FP32", [2], 2.0),
        "String": ("BYTES", ["é"], "é"),
        "Bytes": ("BYTES", ["/w=="], b"\xff"),
        "Timestamp": ("INT64", [5], 5),
    }
    of = model(outputs=tuple(OutputSpec(name=name, type=FIELD_TYPES[name]) for name in outputs))
    (found,) = said(*(tensor(name, kind, data) for name, (kind, data, _) in outputs.items()), of=of, count=1)
    assert found == {name: value for name, (_, _, value) in outputs.items()}


@pytest.mark.parametrize(
    ("body", "telling"),
    [
        (b"Internal Server Error", "not that of the Open Inference Protocol"),
        (b"\xff", "not that of the Open Inference Protocol"),
        (b"[" * 100_000, "not that of the Open Inference Protocol"),
        (b'{"outputs": 7}', "not that of the Open Inference Protocol"),
        (b'{"outputs": []}', "no output 'minutes', only none"),
        (tensor(data=[1.5]), "shape [1] and 1 value, for 2 entities"),
        (tensor(shape=[1, 2]), "shape [1, 2] and 2 values, for 2 entities"),
        (tensor(shape=[3]), "shape [3] and 2 values, for 2 entities"),
        (tensor(data=[[1.0, 2.0], [1.0, 2.0]], shape=[2, 2]), "shape [2, 2]"),
        (tensor(datatype="INT64", data=[1, 2]), "must be Float32, not a tensor of INT64"),
        ({**tensor(), "data": None}, "0 values"),
    ],
)
def test_an_answer_of_another_shape_or_kind_is_refused_whole(body: Any, telling: str) -> None:
    if isinstance(body, dict):
        body = json.dumps({"outputs": [body]}).encode()
    with pytest.raises(ModelError) as error:
        answers(model(), body, 2)
    assert telling in str(error.value)


def test_an_answer_of_another_version_is_refused() -> None:
    assert said(tensor(), model_version="3") == said(tensor(), model_version="") == said(tensor(), model_version=None)
    with pytest.raises(ModelError, match="answered by version '2', not '3'"):
        said(tensor(), model_version="2")


@pytest.mark.parametrize(
    ("data", "telling"),
    [
        ([math.nan, 2.5], "output minutes is nan"),
        ([-math.inf, 2.5], "output minutes is -inf"),
        ([None, 2.5], "output minutes is null, None or NaN, and must be Float32: have the model give a value"),
        (["late", 2.5], "output minutes must be Float32, not 'late'"),
        ([True, 2.5], "output minutes must be Float32, not True"),
        ([1e39, 2.5], "too large for Float32"),
    ],
)
def test_a_value_of_no_use_costs_its_entity_and_no_other(data: list[Any], telling: str) -> None:
    first, second = said(tensor(data=data))
    assert isinstance(first, Unusable)
    assert telling in first.reason
    assert second == {"minutes": 2.5}


def test_a_null_is_a_value_where_the_output_may_be_null() -> None:
    of = model(outputs=(OutputSpec(name="minutes", type=FLOAT64, nullable=True),))
    first, second = said(tensor(data=[None, math.nan]), of=of)
    assert first == {"minutes": None}
    assert isinstance(second, Unusable)


METADATA: dict[str, Any] = {
    "name": "delay",
    "versions": [],
    "platform": "",
    "inputs": [{"name": "delay", "datatype": "FP32", "shape": [-1, 1]}],
    "outputs": [{"name": "minutes", "datatype": "FP64", "shape": [-1]}],
}


def changed(**changes: object) -> list[str]:
    return mismatches(model(), metadata_of(json.dumps({**METADATA, **changes}).encode()))


def test_metadata_that_agrees_or_says_nothing_is_right() -> None:
    assert changed() == changed(inputs=None, outputs=None, versions=None) == changed(versions=["2", "3"]) == []


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        ({"versions": ["1", "2"]}, "version '3' is not there, only 1, 2"),
        ({"inputs": [{"name": "late", "datatype": "FP32", "shape": [-1]}]}, "input 'delay' is not among the server's"),
        ({"inputs": [{"name": "late", "datatype": "FP32", "shape": [-1]}]}, "the server wants an input 'late'"),
        ({"inputs": [{"name": "delay", "datatype": "FP64", "shape": [-1]}]}, "wants FP32, and FP64 at the server"),
        ({"inputs": [{"name": "delay", "datatype": "FP32", "shape": [-1, 5]}]}, "has the shape [-1, 5] at the server"),
        ({"outputs": [{"name": "p", "datatype": "BYTES", "shape": [-1]}]}, "and BYTES at the server"),
        (
            {"outputs": [{"name": each, "datatype": "FP32", "shape": [-1]} for each in ("a", "b")]},
            "output 'minutes' is not among the server's: a, b",
        ),
    ],
)
def test_metadata_that_differs_is_told_by_name(change: dict[str, Any], telling: str) -> None:
    assert any(telling in each for each in changed(**change))


def test_what_is_no_metadata_is_refused() -> None:
    with pytest.raises(ModelError, match="not that of the Open Inference Protocol"):
        metadata_of(b"<html>")


def test_a_functions_columns_are_taken_as_a_servers_are() -> None:
    assert spoken(model(), {"minutes": (1, 2.5)}, 2) == [{"minutes": 1.0}, {"minutes": 2.5}]
    first, _ = spoken(model(), {"minutes": [math.nan, 2.5]}, 2)
    assert isinstance(first, Unusable)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: [1.0, 2.0], "must return a mapping"),
        (lambda: None, r'as {"minutes": \[...\]}, not nothing \(is a return missing\?\)'),
        (lambda: {"minutes": None}, "returned None for minutes: give a sequence"),
        (lambda: {"minutes": 2.5}, "returned 2.5 for minutes: give a sequence"),
        (lambda: {"other": [1.0, 2.0]}, "returned no 'minutes', only other"),
        (lambda: {"minutes": [1.0]}, "returned 1 value of minutes, for 2 entities"),
    ]
    for function, telling in wrong:
        with pytest.raises(ModelError, match=telling):
            spoken(model(), function(), 2)
