"""The pages of the client, run block by block over the view that one of them defines, with worker and service."""

import ast
import contextlib
import datetime
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stillwell import Client
from stillwell.local import LocalStack
from tests.acceptance.reader import ANYTHING, Step, steps
from tests.integration.test_serve import until_healthy
from tests.worker import WorkerProcess

ROOT = Path(__file__).parent.parent.parent
DEFAULT = "http://127.0.0.1:6566"


@pytest.fixture
def shop(stack: LocalStack, namespace: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    """The shop of the page: a worker and a service; gives the service, in whose folder the definitions lie."""
    page = (ROOT / "docs/howto/read-features.md").read_text()
    (definitions,) = re.findall(r"```python\n(# shop\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "shop.py").write_text(definitions.replace('"shop.orders"', f'"orders-{namespace}"'))
    settings = {
        **stack.environment,
        "STILLWELL_PROJECT": f"p{namespace}",
        "STILLWELL_DEFINITIONS": "shop",
        "STILLWELL_OFFLINE_URL": str(tmp_path / "offline"),
        "STILLWELL_PUSH": "true",
    }
    worker = WorkerProcess(tmp_path, settings)
    service = WorkerProcess(tmp_path, settings, "service", command="serve")
    command = [sys.executable, "-c", "from stillwell.cli.main import main; main()", "topics", "create"]
    subprocess.run([*command, "--partitions", "1"], cwd=tmp_path, env=worker.environment, check=True)
    try:
        worker.start().until_ready()
        yield until_healthy(service.start())
    finally:
        worker.end()
        service.end()


@pytest.mark.parametrize("page", ["reference/client.md", "howto/read-features.md"])
async def test_every_block_of_the_page_prints_what_it_says(
    page: str, shop: WorkerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in shop.environment.items():
        if name.startswith("STILLWELL_"):
            monkeypatch.setenv(name, value)
    url = f"http://127.0.0.1:{shop.port}"
    async with Client(url, timeout=30) as client:
        await client.push("LastOrder", {"at": datetime.datetime.now(datetime.UTC), "customer": "ada", "amount": 120.0})
    marked = steps((ROOT / "docs" / page).read_text())
    assert [step.kind for step in marked].count("output") == len(marked) / 2 >= 4
    names: dict[str, Any] = {}
    seen = ""
    for step in marked:
        match step.kind:
            case "python":
                seen = await run(step.text.replace(DEFAULT, url), names)
            case "script":
                seen = script(step.text.replace(DEFAULT, url), shop.environment, tmp_path)
            case "output":
                pattern = re.escape(step.text.strip()).replace(re.escape(ANYTHING), ".*")
                assert re.fullmatch(pattern, seen.strip()), f"expected:\n{step.text}\nseen:\n{seen}"
            case unknown:
                raise AssertionError(f"{page} marks a block as {unknown!r}")
    sys.modules.pop("shop", None)


async def run(block: str, names: dict[str, Any]) -> str:
    """What a block prints, in which `await` may stand outside of functions."""
    code = compile(block, "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
    return printed.getvalue()


def script(block: str, environment: Mapping[str, str], folder: Path) -> str:
    """What a block prints as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_marks_are_read_as_the_readme_has_them() -> None:
    assert steps("<!-- test: script -->\n```python\n1\n```\n") == [Step("script", "1\n")]
