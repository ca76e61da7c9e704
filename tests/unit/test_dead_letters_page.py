"""The page on dead letters is true, and enough: its own reader reads what Stillwell writes."""

import pathlib
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings

from stillwell.layout.dead_letter import DeadLetter, headers_of
from stillwell.layout.entity_key import MAX_KEY_BYTES
from stillwell.layout.value import MAX_VALUE_BYTES
from stillwell.records import TopicReason, ViewReason
from streams.dead_letters import LARGEST_VALUE
from streams.topics import DEAD_LETTER_RETENTION
from tests.unit.test_dead_letter import LETTER, letters
from tests.unit.test_format_pages import blocks, first_column, table

PAGE = (pathlib.Path(__file__).parent.parent.parent / "docs" / "reference" / "dead-letters.md").read_text()

Reader = Callable[[list[tuple[str, bytes | None]]], tuple[dict[str, Any], list[tuple[str, bytes | None]]] | None]


@pytest.fixture(scope="module")
def reader() -> Reader:
    """The page's own."""
    (code,) = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(compile(code, "dead-letters.md", "exec"), names)
    read: Reader = names["read_letter"]
    return read


def test_the_page_names_every_header_in_order() -> None:
    shown = [name for name in first_column(PAGE, "One letter is one **reject**") if name.startswith("stillwell.")]
    assert shown == [name for name, _ in headers_of(LETTER)[len(LETTER.headers) :]]


def test_the_how_to_says_of_every_reason_what_to_do() -> None:
    how_to = (pathlib.Path(__file__).parent.parent.parent / "docs/howto/read-dead-letters.md").read_text()
    named = [row[0].strip("`") for row in table(how_to, "## What each reason means")]
    assert named == [*get_args(TopicReason), *get_args(ViewReason)]


def test_the_page_names_every_reason_and_whom_it_counts_for() -> None:
    shown = {row[0].strip("`"): row[1] for row in table(PAGE, "The letter's own timestamp")}
    assert shown == dict.fromkeys(get_args(TopicReason), "all views") | dict.fromkeys(get_args(ViewReason), "one view")


def test_the_pages_numbers_are_right() -> None:
    assert DEAD_LETTER_RETENTION.days == 30
    assert (MAX_KEY_BYTES, MAX_VALUE_BYTES, LARGEST_VALUE) == (512, 1 << 20, 512 << 10)


@settings(deadline=None)
@given(letter=letters)
def test_the_pages_reader_reads_what_we_write(reader: Reader, letter: DeadLetter) -> None:
    found = reader(headers_of(letter))
    assert found is not None
    said, own = found
    assert tuple(own) == letter.headers
    assert said.pop("by-reference") is letter.by_reference
    assert said == {name: getattr(letter, name) for name in said}
    assert len(said) == 8


@settings(deadline=None)
@given(old=letters, new=letters)
def test_the_pages_reader_takes_the_last_letter_of_several(reader: Reader, old: DeadLetter, new: DeadLetter) -> None:
    found = reader([*headers_of(old), *headers_of(new)[len(new.headers) :], ("mirror", b"1")])
    assert found is not None
    assert found[0]["offset"] == new.offset
    assert found[1] == [*headers_of(old), ("mirror", b"1")]


def test_the_pages_reader_leaves_other_records_and_formats(reader: Reader) -> None:
    assert reader([("trace", b"1")]) is None
    assert reader(headers_of(LETTER)[:-1]) is None
    changed = [(name, b"2" if name == "stillwell.format" else value) for name, value in headers_of(LETTER)]
    with pytest.raises(ValueError, match="format"):
        reader(changed)
