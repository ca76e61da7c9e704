"""Feast as processes that tests start."""

import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

from tests.services import tool

_HERE = Path(__file__).parent
_ANSWERS_WITHIN_S = 180.0
"""Its start, ten seconds of imports on a slow machine, included."""

REMOTE = """\
project: feast
provider: local
registry: {folder}/registry.db
entity_key_serialization_version: 3
online_store:
  type: remote
  path: {url}
"""
"""What Feast's client needs to know of a server."""


def feast(command: str = "python") -> str:
    """A command of Feast's environment. Where that was not made the test is skipped, which in CI is a failure."""
    return tool(f"feast/bin/{command}")


def environment() -> dict[str, str]:
    """For Feast's processes: nothing that leads Python to our own modules."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STILLWELL_", "PYTHON"))}


class FeastRaisedError(Exception):
    """What Feast's client raised: kind is the name of its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class FeastClient:
    """Feast's own client for a server, in a process of its own; `close` it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "feature_store.yaml").write_text(REMOTE.format(folder=folder, url=url))
        self.log = folder / "client.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [feast(), str(_HERE / "client.py"), str(folder)],
                cwd=folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def call(self, name: str, **words: object) -> Any:
        """What a function of `client.py` answers. Raises FeastRaisedError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": name, **words}) + "\n")
        self._process.stdin.flush()
        there, _, _ = select.select([self._process.stdout], [], [], _ANSWERS_WITHIN_S)
        if not there:
            self._process.kill()  # a late answer would be taken for that of the next call
        assert there, f"Feast's client gives no answer within {_ANSWERS_WITHIN_S:g} s: {self.log.read_text()[-2000:]}"
        line = self._process.stdout.readline()
        assert line, f"Feast's client has ended: {self.log.read_text()[-2000:]}"
        told = json.loads(line)
        if "raised" in told:
            raise FeastRaisedError(told["raised"], told["message"])
        return told["answer"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
