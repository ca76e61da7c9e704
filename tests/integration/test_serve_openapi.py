"""The service by its own description: tried by a fuzzer, and read by a client in Go that was made from it."""

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, until_linked
from tests.integration.test_serve import until_healthy
from tests.services import Proxy, tool
from tests.worker import WorkerProcess

ROOT = Path(__file__).parent.parent.parent


MODEL = """
from stillwell import Model, Output

def twice(columns):
    return {"twice": [amount and 2 * amount for amount in columns["amount"]]}

class Worth(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(hours=1),
            inputs={"amount": LastOrder.amount}, server=twice):
    twice: Output[Float64]
"""


def test_a_fuzzer_finds_nothing_that_the_document_does_not_say(
    deploy: Callable[..., Deployment], redis_proxy: Proxy, tmp_path: Path, rng: random.Random
) -> None:
    """Schemathesis, with all of its checks: what the document allows is answered as it says, all else is refused. And,
    for as long as Redis is away, by what the document says of that."""
    deployment = with_model(deploy(pushed=True))
    worker = deployment.start_worker().until_ready()
    service = until_healthy(deployment.service(redis_url=f"redis://{redis_proxy.address}/0").start())
    tries(service, tmp_path, rng, "schemathesis.toml", examples=40)
    for status in ("accepted", "applied"):
        pushed = rf'stillwell_serve_pushed_rows_total{{[^}}]*"{status}"[^}}]*}} [1-9]'
        assert re.search(pushed, service.page("/metrics")[1]), f"nothing that the fuzzer pushed was {status}"
    redis_proxy.down()
    tries(service, tmp_path, rng, "away.toml", examples=5)
    redis_proxy.up()
    until_healthy(service)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service)
    assert "Traceback" not in log(worker)


def tries(service: WorkerProcess, folder: Path, rng: random.Random, config: str, examples: int) -> None:
    """The fuzzer finds nothing. config: what it may expect; examples: of each path, beside those that it works out."""
    options = ["--checks", "all", "--max-examples", str(examples), "--seed", str(rng.randrange(2**32))]
    tried = subprocess.run(
        [
            tool("fuzz/bin/st"),
            "--config-file",
            str(ROOT / "tests/fuzz" / config),
            "run",
            f"http://127.0.0.1:{service.port}/openapi.json",
            *options,
            "--phases",
            "examples,coverage,fuzzing",
        ],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("STILLWELL_", "PYTHON"))},
            "PYTHONPATH": str(ROOT / "tests/fuzz"),
            "SCHEMATHESIS_HOOKS": "hooks",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert tried.returncode == 0, tried.stdout[-6_000:] + tried.stderr[-2_000:]
    assert "No issues found" in tried.stdout, tried.stdout[-6_000:]


def with_model(deployment: Deployment, model: str = MODEL) -> Deployment:
    """The same, whose definitions have a model of customers, asked when a prediction is read."""
    package = deployment.folder / "orders" / "__init__.py"
    package.write_text(package.read_text() + model)
    deployment.run("topics", "create").check_returncode()
    return deployment


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


def test_a_client_in_go_that_was_made_from_the_document_pushes_and_reads_features_and_predictions(
    deploy: Callable[..., Deployment], rng: random.Random, go_client: Path
) -> None:
    deployment = with_model(deploy(pushed=True))
    sent = orders.produce(
        deployment.bootstrap,
        deployment.topic,
        [{"at": orders.time(1), "customer": "a", "amount": 1.5, "number": 2**52}],
    )
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = until_healthy(deployment.service().start())

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(go_client), f"http://127.0.0.1:{service.port}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    amount, number = f"{orders.VIEW}:amount", f"{orders.VIEW}:number"
    assert ask("read", "", f"{amount},{number}", "customer", "a", "nobody").stdout.splitlines() == [
        f"a {amount} Float64 1.5 PRESENT",
        f"nobody {amount} Float64 null NOT_FOUND",
        f"a {number} Int64 4503599627370496 PRESENT",
        f"nobody {number} Int64 null NOT_FOUND",
    ]
    refused = ask("read", "", f"{orders.VIEW}:amuont", "customer", "a").stderr
    assert "has no feature 'amuont'; did you mean 'amount'?" in refused

    row = {"at": orders.time(2), "customer": "b", "amount": 2.5, "number": 7}
    status, token = ask("push", orders.VIEW, json.dumps(row)).stdout.split()
    assert status == "applied"
    read = ask("read", json.loads(token), amount, "customer", "b").stdout
    assert read == f"b {amount} Float64 2.5 PRESENT\n"
    said = ask("push", orders.VIEW, json.dumps({**row, "number": "seven"})).stdout.splitlines()
    assert said[0].startswith("0 decode")
    assert said[1] == "rejected null"
    assert "did you mean 'LastOrder'?" in ask("push", "LastOrdr", json.dumps(row)).stderr
    # An offset that the topic does not have yet is waited for in vain.
    place, _, offset = json.loads(token).partition(";")[0].rpartition("-")
    late = ask("read", f"{place}-{int(offset) + 100}", amount, "customer", "b").stderr
    assert "504" in late
    assert "100 of partition 0" in late

    assert ask("predict", "Worth", "customer", "a", "nobody", "b").stdout.splitlines() == [
        'a FRESH {"twice":3}',
        "nobody FAILED null",
        'b FRESH {"twice":5}',
    ]
    assert "did you mean 'Worth'?" in ask("predict", "Wort", "customer", "a").stderr
    assert service.stop() == worker.stop() == 0
