"""A producer that keeps to a rate: `python -m tests.benchmarks.steady_producer BOOTSTRAP TOPIC RATE SECONDS START_AT`.

A process of its own, so that nothing else delays it. START_AT: seconds since the epoch. Every few events one is a
probe: its key is fresh, and its event time is the instant at which it is handed to the client library, so that whoever
finds its row knows how long that took. Prints the rate that it kept.
"""

import json
import random
import sys
import time
from typing import NamedTuple

from confluent_kafka import Producer

from tests.benchmarks.load import body, lateness

PROBE_EVERY = 20
FIRST_PROBE = 1 << 40
KEYS = 20_000

_TICK_SECONDS = 0.002
_AN_EVENT_SECONDS = 50e-6
_BEGINNING_SECONDS = 3.0
_BODIES_US = 1_111_111_111_111_111
"""Stands in each prepared body for its event time."""


def probe_key(number: int) -> int:
    """The user of a probe."""
    return FIRST_PROBE + number


def probe_times(rate: int, seconds: float) -> list[float]:
    """When each probe is due, in seconds after the start."""
    return [number / rate for number in range(0, round(rate * seconds), PROBE_EVERY)]


def when_prepared(rate: int, seconds: float) -> float:
    """When to start a producer that is begun now, in seconds since the epoch: making an event takes some 10 µs, and
    up to 25 on a machine that is slow for an hour."""
    return time.time() + _BEGINNING_SECONDS + rate * seconds * _AN_EVENT_SECONDS


class Prepared(NamedTuple):
    """An event made beforehand, as making costs more than sending: its key, what stands round its time, and how late it
    is."""

    key: bytes
    before: bytes
    after: bytes
    late_us: int

    def value(self, now_us: int) -> bytes:
        """Its JSON."""
        return b"%b%d%b" % (self.before, now_us - self.late_us, self.after)


def prepared(count: int) -> list[Prepared]:
    """Events and probes in their order. As in any load a tenth are late, but no probe is."""
    chance = random.Random(1)
    made = []
    for number in range(count):
        user = chance.randrange(KEYS) if number % PROBE_EVERY else probe_key(number // PROBE_EVERY)
        before, after = body(user, _BODIES_US, number, chance).split(b"%d" % _BODIES_US)
        made.append(Prepared(b"%d" % user, before, after, lateness(number, chance)))
    return made


def produce(bootstrap: str, topic: str, rate: int, seconds: float, start_at: float) -> None:
    """Produce each event when it is due, or as soon after as this process gets to it."""
    events = prepared(round(rate * seconds))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    producer.list_topics(topic)
    if (late := time.time() - start_at) > 0:
        # All that was due meanwhile would be sent at once.
        raise SystemExit(
            f"steady_producer: {len(events)} events were prepared {late:.1f} s too late: give it more time"
        )
    time.sleep(max(0.0, start_at - time.time()))
    sent, latest = 0, 0.0
    while sent < len(events):
        due = min(len(events), int((time.time() - start_at) * rate) + 1)
        if due > sent:
            latest = max(latest, time.time() - start_at - sent / rate)
        for event in events[sent:due]:
            producer.produce(topic, event.value(time.time_ns() // 1_000), key=event.key)
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    took = time.time() - start_at
    producer.flush(30)
    print(json.dumps({"events": len(events), "rate": len(events) / took, "latest_ms": latest * 1e3}), flush=True)


if __name__ == "__main__":
    produce(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
