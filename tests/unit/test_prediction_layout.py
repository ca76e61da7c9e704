"""Records of predictions: read back as they were written, and merged the same in whatever order they come."""

import datetime
import functools
import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.errors import DefinitionError, FormatError
from stillwell.layout.prediction import (
    MAX_REASON_BYTES,
    Failure,
    OutputLayout,
    Outputs,
    Record,
    is_finite,
    lived_from,
    merged,
)
from stillwell.spec import OutputSpec
from stillwell.types import FIELD_TYPES, field_type

PRINT = st.binary(min_size=16, max_size=16)
NEAR = st.integers(0, 6)
U64 = st.integers(0, 2**64 - 1)


def outputs(times: st.SearchStrategy[int]) -> st.SearchStrategy[Outputs]:
    return st.builds(
        Outputs,
        read_at=times,
        fingerprint=PRINT,
        computed_at=U64,
        cost_us=st.integers(0, 2**32 - 1),
        layout=st.binary(min_size=4, max_size=4),
        body=st.binary(max_size=9),
    )


def failures(times: st.SearchStrategy[int]) -> st.SearchStrategy[Failure]:
    return st.builds(
        Failure,
        read_at=times,
        fingerprint=PRINT,
        failed_at=U64,
        retry_at=U64,
        attempts=st.integers(0, 2**16 - 1),
        reason=st.text(max_size=9),
    )


