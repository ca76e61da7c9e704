"""A command asks a silent store again, but not for ever."""

import pytest

from stillwell.cli.patience import PAUSES, until_done
from stillwell.errors import OutcomeUnknown, StoreNotReady, StoreUnavailable


class Waits:
    """Sleeping that takes no time, and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Remember."""
        self.seconds.append(seconds)


async def test_a_command_waits_between_attempts_and_gives_up_with_the_last_error() -> None:
    waits, attempts = Waits(), 0

    async def silent() -> None:
        nonlocal attempts
        attempts += 1
        raise StoreUnavailable(f"silent at attempt {attempts}")

    with pytest.raises(StoreUnavailable, match=f"attempt {len(PAUSES) + 1}$"):
        await until_done(silent, waits)
    assert tuple(waits.seconds) == PAUSES
    assert 15 < sum(PAUSES) < 30


async def test_a_store_that_answers_in_time_is_enough() -> None:
    waits = Waits()
    errors = [StoreUnavailable("silent"), OutcomeUnknown("silent")]

    async def late() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await until_done(late, waits) == "done"
    assert len(waits.seconds) == 2


async def test_what_asking_again_cannot_mend_is_raised_at_once() -> None:
    waits = Waits()

    async def refused() -> None:
        raise StoreNotReady("flushed")

    with pytest.raises(StoreNotReady):
        await until_done(refused, waits)
    assert waits.seconds == []
