"""What goes wrong in the first hour: a clear message, soon, and nothing left behind."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stillwell.local import free_port
from tests.developer import Developer
from tests.waiting import eventually

NOWHERE = "/proc/nowhere/state"
"""A folder that nobody can make, whoever they are."""


def _child(process: int, word: str) -> list[psutil.Process]:
    """The children of a process whose command line holds a word."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        try:
            if any(word in part for part in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("at", ["redis-server", "kafka.Kafka", "check", "--tell"])
def test_ctrl_c_at_any_stage_of_dev_leaves_nothing(developer: Developer, at: str) -> None:
    """When Redis comes up, then Kafka, then while the definitions are checked, then while the worker starts."""
    process = developer.start()
    eventually(lambda: _child(process.pid, at), within_s=60, what=f"{at} in:\n{developer.shown}")
    started = psutil.Process(process.pid).children(recursive=True)
    assert developer.end() in (0, 130)
    eventually(lambda: not any(map(_runs, started)), within_s=10, what="the end of what was started")
    assert developer.left == []
    assert "Traceback" not in developer.shown


@pytest.mark.parametrize("at", ["redis-server", "StorageTool", "kafka.Kafka"])
def test_ctrl_c_while_the_stack_comes_up_leaves_no_server(developer: Developer, at: str) -> None:
    process = developer.start(command="local up")
    eventually(lambda: _child(process.pid, at), within_s=60, what=f"{at} in:\n{developer.shown}")
    started = psutil.Process(process.pid).children(recursive=True)
    assert developer.end() == 130
    eventually(lambda: not any(map(_runs, started)), within_s=10, what="the end of what was started")
    assert developer.shown.endswith("stillwell: interrupted\n")


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_while_a_file_is_produced_says_how_much_kafka_has(developer: Developer, bootstrap: str) -> None:
    """What was typed so far has arrived; a pipe that stays open is not waited for."""
    pipe = developer.folder / "pipe"
    os.mkfifo(pipe)
    environment = {"STILLWELL_KAFKA_BOOTSTRAP": bootstrap}
    topic = f"typed-{time.time_ns()}"
    developer.start(topic, str(pipe), "--create", command="produce", kafka_bootstrap=bootstrap)
    with pipe.open("wb") as typed:
        typed.write(b'{"a": 1}\n{"a": 2}\n')
        typed.flush()

        def arrived() -> bool:
            tried = developer.run("try", "LastOrder", "--from", topic, "--json", environment=environment)
            return '"records": 2' in tried.stdout

        eventually(arrived, within_s=30, what="both lines in Kafka")
        assert developer.end() == 130
    assert f"2 records written to {topic}" in developer.shown


@pytest.mark.parametrize("command", ["local up", "dev"])
def test_a_state_folder_that_cannot_be_written_is_named_with_its_variable(developer: Developer, command: str) -> None:
    environment = {"STILLWELL_LOCAL": NOWHERE}
    done = developer.run(*command.split(), environment=environment)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Name a folder that can be in STILLWELL_LOCAL" in done.stderr
    assert "Traceback" not in done.stderr
    assert developer.left == []


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(developer: Developer) -> None:
    done = developer.run("dev", environment={"STILLWELL_CACHE": NOWHERE})
    assert done.returncode == 1
    assert "Set STILLWELL_CACHE to a folder that can" in done.stderr
    assert developer.left == []


def test_a_draft_that_cannot_be_written_says_so(developer: Developer, bootstrap: str) -> None:
    topic = f"infer-{time.time_ns()}"
    environment = {"STILLWELL_KAFKA_BOOTSTRAP": bootstrap}
    produced = developer.run("produce", topic, "events/orders.ndjson", "--create", environment=environment)
    produced.check_returncode()
    done = developer.run("topics", "infer", topic, "--output", f"{NOWHERE}/orders.py", environment=environment)
    assert done.returncode == 2
    assert f"{NOWHERE}/orders.py cannot be written" in done.stderr
    there = developer.run("topics", "infer", topic, "--output", "features/orders.py", environment=environment)
    assert there.returncode == 2
    assert "features/orders.py is there already" in there.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["try", "LastOrder"],
        ["produce", "shop.orders", "events/orders.ndjson"],
        ["topics", "infer", "shop.orders"],
        ["topics", "list"],
        ["topics", "create"],
        ["dlq", "list"],
        ["dev"],
    ],
)
def test_a_broker_that_is_not_there_is_told_in_one_line(
    developer: Developer, redis_url: str, tmp_path: Path, arguments: list[str]
) -> None:
    environment = {
        "STILLWELL_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "STILLWELL_REDIS_URL": redis_url,
        "STILLWELL_OFFLINE_URL": str(tmp_path / "offline"),
    }
    began = time.monotonic()
    done = developer.run(*arguments, environment=environment)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()
    assert said[-1].startswith("stillwell: Kafka")
    assert "127.0.0.1" in said[-1]
    assert "STILLWELL_KAFKA_BOOTSTRAP" in said[-1]
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 30
    assert developer.left == []


@pytest.fixture
def wrong_bucket(gcs: str, bootstrap: str, redis_url: str) -> dict[str, str]:
    """Settings under which all is there but the bucket."""
    return {
        "STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"],
        "FSSPEC_GCS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "STILLWELL_KAFKA_BOOTSTRAP": bootstrap,
        "STILLWELL_REDIS_URL": redis_url,
        "STILLWELL_OFFLINE_URL": f"{gcs}-that-nobody-made",
    }


@pytest.mark.parametrize("command", ["doctor", "verify", "sweep"])
def test_a_bucket_that_is_not_there_is_told(developer: Developer, wrong_bucket: dict[str, str], command: str) -> None:
    done = developer.run(command, environment=wrong_bucket)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert wrong_bucket["STILLWELL_OFFLINE_URL"] in said
    assert "Traceback" not in said


def test_a_worker_without_its_bucket_says_what_it_waits_for(
    developer: Developer, wrong_bucket: dict[str, str], topic: Callable[..., str]
) -> None:
    developer.edit("features/orders.py", '"shop.orders"', f'"{topic("orders")}"')
    shutil.rmtree(developer.folder / "features/golden")
    settings = {**wrong_bucket, "STILLWELL_PROJECT": f"p{time.time_ns()}", "STILLWELL_WEB_PORT": str(free_port())}
    developer.run("topics", "create", environment=settings).check_returncode()
    developer.start(command="worker", environment=settings)
    developer.until(f"waits_for='the offline store at {wrong_bucket['STILLWELL_OFFLINE_URL']}")
    assert developer.end() == 0
