"""The demo's keeper: stays when all is well, and ends with the command otherwise."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import still_running

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, signal, sys, time
from scripts.flights.ending import interrupt_on_sigterm
from scripts.flights.keeper import in_keeper

def work(hand_over):
    interrupt_on_sigterm()
    print(os.getpid(), flush=True)
    try:
        {body}
    except KeyboardInterrupt:
        return 130

sys.exit(in_keeper(work))
"""
FOR_EVER = "time.sleep(3600)"


def command(body: str) -> "subprocess.Popen[str]":
    """A command whose keeper does this."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def keeper_of(started: "subprocess.Popen[str]") -> psutil.Process:
    """The keeper of a command, which has not ended."""
    assert started.stdout is not None
    return psutil.Process(int(started.stdout.readline()))


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_command_ends_as_its_keeper_does(code: int) -> None:
    with command(f"return {code}") as started:
        assert started.wait(5) == code


def test_what_was_handed_over_goes_on_in_silence_until_it_is_ended() -> None:
    with command(f"hand_over(); print('unheard', flush=True); {FOR_EVER}") as started:
        keeper = keeper_of(started)
        printed, _ = started.communicate(timeout=5)
    assert (started.returncode, printed) == (0, "")
    assert still_running([keeper], within_s=0.3)
    keeper.terminate()
    assert not still_running([keeper], within_s=5)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_what_was_not_handed_over_ends_with_the_command(number: signal.Signals, code: int) -> None:
    with command(FOR_EVER) as started:
        keeper = keeper_of(started)
        started.send_signal(number)
        assert started.wait(5) == code
    assert not still_running([keeper], within_s=5)


def test_a_signal_that_comes_before_it_can_be_passed_on_waits() -> None:
    """The keeper speaks as soon as it lives: whoever listens may be faster than the command."""
    early = """
import scripts.flights.keeper as keeper

ready = keeper.interrupt_on_sigterm

def hit_first():
    os.kill(os.getpid(), signal.SIGTERM)
    ready()

keeper.interrupt_on_sigterm = hit_first
sys.exit(in_keeper(work))
"""
    script = SCRIPT.format(body=FOR_EVER).replace("sys.exit(in_keeper(work))", early)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        started.communicate(timeout=10)  # until nobody has its output any more, the keeper neither
    assert started.returncode == 130
