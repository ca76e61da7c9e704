"""The service by its own description: tried by a fuzzer, and read by a client in Go that was made from it."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, until_linked
from tests.integration.test_serve import until_healthy
from tests.services import tool

ROOT = Path(__file__).parent.parent.parent


def test_a_fuzzer_finds_nothing_that_the_document_does_not_say(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    """Schemathesis, with all of its checks: what the document allows is answered as it says, all else is refused.

    The deployment lets nobody push and has no models: what those paths take depends on definitions in ways that the
    document does not say.
    """
    deployment = deploy()
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        client.set(f"test:{deployment.settings['STILLWELL_NAMESPACE']}:ready", "epoch")
    service = until_healthy(deployment.service().start())
    options = ["--checks", "all", "--max-examples", "60", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    tried = subprocess.run(
        [
            tool("fuzz/bin/st"),
            "--config-file",
            str(ROOT / "tests/fuzz/schemathesis.toml"),
            "run",
            f"http://127.0.0.1:{service.port}/openapi.json",
            *options,
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("STILLWELL_", "PYTHON"))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tried.returncode == 0, tried.stdout[-6_000:] + tried.stderr[-2_000:]
    assert "No issues found" in tried.stdout
    assert service.stop() == 0
    assert "Traceback" not in log(service)


@pytest.fixture
def go_client(tmp_path: Path) -> Path:
    """A program in Go: a client made from the document, and a main function. Where there is no Go the test is skipped,
    which in CI is a failure."""
    if shutil.which("go") is None:
        pytest.skip("Go is missing: install Go 1.25 or newer")
    folder = tmp_path / "client"
    (folder / "stillwell").mkdir(parents=True)
    shutil.copy(ROOT / "tests/go_client/main.go", folder)
    document = str(ROOT / "docs/reference/openapi.json")
    made = ["-generate", "types,client", "-package", "stillwell", "-o", "stillwell/client.go", document]
    for command in (
        [tool("oapi-codegen"), *made],
        ["go", "mod", "init", "stillwell.test/client"],
        ["go", "mod", "tidy"],
        ["go", "build", "-o", "reader", "."],
    ):
        subprocess.run(command, cwd=folder, env={**os.environ, "GOFLAGS": "-mod=mod"}, check=True, timeout=300)
    return folder / "reader"


def test_a_client_in_go_that_was_made_from_the_document_reads_features(
    deploy: Callable[..., Deployment], rng: random.Random, go_client: Path
) -> None:
    deployment = deploy()
    sent = orders.produce(
        deployment.bootstrap,
        deployment.topic,
        [{"at": orders.time(1), "customer": "a", "amount": 1.5, "number": 2**52}],
    )
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = until_healthy(deployment.service().start())

    def read(features: str, *customers: str) -> "subprocess.CompletedProcess[str]":
        command = [str(go_client), f"http://127.0.0.1:{service.port}", features, "customer", *customers]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    amount, number = f"{orders.VIEW}:amount", f"{orders.VIEW}:number"
    assert read(f"{amount},{number}", "a", "nobody").stdout.splitlines() == [
        f"a {amount} Float64 1.5 PRESENT",
        f"nobody {amount} Float64 null NOT_FOUND",
        f"a {number} Int64 4503599627370496 PRESENT",
        f"nobody {number} Int64 null NOT_FOUND",
    ]
    assert "has no feature 'amuont'; did you mean 'amount'?" in read(f"{orders.VIEW}:amuont", "a").stderr
    assert service.stop() == worker.stop() == 0