def records(times: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.builds(Record, st.none() | outputs(times), st.none() | failures(times)).map(Record.pack)


@given(st.none() | outputs(U64), st.none() | failures(U64))
def test_a_record_is_read_back_as_it_was_packed(said: Outputs | None, failed: Failure | None) -> None:
    assert Record.unpack(Record(said, failed).pack()) == Record(said, failed)


@settings(max_examples=300)
@given(st.lists(records(NEAR), min_size=1, max_size=4))
def test_records_merge_to_the_same_in_any_order_and_number(given_records: list[bytes]) -> None:
    alone = functools.reduce(merged, given_records, None)
    for order in itertools.permutations(given_records):
        assert functools.reduce(merged, [*order, *order], None) == alone
    left, right = given_records[:2], given_records[2:]
    if left and right:
        assert merged(functools.reduce(merged, left, None), functools.reduce(merged, right, None) or b"") == alone


@given(outputs(NEAR), failures(NEAR))
def test_a_failure_stands_beside_older_outputs_and_falls_before_newer_ones(said: Outputs, failed: Failure) -> None:
    both = Record.unpack(merged(Record(said, None).pack(), Record(None, failed).pack()))
    assert both.outputs == said
    assert both.failure == (failed if failed.read_at > said.read_at else None)
    assert lived_from(both.pack()) == said.read_at
    assert lived_from(Record(None, failed).pack()) == failed.read_at


def test_a_long_reason_is_cut_between_characters() -> None:
    packed = Record(None, Failure(1, b"f" * 16, 2, 3, 10**6, "€" * 500)).pack()
    failure = Record.unpack(packed).failure
    assert failure is not None
    assert set(failure.reason) == {"€"}
    assert MAX_REASON_BYTES - 3 < len(failure.reason.encode()) <= MAX_REASON_BYTES
    assert failure.attempts == 2**16 - 1


@pytest.mark.parametrize("odd", [b"", b"\1\0\0\0", b"\2\0\0\0\0", b"\1\0\0\0\7abc", b"\1\0\0\0\3abc", b"\1\0\0\0\0abc"])
def test_what_is_no_record_is_refused(odd: bytes) -> None:
    with pytest.raises(FormatError):
        Record.unpack(odd)


VALUES: Mapping[str, st.SearchStrategy[object]] = {
    "Bool": st.booleans(),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "Float32": st.floats(width=32, allow_nan=False),
    "Float64": st.floats(allow_nan=False),
    "String": st.text(max_size=9),
    "Bytes": st.binary(max_size=9),
    "Timestamp": st.integers(-(2**63), 2**63 - 1),
}
NAMES = st.sampled_from(sorted(FIELD_TYPES))
TYPES = NAMES | st.builds("Vector[{}, {}]".format, NAMES, st.integers(1, 3))


def values_of(name: str) -> st.SearchStrategy[object]:
    """Of a single value, or vectors of them."""
    kind = field_type(name)
    if kind.element is None:
        return VALUES[name]
    return st.lists(VALUES[kind.element.name], min_size=kind.size or 0, max_size=kind.size)


SAID = st.lists(TYPES, min_size=1, max_size=18).flatmap(
    lambda types: st.tuples(st.just(types), st.tuples(*(st.none() | values_of(name) for name in types)))
)


def layout_of(kinds: list[str]) -> OutputLayout:
    return OutputLayout(
        "M", [OutputSpec(name=f"o{at}", type=field_type(kind), nullable=True) for at, kind in enumerate(kinds)]
    )


@given(SAID)
def test_outputs_of_every_type_and_nulls_are_read_back(said: tuple[list[str], tuple[object, ...]]) -> None:
    kinds, values = said
    layout = layout_of(kinds)
    body = layout.encode({f"o{at}": value for at, value in enumerate(values)})
    assert layout.decode(Outputs(0, b"f" * 16, 0, 0, layout.id, body)) == values


@given(SAID, st.binary(min_size=16, max_size=16), failures(NEAR))
def test_the_quick_look_finds_what_the_closer_one_does_or_nothing(
    said: tuple[list[str], tuple[object, ...]], of: bytes, failed: Failure
) -> None:
    kinds, values = said
    layout = layout_of(kinds)
    outputs = Outputs(5, of, 7, 9, layout.id, layout.encode({f"o{at}": value for at, value in enumerate(values)}))
    quick = all(field_type(kind).width for kind in kinds) and None not in values
    for failure in (None, failed):
        record = Record(outputs, failure).pack()
        assert layout.of_inputs(record, of) == ((5, 7, 9, values) if quick else None)
        assert layout.of_inputs(record, bytes(15) + b"x") is None or of == bytes(15) + b"x"
        assert layout.of_inputs(record[:45], of) is None
        assert layout.of_inputs(b"\2" + record[1:], of) is None
    assert layout.of_inputs(Record(None, failed).pack(), of) is None


def test_outputs_of_another_layout_or_length_are_refused() -> None:
    layout = layout_of(["Float32", "String"])
    body = layout.encode({"o0": 1.5, "o1": "late"})
    for id, wrong in ((layout_of(["Float64", "String"]).id, body), (layout.id, body + b"x"), (layout.id, body[:4])):
        with pytest.raises(FormatError, match="model M"):
            layout.decode(Outputs(0, b"f" * 16, 0, 0, id, wrong))


def test_vectors_that_no_record_can_hold_are_refused_when_they_are_defined() -> None:
    layout_of(["Vector[Float64, 65536]"])
    with pytest.raises(
        DefinitionError, match="its outputs would take more than 1047576 bytes, most of them its vectors"
    ):
        layout_of(["Vector[Float64, 65536]", "Vector[Float64, 65536]"])


def test_damaged_vectors_are_refused() -> None:
    layout = layout_of(["Vector[String, 2]"])
    body = layout.encode({"o0": ["a", "b"]})
    wrong = body[:5] + b"\1" + body[6:]  # says that it has one element
    with pytest.raises(FormatError, match="model M"):
        layout.decode(Outputs(0, b"f" * 16, 0, 0, layout.id, wrong))


def test_what_no_output_may_be() -> None:
    assert [is_finite(each) for each in (1.0, None, 3, "NaN", datetime.datetime.max)] == [True] * 5
    assert [is_finite(each) for each in (float("nan"), float("inf"), -float("inf"))] == [False] * 3
