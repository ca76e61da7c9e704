"""How the worker's parts are put together: what no other test would miss."""

from typing import Any

import pytest

from stillwell.settings import Settings
from streams import app


@pytest.mark.parametrize(
    ("partition_fetch_bytes", "least"), [("4MiB", 1 << 20), ("256KiB", 256 << 10)], ids=["much", "less than a megabyte"]
)
def test_kafka_waits_for_more_as_long_as_it_is_told_and_never_for_what_cannot_come(
    partition_fetch_bytes: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that may bring less than a megabyte would be waited for at each of its fetches, backlog or not."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(app, "AIOKafkaConsumer", lambda **options: made.update(options))
    monkeypatch.setenv("STILLWELL_FETCH_WAIT", "70ms")
    monkeypatch.setenv("STILLWELL_PARTITION_FETCH_BYTES", partition_fetch_bytes)
    monkeypatch.setenv("STILLWELL_PROJECT", "test")
    monkeypatch.setenv("STILLWELL_DEFINITIONS", "schemas")
    monkeypatch.setenv("STILLWELL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_OFFLINE_URL", "/nowhere")
    app._consumer(Settings(), {})  # type: ignore[call-arg]  # all of it is in the environment
    assert made["fetch_max_wait_ms"] == 70
    assert made["fetch_min_bytes"] == least
    assert made["max_partition_fetch_bytes"] >= least
