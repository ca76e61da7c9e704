"""A dead letter gives its record back to the byte, and says what was wrong with it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.layout.dead_letter import PREFIX, DeadLetter, dead_letters, headers_of, read_dead_letter
from stillwell.records import Headers, Outcome, Records, Reject

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
headers = st.lists(st.tuples(words, st.none() | st.binary(max_size=20)), max_size=4).map(tuple)
letters = st.builds(
    DeadLetter,
    topic=words,
    incarnation=st.integers(1, 2**16 - 1),
    partition=st.integers(0, 2**31),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**50),
    view=st.none() | words,
    reason=words,
    error=words,
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=headers,
    by_reference=st.booleans(),
)


def read(letter: DeadLetter) -> DeadLetter | None:
    """What a reader of the topic gets."""
    return read_dead_letter(letter.key, letter.value, tuple(headers_of(letter)))


@settings(deadline=None)
@given(letter=letters)
def test_what_was_produced_is_read_back(letter: DeadLetter) -> None:
    assert read(letter) == letter


@settings(deadline=None)
@given(old=letters, new=letters)
def test_a_dead_letter_that_is_refused_again_keeps_what_it_said_before(old: DeadLetter, new: DeadLetter) -> None:
    """Somebody copies the dead-letter topic back into the topic: the record's own headers are the old letter's."""
    again = dataclasses.replace(new, headers=tuple(headers_of(old)))
    assert read(again) == again


@settings(deadline=None)
@given(letter=letters, behind=headers.filter(lambda own: all(name != f"{PREFIX}format" for name, _ in own)))
def test_headers_that_others_put_behind_ours_do_not_hide_it(letter: DeadLetter, behind: Headers) -> None:
    """As a mirror of the topic does, or a tracer."""
    found = read_dead_letter(letter.key, letter.value, (*headers_of(letter), *behind))
    assert found == dataclasses.replace(letter, headers=(*letter.headers, *behind))


@settings(deadline=None)
@given(own=headers)
def test_a_record_without_our_headers_is_not_ours(own: Headers) -> None:
    assert read_dead_letter(b"key", b"value", own) is None


LETTER = DeadLetter("t", 1, 0, 42, 0, None, "decode", "no JSON", b"key", b"value", (("trace", b"1"),))


@pytest.mark.parametrize("missing", range(10))
def test_a_record_that_has_lost_one_of_our_headers_is_not_ours(missing: int) -> None:
    kept = headers_of(LETTER)
    del kept[1 + missing]
    assert read_dead_letter(b"key", b"value", tuple(kept)) is None


@pytest.mark.parametrize("number", ["incarnation", "partition", "offset", "timestamp"])
@pytest.mark.parametrize("content", [None, b"", b"x", b"1.0"])
def test_a_record_whose_coordinates_are_no_numbers_is_not_ours(number: str, content: bytes | None) -> None:
    forged = [(name, content if name == f"{PREFIX}{number}" else own) for name, own in headers_of(LETTER)]
    assert read_dead_letter(b"key", b"value", tuple(forged)) is None


@pytest.mark.parametrize("content", [None, b"2", b"01"])
def test_a_letter_of_another_format_is_not_read(content: bytes | None) -> None:
    """Whatever its other headers mean, it may be something else."""
    forged = [(name, content if name == f"{PREFIX}format" else own) for name, own in headers_of(LETTER)]
    assert read_dead_letter(b"key", b"value", tuple(forged)) is None


def test_the_headers_are_as_documented() -> None:
    assert headers_of(dataclasses.replace(LETTER, view="Late", by_reference=True)) == [
        ("trace", b"1"),
        ("stillwell.format", b"1"),
        ("stillwell.topic", b"t"),
        ("stillwell.incarnation", b"1"),
        ("stillwell.partition", b"0"),
        ("stillwell.offset", b"42"),
        ("stillwell.timestamp", b"0"),
        ("stillwell.view", b"Late"),
        ("stillwell.reason", b"decode"),
        ("stillwell.error", b"no JSON"),
        ("stillwell.by-reference", b"1"),
    ]


def test_an_error_that_quotes_half_a_character_gets_through() -> None:
    """Half of a surrogate pair is no text in UTF-8; JSON may spell one all the same."""
    found = read(dataclasses.replace(LETTER, error="what came is '\ud800'"))
    assert found is not None
    assert found.error == "what came is '\\ud800'"


RECORDS = Records(
    topic="t",
    partition=3,
    start=10,
    end=20,
    offsets=np.array([11, 12, 15]),
    timestamps=np.array([1_000, 2_000, 3_000]),
    keys=[b"a", None, b"c"],
    values=[b"x" * 5, None, b"x" * 6],
    headers=[(), (("trace", b"1"),), (("trace", None),)],
)


def test_each_reject_is_a_letter_with_its_own_record() -> None:
    """Offsets have gaps, two views may refuse the same record, and one may refuse what others take."""
    refused = (
        Reject(11, None, "decode", "no JSON"),
        Reject(15, "Late", "null_key", "airport is null"),
        Reject(15, "Later", "null_key", "route is null"),
        Reject(12, "Late", "null_value", "no value"),
    )
    found = list(dead_letters(Outcome(RECORDS, (), refused), incarnation=2, largest_value=100))
    assert [(letter.offset, letter.view, letter.reason, letter.error) for letter in found] == [
        (reject.offset, reject.view, reject.reason, reject.error) for reject in refused
    ]
    assert [(letter.key, letter.value, letter.headers, letter.timestamp) for letter in found] == [
        (b"a", b"x" * 5, (), 1_000),
        (b"c", b"x" * 6, (("trace", None),), 3_000),
        (b"c", b"x" * 6, (("trace", None),), 3_000),
        (None, None, (("trace", b"1"),), 2_000),
    ]
    assert {(letter.topic, letter.incarnation, letter.partition) for letter in found} == {("t", 2, 3)}
    assert [read(letter) for letter in found] == found


def test_a_value_past_the_limit_goes_by_reference() -> None:
    """The raw archive has it; the dead-letter topic could not take it."""
    refused = tuple(Reject(offset, None, "decode", "") for offset in (11, 12, 15))
    found = list(dead_letters(Outcome(RECORDS, (), refused), incarnation=1, largest_value=5))
    assert [(letter.value, letter.by_reference) for letter in found] == [(b"x" * 5, False), (None, False), (None, True)]


def test_a_batch_without_rejects_has_no_letters() -> None:
    assert list(dead_letters(Outcome(RECORDS, (), ()), incarnation=1, largest_value=5)) == []
