"""What it costs to share the work: processor time an event, one worker against two.

Both times the workers hold all partitions of an empty topic, are frozen while it is filled, and then wake up to the
same backlog: so that nobody's start is counted, and nobody begins before the others.
"""

import dataclasses
import time

from tests.benchmarks.load import Load
from tests.benchmarks.testbed import Testbed
from tests.benchmarks.workers import Ingested, Workers

_PARTITIONS = 4
_KEYS = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """The same backlog, by one worker and by two."""

    one: Ingested
    two: Ingested


def measure(testbed: Testbed, events: int, two_first: bool) -> Split:
    """Both, one after the other: in turns this first and that, as the machine's speed changes slowly."""
    if two_first:
        two, one = _by(2, testbed, events), _by(1, testbed, events)
    else:
        one, two = _by(1, testbed, events), _by(2, testbed, events)
    return Split(one, two)


def _by(count: int, testbed: Testbed, events: int) -> Ingested:
    topic = testbed.create_topic(_PARTITIONS)
    with Workers(testbed, testbed.deploy(topic, _PARTITIONS), count) as workers:
        workers.until_shared()
        with workers.frozen():
            what = Load(events, _KEYS, first_ts=time.time_ns() // 1_000 - events)
            filled = testbed.fill(what, _PARTITIONS, topic)
            begun = workers.reading()
        taken = workers.follow(filled, begun)
    testbed.remove(topic)
    return taken
