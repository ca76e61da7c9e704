"""How numbers of things and lengths of time are told."""

import datetime
import re
from pathlib import Path

import pytest

from stillwell.counting import counted, lasting

ROOT = Path(__file__).parent.parent.parent


def test_one_thing_is_not_several() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 12_000)] == ["0 rows", "1 row", "2 rows", "12,000 rows"]
    assert [counted(number, "entity", "entities") for number in (1, 2)] == ["1 entity", "2 entities"]


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ({"days": 90}, "90 days"),
        ({"days": 1, "hours": 2, "minutes": 1, "seconds": 1}, "1 day 2 hours 1 minute 1 second"),
        ({"seconds": 41.25}, "41.25 seconds"),
        ({"hours": 24}, "1 day"),
        ({"microseconds": 1}, "0.000001 seconds"),
        ({}, "0 seconds"),
        ({"seconds": -90}, "-1 minute 30 seconds"),
    ],
)
def test_a_length_of_time_is_told_exactly_in_words(span: dict[str, float], said: str) -> None:
    assert lasting(datetime.timedelta(**span)) == said


def test_what_commands_print_counts_by_the_one_way() -> None:
    """A number before a plural that is written out would say `1 rows`."""
    plain = re.compile(
        r"\{[^{}]*\} (partitions|rows|records|links|gaps|files|chains|views|topics|dead letters|entities)\b"
    )
    found = [
        f"{path.name}: {match[0]}"
        for path in (ROOT / "stillwell" / "cli").glob("*.py")
        for match in plain.finditer(path.read_text())
    ]
    assert found == []
