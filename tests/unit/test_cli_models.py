"""`stillwell check` and `doctor` on models: where their servers are, and whether those have what is defined."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwell.cli.main import run
from stillwell.local import free_port
from tests.predicted import OddServer, ThreadedServer

DEFINITIONS = """
from datetime import timedelta

from stillwell import (
    Col, Entity, Feature, Float32, Float64, Int64, Key, Model, OpenInference, Output, Timestamp, Topic, View, col,
    feature
)


class E(Entity, owner="ops", tags={"tier": "1"}):
    "What is delayed."

    id: Key[Int64]


class T(Topic, name="t", event_time="at"):
    at: Col[Timestamp] = col(description="when it left")
    id: Col[Int64]
    delay: Col[Float32]


class V(View, source=T, entity=E, keys={"id": T.id}, ttl=timedelta(days=1)):
    delay: Feature[Float32] = feature(T.delay)


def double(columns):
    return {"minutes": list(columns["delay"])}


class Delay(Model, entity=E, version="1", policy="cached", max_staleness=timedelta(minutes=1),
            inputs={"delay": V.delay}, server=OpenInference(url="env:DELAY_URL", model="delay")):
    minutes: Output[Float64]


class Here(Model, entity=E, version="1", policy="cached", max_staleness=timedelta(minutes=1),
           inputs={"delay": V.delay}, server=double):
    minutes: Output[Float32]
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Definitions with a model at a server and one in the process; no Kafka and no Redis anywhere."""
    package = f"models_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{package}.py").write_text(DEFINITIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {
        "PROJECT": "test",
        "DEFINITIONS": package,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OFFLINE_URL": str(tmp_path / "offline"),
    }.items():
        monkeypatch.setenv(f"STILLWELL_{name}", value)
    monkeypatch.delenv("DELAY_URL", raising=False)
    return monkeypatch


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A model server."""
    odd = OddServer()
    with ThreadedServer(odd):
        yield odd


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What doctor says of the model at a server."""
    assert run(["doctor", "--json"]) == 1  # there is no Kafka
    findings = {each["subject"]: each for each in json.loads(capsys.readouterr().out)}
    assert "model Here" not in findings
    finding: dict[str, Any] = findings["model Delay"]
    return finding


def test_check_says_as_json_what_definitions_say_to_people(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["about"]
    assert list(about) == ["E", "T", "V", "Delay", "Here"]
    assert about["E"] == {
        "owner": "ops",
        "tags": {"tier": "1"},
        "description": "What is delayed.",
        "fields": {},
    }
    assert about["T"] == {"owner": "", "tags": {}, "description": "", "fields": {"at": "when it left"}}


def test_check_tells_of_an_unset_variable_and_finds_nothing_wrong_for_it(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check"]) == 0
    said = capsys.readouterr()
    assert "2 models" in said.out
    assert "DELAY_URL is not set here. It says where the server of Delay is" in said.err
    assert run(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unset_variables"] == {"DELAY_URL": ["Delay"]}
    # Nobody is asked: that nothing is there is no concern of check's.
    environment.setenv("DELAY_URL", f"http://127.0.0.1:{free_port()}")
    assert run(["check"]) == 0
    assert "DELAY_URL" not in capsys.readouterr().err


def test_doctor_says_of_an_unset_variable_and_of_one_that_is_no_url_what_to_set(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = found(capsys)
    assert not finding["healthy"]
    assert "DELAY_URL is missing, which says where its server is, as http://host:port" in finding["fix"]
    environment.setenv("DELAY_URL", "127.0.0.1:8080")
    assert "DELAY_URL does not begin with http:// or https://" in found(capsys)["fix"]


def test_doctor_asks_the_server_as_a_worker_does_when_it_starts(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: OddServer
) -> None:
    environment.setenv("DELAY_URL", server.url)
    assert found(capsys)["healthy"]
    assert server.metadata
    server.metadata["inputs"][0]["datatype"] = "INT64"
    finding = found(capsys)
    assert not finding["healthy"]
    assert "does not have it as it is defined" in finding["found"]
    assert "INT64" in finding["fix"]
    assert "Mend the definition, or what the server runs" in finding["fix"]
    server.metadata = None
    assert "refused with 404" in found(capsys)["fix"]


def test_doctor_says_that_a_server_is_away_and_hides_its_password(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DELAY_URL", f"http://someone:hunter2@127.0.0.1:{free_port()}")
    finding = found(capsys)
    assert not finding["healthy"]
    assert "it cannot be reached" in finding["fix"]
    assert "whether DELAY_URL leads there" in finding["fix"]
    assert "hunter2" not in json.dumps(finding)
