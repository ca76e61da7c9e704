"""`stillwell check`, and what a worker checks before it reads a record."""

import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from stillwell.cli.main import run
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, prove, until_linked

EXAMPLE = {
    "about": "an order of a known customer",
    "timestamp": "2026-01-01T00:00:00Z",
    "value": {"at": "2026-01-01T00:00:00Z", "customer": "c1", "amount": 2.5, "number": 7},
    "rows": {"LastOrder": [{"customer": "c1", "event_timestamp": "2026-01-01T00:00:00Z", "amount": 2.5, "number": 7}]},
}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Definitions with one golden example, and no service anywhere; gives the example's file."""
    orders.write_definitions(tmp_path, "orders.placed")
    package = f"orders_{uuid.uuid4().hex[:8]}"
    (tmp_path / "orders").rename(tmp_path / package)
    file = tmp_path / package / "golden" / "orders.placed" / "known-customer.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(EXAMPLE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STILLWELL_PROJECT", "test")
    monkeypatch.setenv("STILLWELL_DEFINITIONS", package)
    return file


def test_examples_that_agree_are_counted(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 0
    assert "1 example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": {}}, "expects of LastOrder no rows"),
        ({"rejects": [{"reason": "decode"}]}, "expects to be refused"),
        ({"value": {"at": "never"}, "rows": {}}, "is refused for all views"),
    ],
)
def test_an_example_of_which_something_else_becomes_is_named(
    change: dict[str, object], says: str, example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example.write_text(json.dumps({**EXAMPLE, **change}))
    assert run(["check"]) == 1
    printed = capsys.readouterr().err
    assert "known-customer.json" in printed
    assert says in printed
    assert run(["check", "--json"]) == 1


def test_a_worker_refuses_a_view_that_has_changed_without_a_new_version(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """It ends before it reads a record, with the mistake and its fix as its last line, and exit code 1, as `check`
    does for wrong definitions. Changed back, or given a new version, it goes on. A changed source alone is a warning.
    """
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    first = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert first.stop() == 0

    file = deployment.folder / "orders" / "__init__.py"
    original = file.read_text()
    file.write_text(original.replace("feature(Order.amount)", "feature(Order.amount * 2)"))
    refused = deployment.start_worker()
    assert refused.running.wait(60) == 1
    *_, last = log(refused).strip().splitlines()
    assert "LastOrder" in last
    assert "raise version=2" in last

    file.write_text(original.replace("Order.amount >= 0", "0 <= Order.amount"))
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=100))
    again = deployment.start_worker().until_ready()
    assert "the source has changed since it was registered" in log(again)
    until_linked(deployment, sent)
    assert again.stop() == 0
    prove(deployment, sent)
