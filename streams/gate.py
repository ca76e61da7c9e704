"""When a worker stops of itself: so much is rejected that the fault is more likely in the definitions than in the data,
or a record breaks a rule that says so."""

import dataclasses
from collections import deque
from collections.abc import Iterable

from stillwell.broken import Broken
from stillwell.errors import StillwellError


class TooManyRejects(StillwellError):
    """The worker stops before it fills the dead-letter topic with good records."""


class StopRuleBroken(StillwellError):
    """The worker stops before a record that its definitions call impossible is taken for one that is."""


def refuse_what_stops(topic: str, broken: Iterable[Broken]) -> None:
    """Raise StopRuleBroken, before anything of these batches goes anywhere, if a record broke a rule that stops."""
    stopping = [each for each in broken if each.rule.action == "stop"]
    if not stopping:
        return
    first = stopping[0]
    others = sum(each.count for each in stopping) - 1
    more = f" (and {others} more in the same batches break a rule that stops)" if others else ""
    raise StopRuleBroken(
        f"topic {topic}, partition {first.partition}, offset {first.offset}: {first.rule.column}: expected "
        f"{first.rule.rule}, got {first.value}, and the column's stop=rule(…) says that the worker ends there{more}. "
        "Nothing is lost: the offset has not moved, and the record will be read again. If the record is wrong, mend "
        "its producer, and let the rule warn or reject until the worker has passed it; if it is right, mend the rule"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class RejectLimit:
    """Stop past this ratio of rejected records, but not before so many records were judged."""

    ratio: float
    least_records: int


class RejectGate:
    """Judges the records of one topic, batch by batch, over about the last `least_records` of them."""

    def __init__(self, topic: str, limit: RejectLimit) -> None:
        self._topic = topic
        self._limit = limit
        self._batches: deque[tuple[int, int]] = deque()
        self._records = self._rejected = 0

    def judge(self, records: int, rejected: int, example: str) -> None:
        """Take a batch into account, before its rejects are produced. Raises TooManyRejects."""
        self._batches.append((records, rejected))
        self._records += records
        self._rejected += rejected
        while self._records - self._batches[0][0] >= self._limit.least_records:
            records, rejected = self._batches.popleft()
            self._records -= records
            self._rejected -= rejected
        if self._records >= self._limit.least_records and self._rejected > self._limit.ratio * self._records:
            raise TooManyRejects(
                f"topic {self._topic}: {self._rejected} of the last {self._records} records were rejected, more than "
                f"the {self._limit.ratio:.0%} that are allowed; the last one: {example}. Mend the definition: nothing "
                "was acknowledged, the records will be read again. If the records are wrong, mend their producer, and "
                "set STILLWELL_REJECT_RATIO to 1 until the worker has passed them: they become dead letters"
            )
