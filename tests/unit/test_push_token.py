"""A push's token: the same text for the same rows, and nothing else is taken for one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwell.errors import RequestError
from stillwell.pushing.token import MOST_CHARACTERS, MOST_PARTITIONS, Token

TOKENS = st.builds(
    Token,
    view=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True),
    incarnation=st.integers(1, 2**16 - 1),
    offsets=st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), min_size=1, max_size=20),
    epoch=st.none() | st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True),
)


@given(TOKENS)
def test_a_token_reads_back_as_it_was_written(token: Token) -> None:
    assert Token.parse(str(token)) == token


@given(TOKENS)
def test_the_order_in_which_partitions_were_written_does_not_show(token: Token) -> None:
    backwards = Token(token.view, token.incarnation, dict(reversed(list(token.offsets.items()))), token.epoch)
    assert str(backwards) == str(token)


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_refused_with_the_field(text: str) -> None:
    refused: list[RequestError] = []
    token = None
    try:
        token = Token.parse(text, "Stillwell-After")
    except RequestError as error:
        refused.append(error)
    assert [error.field for error in refused] == ([] if token else ["Stillwell-After"])


@given(TOKENS, st.integers(0, 200), st.characters())
def test_a_damaged_token_never_ends_in_anything_but_a_request_error(token: Token, at: int, letter: str) -> None:
    text = str(token)
    at %= len(text)
    for damaged in (text[:at] + text[at + 1 :], text[:at] + letter + text[at:]):
        with contextlib.suppress(RequestError):
            Token.parse(damaged)


def test_the_last_record_of_each_partition_counts() -> None:
    token = Token.of_places("Users", 2, [(3, 10), (0, 7), (3, 12), (3, 11)])
    assert str(token) == "Users@2:0-7,3-12"
    assert str(token.applied("5f")) == "Users@2:0-7,3-12;5f"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a token"),
        ("Users", "must be a token"),
        ("Users@1:", "must be a token"),
        ("Users@1:0-5;", "must be a token"),
        ("Users@1:0-5\n", "must be a token"),
        ("Users@1:-1-5", "must be a token"),
        ("Users@1:٣-5", "must be a token"),
        ("Users@0:0-5", "incarnation 0"),
        ("Users@65536:0-5", "from 1 to 65535"),
        ("Users@1:0-5,0-6", "partition 0 twice"),
        ("Users@1:4294967296-5", "no topic of Kafka's"),
        ("Users@1:0-9223372036854775808", "no topic of Kafka's"),
        ("U@1:" + ",".join(f"{number}-1" for number in range(MOST_PARTITIONS + 1)), "at most 1024"),
        ("U@1:" + "0" * MOST_CHARACTERS, "characters"),
    ],
)
def test_what_is_no_token_is_told(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        Token.parse(text)
    assert caught.value.field == "after"


def test_what_is_quoted_of_a_wrong_token_is_short() -> None:
    with pytest.raises(RequestError) as caught:
        Token.parse("x" * 10_000)
    assert len(str(caught.value)) < 250
