"""What was found, judged."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tests.acceptance.soak.load import Refusal, Told
from tests.acceptance.soak.machine import Machine
from tests.acceptance.soak.trend import Limit, Sample, Trend, trend
from tests.acceptance.soak.watch import GROWING

MEMORY_PER_MINUTE = 0.25
"""MiB. At the pace that is meant where none is given, each process of the service answers 1,800 requests a minute, and
a worker takes in as many records and hints: 145 bytes for each. A dictionary's entry with a short key and a value
that is kept for one is 150 to 250."""

_NOISE = 6.0
"""MiB that a process may step up by once: what allocators keep by chance."""

_AT_REST: Mapping[str, float] = {"files": 4.0, "threads": 3.0, "tasks": 8.0, "objects": 8.0}
"""By how much more there may be at rest in the end than in the beginning. Connections to Kafka are made as they are
needed, and threads too; what is kept for each request, or each cut, is soon more. Objects: thousands of blocks, once
garbage was collected."""

_IN_WORDS: Mapping[str, str] = {"objects": "thousands of objects' blocks"}
"""What a number counts, where its measure's name does not say so."""

_OBJECTS_PER_MINUTE = 0.9
"""Thousands of blocks that there may be more of for each minute, if that is more: half a block for each request. A
single object that is kept for each is twice that."""

SHORT_MINUTES = 5.0
"""A run that is no longer shows large leaks alone: its limits are looser by what still settles."""

_HELD_UP_S = 0.5
"""Processes that waited so long for a processor, all together, may refuse what they would have done: half of what the
service waits for Redis."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One series: which, how it went, and whether it is to be called a leak."""

    process: str
    measure: str
    trend: Trend
    limit: Limit

    @property
    def grows(self) -> bool:
        """Whether it is."""
        return self.limit.passed_by(self.trend)


def limit(minutes: float) -> Limit:
    """What memory may not pass in a run of this length, behind its warm-up."""
    looser = 1.0 if minutes > SHORT_MINUTES else 2 * SHORT_MINUTES / minutes
    return Limit(per_minute=MEMORY_PER_MINUTE * looser, grown=_NOISE)


def findings(samples: Mapping[str, Mapping[str, Sequence[Sample]]], minutes: float) -> list[Finding]:
    """Every series, judged."""
    return [
        Finding(process, measure, trend(series), limit(minutes))
        for process, measures in samples.items()
        for measure, series in measures.items()
        if measure in GROWING and len(series) >= 5
    ]


def grown(found: Sequence[Finding]) -> list[str]:
    """Those that grow, in words."""
    return [
        f"{each.process}: {each.measure} grow from {each.trend.first:.1f} to {each.trend.last:.1f}, "
        f"{each.trend.per_minute:+.3f} a minute; {each.limit.per_minute:g} are allowed"
        for each in found
        if each.grows
    ]


def left(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]], minutes: float
) -> list[str]:
    """What is there at rest that was not there before, in a run of this length, in words."""
    most = {**_AT_REST, "objects": max(_AT_REST["objects"], _OBJECTS_PER_MINUTE * minutes)}
    return [
        f"{process}: {_IN_WORDS.get(measure, measure)} at rest are {after[process][measure]:.0f}, "
        f"and were {held[measure]:.0f}"
        for process, held in before.items()
        for measure, more in most.items()
        if measure in held and after.get(process, {}).get(measure, 0) > held[measure] + more
    ]


def refused_in_peace(told: Told, explain: Callable[[float, float], bool], machine: Machine) -> list[Refusal]:
    """Refusals while Redis was well, and had been for a while, and the machine let everybody run."""
    return [
        each
        for each in told.refusals
        if not explain(each.begin, each.end) and machine.waited(each.begin, each.end) < _HELD_UP_S
    ]


def too_late(told: Told, machine: Machine) -> list[Refusal]:
    """What came later than can be explained by how long the processes waited for a processor."""
    return [each for each in told.late if each.overdue > machine.waited(each.begin, each.end)]
