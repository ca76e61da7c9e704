"""`stillwell init`: a project that is right as it stands, written whole or not at all."""

import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from stillwell.cli.main import run
from stillwell.cli.new_files import write_new_files
from stillwell.settings import Settings, variable
from tests.full_disk import fill

FILES = {
    ".gitignore",
    "README.md",
    "docker-compose.yml",
    "events/orders.ndjson",
    "features/__init__.py",
    "features/golden/shop.orders/without-country.json",
    "features/orders.py",
    "pytest.ini",
    "stillwell.toml",
    "tests/test_orders.py",
}


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """One that was just written, as the working directory."""
    monkeypatch.chdir(tmp_path)
    assert run(["init", "my Shop"]) == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path / "my Shop")
    return tmp_path / "my Shop"


def _stillwell(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from stillwell.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_all_is_written_and_what_comes_next_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "shop"]) == 0
    said = capsys.readouterr().out
    assert _files(tmp_path / "shop") == FILES
    assert set(said.partition("\n\n")[0].splitlines()) == {f"shop/{name}" for name in FILES}
    assert "  cd shop\n  stillwell check\n" in said


def test_the_project_is_named_after_its_folder_or_as_it_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'project = "my-shop"' in (project / "stillwell.toml").read_text()
    assert "PROJECT" not in "".join((project / name).read_text() for name in FILES)
    assert run(["init", "other", "--project", "shop_2"]) == 0
    assert 'project = "shop_2"' in (project / "other/stillwell.toml").read_text()
    assert run(["init", "third", "--project", "Shop!"]) == 2
    assert "--project is 'Shop!'; use small letters" in capsys.readouterr().err
    assert not (project / "third").exists()


def test_its_definitions_and_golden_example_are_right(project: Path) -> None:
    done = _stillwell(project, "check")
    assert done.stdout == "features is right: 1 entity, 1 topic, 1 view, 1 example.\n", done.stderr


def test_of_its_events_four_cannot_be_used_and_each_says_why(project: Path) -> None:
    done = _stillwell(project, "try", "LastOrder", "--from", "events/orders.ndjson", "--limit", "100", "--json")
    tried = json.loads(done.stdout)
    assert tried["records"] == 41
    assert len(tried["rows"]) == 37
    assert sorted(each["reason"] for each in tried["rejects"]) == ["decode", "decode", "decode", "expectation"]


def test_its_own_tests_pass(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("name", ["worker", "service", "topics"])
def test_its_compose_file_runs_commands_that_there_are_under_settings_that_hold(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    services: Mapping[str, Any] = yaml.safe_load((project / "docker-compose.yml").read_text())["services"]
    service = services[name]
    assert run([*service["command"], "--help"]) == 0
    ours = {key: value for key, value in service["environment"].items() if key.startswith("STILLWELL_")}
    assert ours.keys() <= set(map(variable, Settings.model_fields))
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    settings = Settings.load()
    assert settings.kafka_bootstrap in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert settings.offline_url == "gs://stillwell"
    for mounted in service["volumes"]:
        assert (project / mounted.split(":")[0]).exists()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


def test_its_compose_file_stands_on_what_ours_does(project: Path) -> None:
    """Versions, the broker's listeners and the double's options: one of them was looked at, the other follows."""
    ours = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]
    theirs = yaml.safe_load((project / "docker-compose.yml").read_text())["services"]
    for name in ("kafka", "redis", "gcs"):
        assert theirs[name] == ours[name]


def test_nothing_is_overwritten_and_nothing_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stillwell.toml").write_text("mine")
    (tmp_path / "pytest.ini").write_text("mine")
    assert run(["init"]) == 2
    assert "pytest.ini, stillwell.toml are there already; nothing was written" in capsys.readouterr().err
    assert _files(tmp_path) == {"stillwell.toml", "pytest.ini"}


def test_a_disk_that_takes_no_more_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of it is written when it fails."""
    monkeypatch.chdir(tmp_path)
    fill(monkeypatch, "stillwell.toml")
    assert run(["init", "shop/deep"]) == 2
    said = capsys.readouterr().err
    assert "stillwell.toml cannot be written: No space left on device; nothing was left behind" in said
    assert list(tmp_path.iterdir()) == []


def test_what_another_wrote_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    """It is looked for before all files; then one comes."""
    (tmp_path / "theirs").write_text("theirs")
    with pytest.raises(click.UsageError, match="theirs cannot be written: File exists; nothing was left behind"):
        write_new_files({tmp_path / "ours": "ours", tmp_path / "theirs": "ours"})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("theirs", "theirs")]


def test_a_folder_on_a_disk_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a disk refuses to have files taken away too, also those that are not there."""

    opened = Path.open

    def refuse(path: Path, mode: str = "r", **words: Any) -> Any:
        if mode == "r":
            return opened(path, **words)
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", lambda path, **_: refuse(path, "w"))
    assert run(["init"]) == 2
    assert "cannot be written: Read-only file system; nothing was left behind" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", str(tmp_path / "file/shop")]) == 2
    assert "cannot be written: Not a directory; nothing was left behind" in capsys.readouterr().err
