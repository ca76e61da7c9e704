"""The page on ways of writing: its definitions load, and each of its scripts does what it says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Deployment
from tests.integration.test_serve import until_healthy

PAGE = (Path(__file__).parent.parent.parent / "docs" / "howto" / "write-patterns.md").read_text()
DEFINITIONS, BEGINNING, *SCRIPTS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def replaced(text: str, there: str, here: str) -> str:
    """The text with what stands on the page as it is in this test."""
    assert there in text
    return text.replace(there, here)


def test_every_pair_of_the_table_has_a_script() -> None:
    headings = [heading.lower() for heading in re.findall(r"^## (.*, .*)$", PAGE, re.MULTILINE)]
    pairs = {
        f"{when}, {where}"
        for when in ("synchronous", "asynchronous")
        for where in ("precomputed", "on demand", "hybrid")
    }
    assert set(headings) == pairs
    assert len(SCRIPTS) >= len(pairs)


def test_every_script_does_what_it_says(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployment = deploy(pushed=True)
    (tmp_path / "cards.py").write_text(replaced(DEFINITIONS, "cards.payments", deployment.topic))
    deployment.settings["STILLWELL_DEFINITIONS"] = "cards"
    deployment.run("topics", "create", "--partitions", "1").check_returncode()
    deployment.start_worker().until_ready()
    service = until_healthy(deployment.service().start())
    beginning = replaced(BEGINNING, "http://127.0.0.1:6566", f"http://127.0.0.1:{service.port}")
    names: dict[str, object] = {}
    exec(beginning, names)
    try:
        for script in SCRIPTS:
            exec(script, names)
    finally:
        names["client"].close()  # type: ignore[attr-defined]
