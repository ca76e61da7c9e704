"""The delay model: its environment, its training, and the server that serves it.

`scripts/apart` makes the environment, the one that the tests have; half a gigabyte, once.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from scripts.flights.ending import DemoFailed
from scripts.flights.modelserver import ModelServer
from stillwell.errors import LocalStackError
from stillwell.local import Process

MODEL = "RouteDelay"
"""As the definitions call it."""

URL_VARIABLE = "DELAY_URL"
"""Where the definitions look for its server."""

SERVED: dict[str, Any] = {
    "name": "delay",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "inputs": [
        {"name": "route_delay", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "miles", "datatype": "INT32", "shape": [-1, 1]},
        {"name": "origin_delay", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "wind_speed", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "visibility", "datatype": "FP32", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1, 1]}],
}
"""What MLServer is told of it. Its answers are compared with these; so is the definition."""

EXAMPLES = 60_000
"""Departures that it learns from: more make it hardly better, and slower."""

_ROOT = Path(__file__).parents[2]
_REQUIREMENTS = "tests/mlserver/requirements.txt"
_TRAINER = Path(__file__).with_name("train.py")
_PATIENCE_S = 120.0
_POLL = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """How it went. off_by: minutes on average, over departures that were kept back; mean_off_by: who always says the
    mean is."""

    examples: int
    off_by: float
    mean_off_by: float


def environment(waiting: Callable[[float], None]) -> Path:
    """The interpreter of the model server's environment, which is made where it is not there yet.

    waiting: told again and again for how many seconds. Raises DemoFailed where it cannot be made.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [_ROOT / "scripts" / "apart", "mlserver", _REQUIREMENTS],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=said,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                waiting(time.monotonic() - began)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(0)
        said.seek(0)
        if process.returncode != 0:
            end = "\n".join(said.read().strip().splitlines()[-10:])
            raise DemoFailed(
                f"The environment of the model server could not be made: scripts/apart ended with "
                f"{process.returncode}. Without a model, and so without predictions, the demo runs as "
                f"`scripts/demo --no-model`.\n{end}"
            )
        return Path(printed.read().split()[-1]) / "bin" / "python"


class DelayModel:
    """The model in a folder: `begin_training`, `serve`, `end`."""

    def __init__(self, folder: Path, python: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._python = python
        self._model, self._report = folder / "model.joblib", folder / "report.json"
        self._training: Process | None = None
        settings = {**SERVED, "parameters": {"content_type": "pd", "uri": str(self._model)}}
        self._server = ModelServer(folder / "server", python, settings)

    @property
    def url(self) -> str:
        """The server's root."""
        return self._server.url

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._server.pid

    def begin_training(self, examples: pl.DataFrame) -> None:
        """Train in a process of its own; does not wait."""
        table = self._folder / "examples.csv"
        examples.write_csv(table)
        command: list[str | Path] = [self._python, "-I", _TRAINER, table, self._model, self._report]
        self._training = Process("training", command, log=self._folder / "training.log")

    def trained(self) -> Trained:
        """Wait until it is trained. Raises LocalStackError, with the end of its log, when it is not."""
        assert self._training is not None
        self._training.wait_until(self._report.exists, timeout_s=_PATIENCE_S)
        self._training.stop()
        return Trained(**json.loads(self._report.read_text()))

    def serve(self) -> None:
        """Start the server; returns when it answers."""
        self._server.start()

    def check(self) -> None:
        """Raises DemoFailed if the server has ended by itself."""
        if not self._server.process.running:
            raise DemoFailed(f"MLServer has ended by itself. Its log: {self._server.log}")

    def end(self, *, in_order: bool) -> None:
        """End whatever runs of it."""
        if self._training is not None:
            self._training.kill()
        if in_order:
            self._server.stop()
        else:
            with contextlib.suppress(LocalStackError):  # it was never started
                self._server.kill()
