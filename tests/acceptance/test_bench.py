"""The benchmark of the query service, from its command to its result: each part, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import SERVE, SERVE_PARTS
from tests.services import TOOLS, tool

ROOT = Path(__file__).parents[2]


def test_a_quick_run_measures_every_key_of_serving_and_has_nothing_to_note(tmp_path: Path) -> None:
    for needed in ("loadgen", "feast/bin/python"):
        tool(needed)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLWELL_")}
    done = subprocess.run(
        [ROOT / "scripts" / "bench", "serve", "--quick", "--json", tmp_path / "run.json"],
        cwd=tmp_path,
        env={**environment, "STILLWELL_VENV": sys.prefix, "STILLWELL_TOOLS": str(TOOLS), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    result: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    assert result["notes"] == result["skipped"] == []
    assert {limit.key: result[limit.key] for limit in SERVE if not result[limit.key] > 0} == {}
    assert result["verdicts"].keys() == {limit.key for limit in SERVE}
    assert "NONE" not in result["verdicts"].values()
    assert result["runs"].keys() == set(SERVE_PARTS)
    # What is told of a prediction beside its key.
    medians = result["medians"]
    rates = [medians[f"prediction, {name}: requests a second"] for name in ("features", "a feature", "prediction")]
    assert result["prediction_vs_feature"] == rates[0] / rates[2]
    assert medians["1 x 1: one prediction, to one feature alone, x"] == rates[1] / rates[2]
