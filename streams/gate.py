"""When so much is rejected that the fault is more likely in the definitions than in the data."""

import dataclasses
from collections import deque

from stillwell.errors import StillwellError


class TooManyRejects(StillwellError):
    """The worker stops before it fills the dead-letter topic with good records."""


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
