"""The command line: what it prints, what its exit codes say, and that it is quick to answer."""

import json
import os
import signal
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import redis

from stillwell.cli.main import run
from stillwell.definitions.loading import load_definitions
from stillwell.layout.chain import PartitionId
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import DetachedStack, KafkaBroker, LocalStack, RedisServer
from stillwell.registry import register
from stillwell.settings import Settings
from stillwell.storage import LocalStore
from tests.services import Proxy

ROOT = Path(__file__).parent.parent.parent
BAD_DEFINITIONS = "from stillwell import Entity, Key, String\n\n\nclass Airport(Entity):\n    airprot: Key[Strin]\n"


@pytest.fixture
def deployment(
    stack: LocalStack, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> pytest.MonkeyPatch:
    """Settings in the environment for a deployment that has all it needs; gives what changes them."""
    folder = tmp_path / "deployment"
    # A name of its own: Python would take a package of the same name that another test has imported.
    name_of_package = f"flights_{uuid.uuid4().hex[:8]}"
    package = folder / name_of_package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from datetime import timedelta\n"
        "from stillwell import Col, Entity, Feature, Key, String, Timestamp, Topic, View, feature\n"
        "class Airport(Entity):\n    airport: Key[String]\n"
        f"class Departure(Topic, name={topic('departures')!r}, event_time='departed_at'):\n"
        "    departed_at: Col[Timestamp]\n    origin: Col[String]\n"
        "class AirportDepartures(\n"
        "    View, source=Departure, entity=Airport, keys={'airport': Departure.origin}, ttl=timedelta(days=7)\n"
        "):\n"
        "    departed_at: Feature[Timestamp] = feature(Departure.departed_at)\n"
    )
    monkeypatch.chdir(folder)
    for name, value in {
        "PROJECT": "flights",
        "DEFINITIONS": name_of_package,
        "KAFKA_BOOTSTRAP": stack.bootstrap,
        "REDIS_URL": stack.redis_url,
        "OFFLINE_URL": str(tmp_path / "offline"),
        "DEAD_LETTER_TOPIC": topic("dead-letters"),
        "PUSH": "false",
    }.items():
        monkeypatch.setenv(f"STILLWELL_{name}", value)
    return monkeypatch


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """What `doctor --json` prints, by subject."""
    return {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_help_needs_none_of_the_libraries_that_commands_need() -> None:
    program = (
        "import sys, types\n"
        # The front door is left out: what it imports is its own affair.
        f"door = types.ModuleType('stillwell'); door.__path__ = [{str(ROOT / 'stillwell')!r}]\n"
        "sys.modules['stillwell'] = door\n"
        "from stillwell.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "heavy = {'polars', 'pyarrow', 'numpy', 'pydantic', 'redis', 'aiokafka', 'faust', 'gcsfs', 'structlog', 'rich',"
        " 'jgo', 'psutil', 'asyncio', 'streams', 'sinks'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_command_whose_library_is_not_installed_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    # None in sys.modules is how Python itself notes that a module is not to be had.
    with pytest.MonkeyPatch.context() as missing:
        for name in [name for name in sys.modules if name.startswith("stillwell.local")]:
            missing.delitem(sys.modules, name)
        missing.setitem(sys.modules, "psutil", None)
        assert run(["local", "status", "--json"]) == 2
    said = capsys.readouterr()
    assert "psutil, which is not installed. Run: pip install 'stillwell[local]'" in said.err
    error = json.loads(said.out)["error"]
    assert error["kind"] == "ModuleNotFoundError"
    assert error["message"] in said.err


def test_the_entry_point_is_the_command() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("stillwell"), "version", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout)["python"].startswith("3.")


def test_ctrl_c_while_the_command_line_is_imported_is_told_in_one_line(tmp_path: Path) -> None:
    """It comes when click is imported, of which this one is found first."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    project = Path(__file__).parent.parent.parent / "pyproject.toml"
    module, _, function = tomllib.loads(project.read_text())["project"]["scripts"]["stillwell"].partition(":")
    command = [sys.executable, "-c", f"from {module} import {function}; {function}()", "version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stillwell: interrupted\n")


def test_a_disk_that_has_no_room_for_what_is_printed_is_told_in_one_line() -> None:
    command = (Path(sys.executable).with_name("stillwell"), "version", "--json")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "stillwell: what this command prints cannot be written: No space left on device\n"


def test_an_unknown_command_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chck"]) == 2
    assert "No such command 'chck'" in capsys.readouterr().err


def test_wrong_settings_are_a_wrong_call_in_one_sentence(
    deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setenv("STILLWELL_WINDOW_ROW", "7")
    assert run(["check"]) == 2
    assert capsys.readouterr().err.startswith("stillwell: STILLWELL_WINDOW_ROW, set in the environment, is no setting")


@pytest.mark.parametrize("how", ["--traceback", "STILLWELL_LOG_LEVEL"])
def test_a_traceback_is_shown_to_who_asks_for_it(
    how: str, deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setenv("STILLWELL_DEFINITIONS", "no_such_package")
    assert run(["check"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    if how == "--traceback":
        assert run(["--traceback", "check"]) == 1
    else:
        deployment.setenv(how, "debug")
        assert run(["check"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_check_counts_what_is_right(deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "OFFLINE_URL"):
        deployment.delenv(f"STILLWELL_{name}")
    assert run(["check"]) == 0
    assert "is right: 1 entity, 1 topic, 1 view, 0 examples" in capsys.readouterr().out
    assert run(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["views"] == {"AirportDepartures": 1}


def test_check_finds_what_is_wrong(
    deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deployment" / "flights_misspelt.py").write_text(BAD_DEFINITIONS)
    deployment.setenv("STILLWELL_DEFINITIONS", "flights_misspelt")
    assert run(["check"]) == 1
    assert "flights_misspelt.py" in capsys.readouterr().err


def test_doctor_finds_a_whole_deployment_healthy(
    deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.count("ok ") == 6
    assert run(["doctor", "--json"]) == 0
    assert {finding["healthy"] for finding in findings(capsys).values()} == {True}
    assert [path for path in (tmp_path / "offline").rglob("*") if path.is_file()] == []


def test_doctor_names_the_fix_for_everything_that_is_wrong(
    deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setenv("STILLWELL_DEFINITIONS", "no_such_package")
    deployment.setenv("STILLWELL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    deployment.setenv("STILLWELL_REDIS_URL", "redis://worker:hunter2@127.0.0.1:1/0")
    deployment.setenv("STILLWELL_OFFLINE_URL", "/proc/no-such-folder")
    assert run(["doctor", "--json"]) == 1
    printed = capsys.readouterr().out
    assert "hunter2" not in printed
    found = {finding["subject"]: finding for finding in json.loads(printed)}
    assert {subject: finding["healthy"] for subject, finding in found.items()} == {
        "settings": True,
        "definitions": False,
        "Kafka": False,
        "Redis": False,
        "offline store": False,
        "registry": False,
    }
    assert "STILLWELL_KAFKA_BOOTSTRAP" in found["Kafka"]["fix"]
    assert "STILLWELL_REDIS_URL" in found["Redis"]["fix"]
    assert "permission" in found["offline store"]["fix"]


def test_doctor_reports_settings_alone_when_they_cannot_be_read(
    deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.delenv("STILLWELL_PROJECT")
    assert run(["doctor", "--json"]) == 1
    assert "STILLWELL_PROJECT is missing" in str(findings(capsys)["settings"]["fix"])


def test_doctor_lists_topics_that_are_missing(
    deployment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setenv("STILLWELL_DEAD_LETTER_TOPIC", "never-created")
    assert run(["doctor", "--json"]) == 1
    assert findings(capsys)["Kafka"]["fix"] == "stillwell topics create"


def test_doctor_refuses_a_redis_that_evicts_and_a_replica(
    deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RedisServer(tmp_path / "redis", config={"maxmemory-policy": "volatile-lru", "requirepass": "hunter2"})
    server.start()
    deployment.setenv("STILLWELL_REDIS_URL", server.url)
    assert run(["doctor", "--json"]) == 1
    assert "user and password" in str(findings(capsys)["Redis"]["fix"])
    deployment.setenv("STILLWELL_REDIS_URL", f"redis://:hunter2@127.0.0.1:{server.port}/0")
    assert run(["doctor", "--json"]) == 1
    assert "noeviction" in str(findings(capsys)["Redis"]["fix"])
    with redis.Redis(port=server.port, password="hunter2") as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.replicaof("127.0.0.1", "1")
    assert run(["doctor", "--json"]) == 1
    assert "a replica takes no writes" in str(findings(capsys)["Redis"]["fix"])
    server.stop()


def test_doctor_tells_a_redis_that_has_forgotten_from_a_new_one(
    deployment: pytest.MonkeyPatch, tmp_path: Path, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether anything is at rest tells them apart; where there is an epoch, it is ready."""
    deployment.setenv("STILLWELL_NAMESPACE", namespace)
    assert run(["doctor", "--json"]) == 0
    assert "empty: the first worker makes it ready" in str(findings(capsys)["Redis"]["found"])

    linked = LocalStore(f"{tmp_path}/offline/flights/{namespace}")
    linked.create(PartitionId("t", 1, 0).link_path(0), b"a link")
    assert run(["doctor", "--json"]) == 1
    found = findings(capsys)["Redis"]
    assert "not ready" in str(found["found"])
    assert "`stillwell rebuild`" in str(found["fix"])

    settings = Settings.load()
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.set(RedisKeys(settings.project, namespace).ready, "an epoch")
        assert run(["doctor", "--json"]) == 0
        assert str(findings(capsys)["Redis"]["found"]).endswith(", ready")
        assert client.keys(RedisKeys(settings.project, namespace).prefix + b"*") == [
            RedisKeys(settings.project, namespace).ready
        ]


@pytest.mark.parametrize("lacking", ["-@scripting", "-setrange"])
def test_doctor_says_that_a_redis_does_not_let_us_run_scripts_or_what_they_use(
    lacking: str, deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">hunter2", "~*", "+@all", lacking)
    deployment.setenv("STILLWELL_REDIS_URL", f"redis://worker:hunter2@127.0.0.1:{server.port}/0")
    assert run(["doctor", "--json"]) == 1
    assert "+evalsha" in str(found := findings(capsys)["Redis"]["fix"])
    assert "+setrange" in str(found)
    server.stop()


def test_doctor_says_whether_the_registry_would_refuse_a_worker(
    deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And changes nothing there."""
    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    (view,) = definitions.views
    store = LocalStore(settings.offline_root)
    other = view.model_copy(update={"ttl": timedelta(days=8)})
    register(store, definitions.model_copy(update={"views": (other,)}), settings.redis_grace)
    before = store.list("_registry/")
    assert run(["doctor", "--json"]) == 1
    found = findings(capsys)["registry"]
    assert found["found"] == "a worker would be refused"
    assert "AirportDepartures has ttl=7 days, but version 1" in str(found["fix"])
    assert store.list("_registry/") == before

    store.delete(before[0])
    other = view.model_copy(update={"source_digest": "else"})
    register(store, definitions.model_copy(update={"views": (other,)}), settings.redis_grace)
    assert run(["doctor", "--json"]) == 0
    assert "the source has changed" in str(findings(capsys)["registry"]["advice"])


def test_doctor_advises_against_brokers_that_create_topics_by_themselves(
    deployment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is Kafka's default, and no error. Asking creates none."""
    broker = KafkaBroker(tmp_path / "kafka", properties={"auto.create.topics.enable": True})
    broker.start()
    deployment.setenv("STILLWELL_KAFKA_BOOTSTRAP", broker.bootstrap)
    for _ in range(2):
        assert run(["doctor", "--json"]) == 1
        found = findings(capsys)["Kafka"]
        assert found["fix"] == "stillwell topics create"
        assert "auto.create.topics.enable=true" in str(found["advice"])
    assert run(["topics", "create", "--partitions", "1"]) == 0
    capsys.readouterr()
    assert run(["doctor"]) == 0
    assert "auto.create.topics.enable=true" in capsys.readouterr().out
    broker.stop()


def test_doctor_does_not_wait_for_ever_for_a_kafka_that_swallows_connections(
    deployment: pytest.MonkeyPatch, kafka_proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setattr("stillwell.cli.doctor._KAFKA_TIMEOUT_S", 0.5)
    deployment.setenv("STILLWELL_KAFKA_BOOTSTRAP", kafka_proxy.address)
    with kafka_proxy.toxic("timeout", timeout=0):
        assert run(["doctor", "--json"]) == 1
    assert "no answer within 0.5 s" in str(findings(capsys)["Kafka"]["found"])


def test_doctor_proves_create_only_on_google_cloud_storage(
    deployment: pytest.MonkeyPatch, gcs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.setenv("STILLWELL_OFFLINE_URL", gcs)
    assert run(["doctor", "--json"]) == 0
    assert "create-only" in str(findings(capsys)["offline store"]["found"])


@pytest.fixture
def local_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where `stillwell local` keeps what it runs for this test, which ends with it."""
    folder = tmp_path / "local"
    monkeypatch.setenv("STILLWELL_LOCAL", str(folder))
    yield folder
    DetachedStack(folder).down()


def test_local_up_is_idempotent_and_down_ends_all(local_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["local", "status"]) == 1
    capsys.readouterr()

    assert run(["local", "up", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["local", "status", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    with redis.Redis.from_url(first["STILLWELL_REDIS_URL"]) as client:
        client.set("kept", "yes")

    os.kill(parts[0]["pid"], signal.SIGKILL)
    psutil.Process(parts[0]["pid"]).wait(10)
    assert run(["local", "status"]) == 1
    assert "Redis does not run" in capsys.readouterr().out
    assert run(["local", "up"]) == 0
    exports = capsys.readouterr().out.splitlines()
    assert exports == [f"export {name}={value}" for name, value in first.items()]
    with redis.Redis.from_url(first["STILLWELL_REDIS_URL"], decode_responses=True) as client:
        assert client.get("kept") == "yes"

    assert run(["local", "down"]) == 0
    assert run(["local", "down", "--wipe"]) == 0
    assert not psutil.pid_exists(parts[1]["pid"])
    assert [path.name for path in local_folder.iterdir()] == ["lock"]
