"""A circuit breaker: who has failed a few times in a row is left alone for a while. Time and chance are parameters.

closed      everybody may call
open        nobody may, for a pause that doubles each time, by chance up to half as long again, so that processes do
            not come back together
half open   the pause is over, and one may try: its answer closes the circuit, or opens it again
"""

import dataclasses

_TRIAL = 10.0
"""Seconds after which another one may try, where the first never said what became of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """failures: how many in a row open the circuit; pause, longest: seconds."""

    failures: int = 5
    pause: float = 0.5
    longest: float = 15.0


class Breaker:
    """The state of one circuit."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._openings = 0
        self._until: float | None = None
        """When somebody may try; None while the circuit is closed."""

    @property
    def is_open(self) -> bool:
        """Whether the last that was heard is that it fails."""
        return self._until is not None

    def may_call(self, now: float) -> bool:
        """Whether to call now; whoever is told yes calls, and says what became of it."""
        if self._until is None:
            return True
        if now < self._until:
            return False
        self._until = now + _TRIAL
        return True

    def wait(self, now: float) -> float:
        """How long until somebody may try."""
        return max(0.0, self._until - now) if self._until is not None else 0.0

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = self._openings = 0
        self._until = None

    def failed(self, now: float, chance: float) -> None:
        """A call was not. chance: from 0 to 1."""
        self._failures += 1
        if self._until is None and self._failures < self._policy.failures:
            return
        pause = min(self._policy.pause * 2.0 ** min(self._openings, 30), self._policy.longest)
        self._openings += 1
        self._until = now + pause * (1 + chance / 2)
