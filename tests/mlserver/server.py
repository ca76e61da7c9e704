"""MLServer as a part that tests start, kill and start again."""

import functools
import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from scripts.flights.source import unpack
from stillwell.local import Part
from tests.feast.process import environment
from tests.services import tool

_HERE = Path(__file__).parent
MODEL = "arrival-delay"
SETTINGS: dict[str, Any] = {
    "name": MODEL,
    "implementation": "mlserver_sklearn.SKLearnModel",
    "inputs": [
        {"name": "late", "datatype": "BOOL", "shape": [-1, 1]},
        {"name": "delay", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "distance", "datatype": "INT32", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1, 1]}],
    "parameters": {"content_type": "pd"},
}


@functools.cache
def trained() -> Path:
    """The model, trained once a run."""
    folder = Path(tempfile.mkdtemp(prefix="model-"))
    model = folder / "model.joblib"
    python = tool("mlserver/bin/python")
    flights = unpack(folder).flights
    subprocess.run([python, str(_HERE / "train.py"), str(flights), str(model)], check=True, env=environment())
    flights.unlink()
    return model


class ModelServer(Part):
    """MLServer with the model of delays."""

    port_count = 2
    start_timeout_s = 90.0

    def __init__(self, folder: Path, *, port: int | None = None, **settings: object) -> None:
        """settings: what its model-settings.json has beside, or in place of, what the tests' own has."""
        super().__init__("mlserver", folder, port=port)
        self._settings = {**SETTINGS, **settings}

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether the model is loaded."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{MODEL}/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def asked(self) -> int:
        """How many requests for predictions it has answered."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as response:
            text = response.read().decode()
        counts = [line for line in text.splitlines() if line.startswith("model_infer_request_success_total")]
        return sum(int(float(line.rpartition(" ")[2])) for line in counts)

    def _prepare(self) -> list[str]:
        http, grpc = self.ports
        served = {
            "host": "127.0.0.1",
            "http_port": http,
            "grpc_port": grpc,
            "metrics_endpoint": None,
            "parallel_workers": 0,
        }
        (self.folder / "settings.json").write_text(json.dumps(served))
        parameters = {**self._settings["parameters"], "uri": str(trained())}
        (self.folder / "model-settings.json").write_text(json.dumps({**self._settings, "parameters": parameters}))
        return [tool("mlserver/bin/mlserver"), "start", str(self.folder)]
