"""What a cached prediction is worth, and when it is to be computed again. Pure: the time and chance are parameters.

FRESH     it is of the inputs as they are now, and they were read no longer ago than the model's max_staleness (nor, by
          the clock of a server that is no more, so far ahead)
STALE     it is of other inputs, or older
MISSING   there is none
FAILED    the model was asked with the inputs as they are now, and gave no answer of use; an older prediction may be
          there still
"""

import datetime
import enum
import math

from stillwell.instants import duration_ms
from stillwell.layout.prediction import Record

KEPT_FOR = 10
"""A prediction is kept, and served as STALE or FAILED, until its inputs were read so many times its model's
max_staleness ago: with a model server that is down, answers age so far and no further."""

MOST_EARLY = 30
"""Nobody refreshes earlier before the end than so many times what the model took."""

_LEAST_KEPT = datetime.timedelta(minutes=1)

_FIRST_PAUSE_US = 1_000_000
_LONGEST_PAUSE_US = 60_000_000
"""For inputs that a model has failed over: other inputs are tried at once, so that only they wait for so long."""


class State(enum.Enum):
    """What a cached prediction is worth."""

    FRESH = "FRESH"
    STALE = "STALE"
    MISSING = "MISSING"
    FAILED = "FAILED"


def judge(record: Record | None, fingerprint: bytes, max_staleness_us: int, now_us: int) -> State:
    """What a record is worth, given the fingerprint of the inputs as they are now."""
    if record is None:
        return State.MISSING
    outputs, failure = record.outputs, record.failure
    # An instant far ahead of us was read by a clock that is not the one that counts now: nobody knows how old it is.
    if outputs and outputs.fingerprint == fingerprint and abs(now_us - outputs.read_at) <= max_staleness_us:
        return State.FRESH
    if failure and failure.fingerprint == fingerprint:
        return State.FAILED
    return State.STALE if outputs else State.MISSING


def may_try(record: Record | None, fingerprint: bytes, now_us: int) -> bool:
    """Whether the model may be asked: not yet, where it has just failed over the same inputs."""
    failure = record.failure if record else None
    if failure is None or failure.fingerprint != fingerprint:
        return True
    # No pause is as long as one that begins more than it from now: it was set by a clock that counts no more.
    return not failure.retry_at - 2 * _LONGEST_PAUSE_US <= now_us < failure.retry_at


def is_due_early(record: Record, max_staleness_us: int, now_us: int, chance: float) -> bool:
    """Whether this reader of a fresh prediction is to have it computed again before it is stale.

    chance: from 0 (excluded) to 1, drawn for each read. The nearer the end, and the longer the model takes, the more
    readers say yes, one of them most likely before the end; so readers do not all find it stale at once. The formula is
    that of A. Vattani, F. Chierichetti, K. Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015,
    with β = 1.
    """
    outputs = record.outputs
    return outputs is not None and now_us - outputs.cost_us * math.log(chance) >= outputs.read_at + max_staleness_us


def is_near_its_end(record: Record, max_staleness_us: int, now_us: int) -> bool:
    """Whether a reader may find a prediction due early at all: before, the chance would be e^-30."""
    outputs = record.outputs
    return outputs is not None and now_us + MOST_EARLY * outputs.cost_us >= outputs.read_at + max_staleness_us


def pause_us(attempts: int, chance: float) -> int:
    """How long nobody asks a model again that has failed so many times in a row over the same inputs: twice as long
    each time, up to a minute, and by chance up to half less, so that not all come back at once."""
    longest = min(_FIRST_PAUSE_US << min(attempts - 1, 16), _LONGEST_PAUSE_US)
    return round(longest * (1 - chance / 2))


def kept_ms(max_staleness: datetime.timedelta) -> int:
    """How long a record lives, counted from when its inputs were read."""
    return duration_ms(max(max_staleness * KEPT_FOR, _LEAST_KEPT))
