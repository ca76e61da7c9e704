"""What comes between two lives of a partition: how long to wait, and whether to say why once more."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_SAID_AGAIN_AFTER = 60.0


class Reopening:
    """One partition's. Times in seconds, of any clock that does not jump."""

    def __init__(self) -> None:
        self._ended_in_vain = 0
        self._said: tuple[str, float] | None = None

    def ended(self, progressed: bool) -> float:
        """A flow has ended, having linked something or not: how long to wait before the next one is opened.

        At first hardly: most ends are mended by opening anew. What ends again and again must not spin.
        """
        self._ended_in_vain = 0 if progressed else self._ended_in_vain + 1
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * (1 << min(self._ended_in_vain, 16)))

    def is_news(self, reason: str, now: float) -> bool:
        """Whether to say that the partition is stopped, and why: for another reason, and else once a minute."""
        if self._said and self._said[0] == reason and now - self._said[1] < _SAID_AGAIN_AFTER:
            return False
        self._said = reason, now
        return True

    def flows(self) -> None:
        """The partition flows: when it stops next, that is news, whatever the reason."""
        self._said = None
