"""`stillwell serve`: what it is told on the command line wins over its settings."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_with_json_every_line_of_the_log_is_an_object(tmp_path: Path) -> None:
    """Those of the processes that it starts, too."""
    settings = {
        "STILLWELL_PROJECT": "test",
        "STILLWELL_DEFINITIONS": "schemas",
        "STILLWELL_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "STILLWELL_OFFLINE_URL": str(tmp_path),
        "STILLWELL_LOG_FORMAT": "console",
        "STILLWELL_SERVE_PORT": str(free_port()),
        "STILLWELL_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    said = []
    with subprocess.Popen(
        [sys.executable, "-c", "from stillwell.cli.main import main; main()", "serve", "--json", "--workers", "2"],
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        too_late = threading.Timer(90, process.kill)
        too_late.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                assert line.startswith("{"), line
                said.append(json.loads(line)["event"])
                if said[-1] == "query service answers":
                    process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            too_late.cancel()
            process.kill()
    assert "query service answers" in said
    assert process.returncode == 0
