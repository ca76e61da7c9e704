"""Bare redis-py that reads rows by MGET and does nothing else with them: the floor under every reader.

    python -m tests.benchmarks.contenders.bare_redis open URL KEYS RATE SECONDS SKIP
    python -m tests.benchmarks.contenders.bare_redis closed URL KEYS SECONDS SKIP

KEYS: a file of JSON, the keys of each request in base64, which are taken in turn. `open`: requests are due at random
instants (a Poisson process of that rate); all that are due by now are sent as one pipeline, an MGET each. A request's
time counts from when it was due until its reply is there, as it came. `closed`: a hundred requests a pipeline, one
after the other.
"""

import base64
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis

_MOST = 100
"""Of one pipeline."""

Keys = Sequence[bytes]


def _ask(client: "redis.Redis", requests: Sequence[Keys]) -> None:
    pipeline = client.pipeline(transaction=False)
    for keys in requests:
        pipeline.mget(keys)
    replies = pipeline.execute()
    if any(None in reply for reply in replies):
        raise LookupError("a row is missing")


def closed(client: "redis.Redis", requests: Sequence[Keys], seconds: float, skip: float) -> dict[str, object]:
    """As many as get answered."""
    begin = time.perf_counter() + skip
    end, now, answered, number = begin + seconds, 0.0, 0, 0
    while now < end:
        _ask(client, [requests[(number + place) % len(requests)] for place in range(_MOST)])
        number += _MOST
        now = time.perf_counter()
        answered += _MOST if begin <= now < end else 0
    return {"requests": answered, "seconds": seconds}


def open_loop(
    client: "redis.Redis", requests: Sequence[Keys], rate: float, seconds: float, skip: float
) -> dict[str, object]:
    """So many a second."""
    chance = random.Random(1)
    dues, due = [], 0.0
    while due < skip + seconds:
        due += chance.expovariate(rate)
        dues.append(due)
    took: list[float] = []
    start, sent = time.perf_counter(), 0
    while sent < len(dues):
        now = time.perf_counter() - start
        if now < dues[sent]:
            time.sleep(dues[sent] - now)
            continue
        first = sent
        while sent < len(dues) and sent - first < _MOST and dues[sent] <= now:
            sent += 1
        _ask(client, [requests[number % len(requests)] for number in range(first, sent)])
        now = time.perf_counter() - start
        took += [now - due for due in dues[first:sent] if due >= skip]
    return {"requests": len(took), "seconds": seconds, "took_us": _quantiles(took)}


def _quantiles(took: Sequence[float]) -> dict[str, float]:
    """By the nearest rank, in microseconds."""
    ordered = sorted(took)
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: ordered[max(1, math.ceil(part * len(ordered))) - 1] * 1e6 for name, part in parts.items()}


def main(kind: str, url: str, file: str, *numbers: str) -> None:
    """Print what came of it."""
    requests = [[base64.b64decode(key) for key in keys] for keys in json.loads(Path(file).read_text())]
    client = redis.Redis.from_url(url)
    client.ping()
    loop = {"open": open_loop, "closed": closed}[kind]
    used = time.process_time()
    answer = loop(client, requests, *map(float, numbers))  # type: ignore[operator]
    print(json.dumps({**answer, "cpu_seconds": time.process_time() - used}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
