"""Logging: one format for our lines and the libraries', and no secret in any."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from stillwell import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_ours_and_a_library_s_have_one_shape() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    structlog.get_logger("stillwell.sinks").info("link created", topic="departures", end=7)
    logging.getLogger("redis").warning("lost %s", "a connection")
    ours, library = lines(stream)
    assert {**ours, "timestamp": None} == {
        "event": "link created",
        "topic": "departures",
        "end": 7,
        "level": "info",
        "logger": "stillwell.sinks",
        "timestamp": None,
    }
    assert {**library, "timestamp": None} == {
        "event": "lost a connection",
        "level": "warning",
        "logger": "redis",
        "timestamp": None,
    }
    assert str(ours["timestamp"]).endswith("Z")


def test_what_is_below_the_level_is_not_written_nor_the_chatter_of_libraries() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    structlog.get_logger("stillwell").debug("batch")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert lines(stream) == []
    logs.configure("json", "debug", stream=stream)
    structlog.get_logger("stillwell").debug("batch")
    logging.getLogger("aiokafka.consumer").info("joined")
    assert [line["event"] for line in lines(stream)] == ["batch", "joined"]


def test_a_library_that_repeats_itself_is_written_every_ten_seconds_with_how_often_it_did() -> None:
    """Whatever it fills in; others, and other things that it says, are written meanwhile. At debug level all is."""
    stream, now = io.StringIO(), [0.0]
    logs.configure("json", "info", stream=stream, clock=lambda: now[0])
    fetcher, ours = logging.getLogger("aiokafka.consumer.fetcher"), structlog.get_logger("streams")
    for tenth in range(101):
        now[0] = tenth / 10
        fetcher.error("Failed fetch messages from %s: %s", tenth, "closed")
        if tenth < 2:
            ours.warning("a sink does not answer")
            fetcher.error("something else %d", tenth)
    assert [line["event"] for line in lines(stream)] == [
        "Failed fetch messages from 0: closed",
        "a sink does not answer",
        "something else 0",
        "a sink does not answer",
        "Failed fetch messages from 100: closed (and 99 times more in 10 s)",
    ]
    stream.truncate(0)
    stream.seek(0)
    logs.configure("json", "debug", stream=stream, clock=lambda: now[0])
    fetcher.error("once")
    fetcher.error("once")
    assert len(lines(stream)) == 2


def test_a_library_that_never_says_the_same_is_remembered_in_bounded_memory() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream, clock=lambda: 0.0)
    (written,) = (filter for handler in logging.getLogger().handlers for filter in handler.filters)
    for number in range(2_000):
        logging.getLogger("gcsfs").warning(f"object {number}")
    assert len(lines(stream)) == 2_000
    assert isinstance(written, logs._Seldom)
    assert len(written._said) <= 500


def test_configuring_again_does_not_write_lines_twice() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    logs.configure("json", "info", stream=stream)
    structlog.get_logger("stillwell").info("once")
    assert len(lines(stream)) == 1


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_is_written(format: logs.Format) -> None:
    stream = io.StringIO()
    logs.configure(format, "info", stream=stream)
    log = structlog.get_logger("stillwell")
    url = "redis://worker:hunter2@store:6379/0"
    log.info(f"connecting to {url}", url=url, kafka_sasl_password="hunter2", access_token="hunter2")
    logging.getLogger("redis").warning("cannot reach %s", url)
    try:
        password = "hunter2"
        raise ConnectionError(f"{url} refused {len(password)} letters")
    except ConnectionError:
        log.exception("failed")
    written = stream.getvalue()
    assert "hunter2" not in written
    assert "redis://worker:***@store:6379/0 refused 7 letters" in written


def test_what_is_bound_to_the_context_is_on_every_line() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream=stream)
    with structlog.contextvars.bound_contextvars(worker="w1"):
        structlog.get_logger("stillwell").info("inside")
    assert lines(stream)[0]["worker"] == "w1"


def test_a_thing_is_said_once_in_a_while_and_then_how_often_it_was_not() -> None:
    now = 100.0
    limit = logs.LogLimit(5.0, lambda: now)
    assert [limit.times("one"), limit.times("one"), limit.times("other"), limit.times("one")] == [0, None, 0, None]
    now += 5.0
    assert [limit.times("one"), limit.times("one")] == [2, None]
    for number in range(10_000):
        limit.times(number)
    assert len(limit._kinds) <= 500
