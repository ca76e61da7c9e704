"""A command asks a silent store again, but not for ever."""

import time

import pytest

from stillwell.cli.patience import ATTEMPTS, pause
from stillwell.errors import StoreUnavailable


async def test_a_command_waits_between_attempts_and_gives_up_with_the_last_error() -> None:
    error = StoreUnavailable("silent")
    started = time.monotonic()
    await pause(1, error)
    assert time.monotonic() - started >= 0.1
    with pytest.raises(StoreUnavailable, match="silent"):
        await pause(ATTEMPTS + 1, error)
