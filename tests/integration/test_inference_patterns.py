"""The page on ways of predicting: its definitions load, and each of its scripts does what it says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Deployment
from tests.integration.test_serve import until_healthy
from tests.integration.test_write_patterns import replaced
from tests.predicted import OddServer, ThreadedServer

PAGE = (Path(__file__).parent.parent.parent / "docs" / "howto" / "inference-patterns.md").read_text()
DEFINITIONS, BEGINNING, *SCRIPTS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_each_of_the_four_ways_has_a_script() -> None:
    assert len(re.findall(r"^## ", PAGE, re.MULTILINE)) == len(SCRIPTS) == 4


def test_every_script_does_what_it_says(
    deploy: Callable[..., Deployment],
    topic: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with ThreadedServer(OddServer("score", "cents", "INT64")) as model:
        monkeypatch.setenv("SCORE_URL", model.server.url)
        deployment = deploy(pushed=True, serve_timeout="10s")
        definitions = replaced(DEFINITIONS, "cards.payments", deployment.topic)
        definitions = replaced(definitions, "cards.nightly", topic("nightly"))
        (tmp_path / "scoring.py").write_text(definitions)
        deployment.settings["STILLWELL_DEFINITIONS"] = "scoring"
        deployment.run("topics", "create", "--partitions", "1").check_returncode()
        deployment.start_worker().until_ready()
        service = until_healthy(deployment.service().start())
        beginning = replaced(BEGINNING, "http://127.0.0.1:6566", f"http://127.0.0.1:{service.port}")
        beginning = replaced(beginning, "http://127.0.0.1:8080", model.server.url)
        names: dict[str, object] = {}
        exec(beginning, names)
        try:
            for script in SCRIPTS:
                exec(script, names)
        finally:
            names["client"].close()  # type: ignore[attr-defined]
