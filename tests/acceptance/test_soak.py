"""A short soak in which something leaks, as `scripts/soak` makes it, and how it judges: docs/explanation/soak.md."""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.chaos.plan import Cut
from tests.acceptance.soak import cuts, verdict
from tests.acceptance.soak.trend import Sample, trend
from tests.services import tool

ROOT = Path(__file__).parents[2]


def soaked(tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, what was printed, and the summary."""
    tools = Path(tool("toxiproxy-server")).parent
    summary = tmp_path / "summary.json"
    done = subprocess.run(
        [ROOT / "scripts" / "soak", f"--json={summary}", f"--logs={tmp_path / 'logs'}", *arguments],
        cwd=tmp_path,
        env={**os.environ, "STILLWELL_VENV": sys.prefix, "STILLWELL_TOOLS": str(tools)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    return done.returncode, done.stdout, json.loads(summary.read_text()) if summary.exists() else {}


def test_a_leak_is_found(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """1 MB for each call of a model, which every process makes some times a second."""
    seed = request.config.option.seed
    code, said, found = soaked(tmp_path, "--minutes=0.7", "--pace=20", f"--seed={seed}", "--leak=1000000")
    assert code == 1, said
    grown = {each.partition(":")[0] for each in found["wrong"] if "memory grow" in each}
    assert {"serve 0", "serve 1"} <= grown <= {"serve 0", "serve 1", "worker"}, said
    # And that is all: what is at rest still settles in so short a run, but nothing is wrong, late or refused without a
    # reason.
    assert found["wrong_answers"] == 0, said
    assert [each for each in found["wrong"] if "memory grow" not in each and " at rest are " not in each] == [], said
    assert {"serve 0", "serve 1", "worker"} <= set(found["more_at_rest"])


# ---- judging ----


def noisy(rng: random.Random, per_minute: float, seconds: int = 1_200) -> list[Sample]:
    """Memory that goes up and down by collections, takes a step of 4 at chance, and has a slope."""
    step = rng.randrange(seconds)
    return [
        (at, 300 + 2 * math.sin(at / 9) + rng.uniform(-1, 1) + 4 * (at > step) + at * per_minute / 60)
        for at in range(seconds)
    ]


@pytest.mark.parametrize("attempt", range(20))
def test_a_slope_is_told_from_noise_and_steps(attempt: int, rng: random.Random) -> None:
    limit = verdict.limit(20)
    assert not limit.passed_by(trend(noisy(rng, 0)))
    assert limit.passed_by(trend(noisy(rng, 3 * limit.per_minute)))


@pytest.mark.parametrize(
    ("measure", "minutes", "most"), [("files", 20, 4), ("tasks", 20, 8), ("objects", 1, 8), ("objects", 20, 18)]
)
def test_what_is_more_at_rest_is_told(measure: str, minutes: float, most: float) -> None:
    before = {"worker": {measure: 100.0}}
    assert verdict.left(before, {"worker": {measure: 100 + most}}, minutes) == []
    (told,) = verdict.left(before, {"worker": {measure: 101 + most}}, minutes)
    counted = "thousands of objects' blocks" if measure == "objects" else measure
    assert told == f"worker: {counted} at rest are {101 + most}, and were 100"


def test_what_comes_back_is_no_growth() -> None:
    """An outage that holds 100 MiB for a fifth of the time."""
    series = [(float(at), 300.0 + (100 if 500 < at < 740 else 0)) for at in range(1_200)]
    assert trend(series).per_minute == 0
    assert trend(series).most == 400


def test_the_slope_of_a_line_is_its_own() -> None:
    found = trend([(float(at), 100 + at / 2) for at in range(600)])
    assert found.per_minute == pytest.approx(30)
    assert found.grown == pytest.approx(600 * 0.6 / 2, rel=0.01)


def test_a_seed_tells_every_cut_and_every_way_comes() -> None:
    def planned(seed: int) -> list[Cut]:
        return [cut for cut, _ in zip(cuts.planned(random.Random(seed)), range(14), strict=False)]

    assert planned(1) == planned(1) != planned(2)
    ways = [cut.way for cut in planned(1)]
    assert set(ways[:7]) == set(ways[7:]) == {"down", "silent", "deaf", "slow", "torn", "half", "reset"}
