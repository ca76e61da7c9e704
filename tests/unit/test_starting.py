"""A start that takes long says what it waits for, and no other one says anything."""

import threading

import structlog

from stillwell.starting import Starting
from tests.waiting import eventually


def test_what_takes_long_is_told_again_and_again_and_by_what_it_waits_for_then() -> None:
    with structlog.testing.capture_logs() as lines, Starting(first=0.001, then=0.001) as starting:
        starting.at("the definitions")
        eventually(lambda: len(lines) >= 2, what="it is told twice")
        starting.at("Kafka")
        eventually(lambda: lines[-1]["waits_for"] == "Kafka", what="it is told what is waited for by then")
        assert lines[0] == {
            "event": "still starting",
            "waits_for": "the definitions",
            "seconds": 0,
            "log_level": "info",
        }


def test_nothing_is_told_once_nothing_is_waited_for() -> None:
    with structlog.testing.capture_logs() as lines, Starting(first=0.001, then=0.001):
        eventually(lambda: "starting" not in {each.name for each in threading.enumerate()}, what="nobody tells")
    assert lines == []


def test_who_starts_in_time_says_nothing() -> None:
    with structlog.testing.capture_logs() as lines, Starting() as starting:
        starting.at("the definitions")
        starting.end()
    assert lines == []
