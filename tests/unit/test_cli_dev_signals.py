"""Ctrl-C ends `stillwell dev` whatever runs when it comes: a Kafka client may swallow what asyncio makes of it."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from unittest import mock

import pytest

from stillwell.cli.dev.command import _ended_by_signals, _Session


async def _swallows(number: signal.Signals) -> None:
    """As aiokafka's coordinator does when it is closed."""
    os.kill(os.getpid(), number)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_on_who_swallows_that_he_is_cancelled(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with _ended_by_signals() as is_ending:
        assert not is_ending()
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(_swallows(number))
        assert is_ending()
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _ended_by_signals() as is_ending:
            os.kill(os.getpid(), signal.SIGINT)
            assert not is_ending()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_session_ends_though_the_exception_of_the_signal_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those are that come while Python takes an object away."""
    looks: list[int] = []
    session = _Session(mock.Mock(definitions="features"), mock.Mock(), mock.Mock(), lambda: len(looks) == 3)
    monkeypatch.setattr(session, "_begin", lambda: None)
    monkeypatch.setattr(session, "_look", lambda: looks.append(1) if len(looks) < 9 else pytest.fail("goes on"))
    monkeypatch.chdir(tmp_path)
    session.go_on()
    assert len(looks) == 3
