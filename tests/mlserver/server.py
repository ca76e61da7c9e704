"""MLServer as a part that tests start, kill and start again."""

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from scripts.flights.modelserver import ModelServer as Served
from scripts.flights.source import unpack
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


class ModelServer(Served):
    """MLServer with the model of delays."""

    def __init__(self, folder: Path, *, port: int | None = None, **settings: object) -> None:
        """settings: what its model-settings.json has beside, or in place of, what the tests' own has."""
        model = {**SETTINGS, **settings}
        model["parameters"] = {**model["parameters"], "uri": str(trained())}
        super().__init__(folder, Path(tool("mlserver/bin/python")), model, port=port)
