"""A reader that waits for probes: `python -m tests.benchmarks.sampler REDIS_URL NAMESPACE RATE SECONDS SKIP START_AT`.

Polls Redis for the row of every probe that is due, until it is there, and prints how long after its own event time each
was found. So it measures what a reader of the store would see, without asking the worker; what the polling itself adds
(two milliseconds, and whatever keeps this process from the processor) counts against the worker.
"""

import json
import sys
import time

import polars as pl
import redis

from stillwell.layout.entity_key import entity_keys
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.stamp import Stamp
from stillwell.layout.value import stamp_of
from stillwell.spec import KeySpec
from stillwell.types import INT64
from tests.benchmarks.load import VIEW
from tests.benchmarks.steady_producer import probe_key, probe_times
from tests.benchmarks.testbed import PROJECT

_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 15.0
_MOST_AT_A_TIME = 1_000


def sample(redis_url: str, namespace: str, rate: int, seconds: float, skip: float, start_at: float) -> None:
    """Print the latency of each probe that is due after the first `skip` seconds, in ms, and how many never came."""
    due = probe_times(rate, seconds)
    users = pl.DataFrame({"user_id": [probe_key(number) for number in range(len(due))]})
    keys = RedisKeys(PROJECT, namespace).rows(VIEW, entity_keys(users, [KeySpec(name="user_id", type=INT64)]))
    client = redis.Redis.from_url(redis_url)
    client.ping()
    found: dict[int, float] = {}
    awaited: list[int] = []
    asked = 0
    while len(found) < len(due) and time.time() < start_at + seconds + _PATIENCE_SECONDS:
        now = time.time() - start_at
        while asked < len(due) and due[asked] <= now:
            awaited.append(asked)
            asked += 1
        if awaited:
            looked_for = awaited[:_MOST_AT_A_TIME]
            values = _stored(client, [keys[number] for number in looked_for])
            at = time.time_ns() // 1_000
            for number, value in zip(looked_for, values, strict=True):
                if value is not None:
                    found[number] = (at - Stamp.unpack(stamp_of(value)).event_time) / 1e3
            awaited = [number for number in awaited if number not in found]
        time.sleep(_POLL_SECONDS)
    counted = [number for number in range(len(due)) if due[number] >= skip]
    latencies = [round(found[number], 2) for number in counted if number in found]
    print(json.dumps({"latencies_ms": latencies, "missing": len(counted) - len(latencies)}), flush=True)


def _stored(client: "redis.Redis", keys: list[bytes]) -> list[bytes | None]:
    return client.mget(keys)  # type: ignore[return-value]  # bytes, as the client decodes nothing


if __name__ == "__main__":
    sample(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:]))
