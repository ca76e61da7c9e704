"""MLServer, a model server that speaks the Open Inference Protocol, as a part of the scene.

It wants other versions of our libraries, and has an environment of its own, which Stillwell is not in.
"""

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillwell.local import Part


class ModelServer(Part):
    """A process that serves one model.

    python: of its environment. model: what its model-settings.json says, `name` among it.
    """

    port_count = 2
    start_timeout_s = 90.0

    def __init__(self, folder: Path, python: Path, model: Mapping[str, Any], *, port: int | None = None) -> None:
        super().__init__("mlserver", folder, port=port)
        self._python = python
        self._model = model

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether the model is loaded."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/{self._model['name']}/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

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
        (self.folder / "model-settings.json").write_text(json.dumps(dict(self._model)))
        # One thread: with several, which wait for one another by spinning, a small batch takes a second on busy cores.
        # Isolated: nothing of ours is to be found by its imports.
        served_by = [str(self._python), "-I", str(self._python.with_name("mlserver"))]
        return ["/usr/bin/env", "OMP_NUM_THREADS=1", *served_by, "start", str(self.folder)]
