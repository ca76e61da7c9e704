"""The demo, as a newcomer runs it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import still_running
from tests.services import TOOLS, tool
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
EVENTS = 20_000
ROUTES = "RouteDepartures"


class Demo:
    """`scripts/demo` under way, in the environment that the tests run in, printing to a file."""

    def __init__(self, folder: Path, *arguments: str, events: int = EVENTS, tools: Path = TOOLS) -> None:
        if "--no-model" not in arguments and tools == TOOLS:
            tool("mlserver/bin/python")
        self.printed = folder / "printed"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLWELL_")}
        with self.printed.open("w") as output:
            self.process = subprocess.Popen(
                [ROOT / "scripts" / "demo", "--events", str(events), *arguments],
                cwd=folder,
                env={**environment, "STILLWELL_VENV": sys.prefix, "STILLWELL_TOOLS": str(tools), "TMPDIR": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """What it has printed."""
        return self.printed.read_text()

    def says(self, words: str, within_s: float = 120) -> None:
        """Wait until it prints this."""
        eventually(lambda: words in self.text(), within_s=within_s, what=f"{words!r} in {self.printed}")

    def started(self) -> list[psutil.Process]:
        """All processes that it has started and that live: the stack, MLServer, the commands, and who watches them."""
        return list(psutil.Process(self.process.pid).children(recursive=True))


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Demos to end, and all that they have started, if their test fails."""
    begun: list[Demo] = []
    yield begun
    for demo in begun:
        for match in re.finditer(r"kill (\d+)$", demo.text(), re.MULTILINE):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(match[1]), signal.SIGKILL)
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def left_behind(folder: Path) -> list[Path]:
    """Folders of embedded stacks below a folder for temporary files."""
    return list(folder.glob("stillwell-*/stack-*"))


def test_the_demo_proves_that_every_flight_arrived_and_stays_for_a_look(tmp_path: Path, demos: list[Demo]) -> None:
    """Late, doubled and broken records, a worker killed on the way; then every command that it offers works."""
    demo = Demo(tmp_path, "--keep", "--json", "summary.json")
    demos.append(demo)
    assert demo.process.wait(timeout=240) == 0, demo.text()
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())

    assert summary["agrees"] is summary["verify_good"] is True
    assert summary["events"] == EVENTS
    assert summary["sent"] == EVENTS + summary["twice"] + summary["cut_short"] == summary["records_at_rest"]
    assert min(summary[name] for name in ("late", "out_of_order", "twice", "cut_short")) > 0
    assert summary["rejected"] >= summary["cut_short"]
    assert 0.4 * summary["sent"] < summary["killed_after"] < 0.9 * summary["sent"]
    assert {view["view"] for view in summary["compared"]} == {"RouteDepartures", "AircraftArrivals", "AirportWeather"}
    assert all(view["entities"] > 0 and view["differing"] == 0 for view in summary["compared"])
    assert summary["pushed"] == {"count": 50, "wrong": []}
    predicted = summary["predicted"]
    assert predicted["compared"]["routes"] == predicted["compared"]["fresh"] == summary["entities_in_redis"][ROUTES]
    assert predicted["compared"]["differing"] == 0
    assert predicted["compared"]["least"] < predicted["compared"]["most"]
    assert min(predicted[name] for name in ("hints", "computed", "calls", "in_parquet")) > 0
    # Before the last flight was in Redis, as a reader over HTTP saw it: not in the end alone.
    assert predicted["while_streaming"]["looks"] > 2
    assert predicted["while_streaming"]["refreshed"] > 10
    assert all(len(line) <= 100 for line in demo.text().splitlines() if not re.match(" +(export|cd|curl) ", line))

    exports = re.findall(r"^    ((?:cd|export) .+)$", demo.text(), re.MULTILINE)
    commands = re.findall(r"^    (stillwell .+)$", demo.text(), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        typed = subprocess.run(
            ["bash", "-c", "\n".join([*exports, command])], capture_output=True, text=True, check=False
        )
        assert typed.returncode == 0, f"{command}: {typed.stdout}{typed.stderr}"

    features, prediction, push = (answer_of(line) for line in curl_lines(demo))
    assert features["features"]["RouteDepartures:delay"]["status"] == "PRESENT"
    assert prediction["prediction"]["state"] == "FRESH"
    assert push["statuses"] == ["applied"]

    (keeper,) = re.findall(r"kill (\d+)$", demo.text(), re.MULTILINE)
    everything = [psutil.Process(int(keeper)), *psutil.Process(int(keeper)).children(recursive=True)]
    assert len(everything) > 4
    os.kill(int(keeper), signal.SIGTERM)
    assert not still_running(everything, within_s=30)
    assert not left_behind(tmp_path)


def test_without_a_model_it_says_so_and_proves_the_rest_and_asks_as_it_offers(
    tmp_path: Path, demos: list[Demo]
) -> None:
    demo = Demo(tmp_path, "--no-model", "--json", "summary.json", events=3_000)
    demos.append(demo)
    assert demo.process.wait(timeout=240) == 0, demo.text()
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["agrees"], summary["predicted"], summary["pushed"]["wrong"]) == (True, None, [])
    assert "WITHOUT A MODEL" in demo.text()
    assert "predictions are not proven" in demo.text()
    assert len(curl_lines(demo)) == 3
    answers = re.findall(r"^    curl .+\n      (\{.+)$", demo.text(), re.MULTILINE)
    for word, answer in zip(('"entity"', '"entities"', '"applied"'), answers, strict=True):
        assert word in answer
    assert not left_behind(tmp_path)


def test_a_model_server_that_cannot_be_installed_is_told_with_what_to_do(tmp_path: Path, demos: list[Demo]) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()
    demo = Demo(tmp_path, tools=no_folder)
    demos.append(demo)
    assert demo.process.wait(timeout=120) == 1
    assert "environment of the model server could not be made" in demo.text()
    assert "scripts/demo --no-model" in demo.text()
    assert not left_behind(tmp_path)


def curl_lines(demo: Demo) -> list[str]:
    """Those that it prints."""
    return re.findall(r"^    (curl .+)$", demo.text(), re.MULTILINE)


def answer_of(line: str) -> dict[str, Any]:
    """What a line prints, pasted into a shell elsewhere."""
    pasted = subprocess.run(["bash", "-c", line], cwd="/", capture_output=True, text=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(pasted.stdout)
    return answer


@pytest.mark.parametrize(
    ("moment", "arguments"),
    [("a year of flights", ()), ("killed with -9", ("--keep",))],
    ids=["at the start", "in the middle"],
)
def test_ctrl_c_ends_everything_that_the_demo_has_started(
    tmp_path: Path, demos: list[Demo], moment: str, arguments: tuple[str, ...]
) -> None:
    demo = Demo(tmp_path, *arguments)
    demos.append(demo)
    demo.says(moment)
    eventually(demo.started, what="a first process")
    started = demo.started()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(timeout=30) == 130
    assert "no process of the demo is left" in demo.text()
    assert not still_running(started, within_s=10)
    assert not left_behind(tmp_path)
