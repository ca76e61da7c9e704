"""No credentials yet, as in a pod's first seconds: told at once, and over as soon as there are some."""

import json
from pathlib import Path

import fsspec.config
import pytest

from stillwell.cli import doctor
from stillwell.errors import StoreUnavailable
from stillwell.settings import Settings
from stillwell.storage import GcsStore, open_store


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where credentials are looked for, and nowhere else: there is nothing there yet."""
    path = tmp_path / "credentials.json"
    monkeypatch.setitem(fsspec.config.conf, "gcs", {})
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else gcsfs asks the metadata server, for 15 s
    return path


def a_user() -> str:
    """Credentials that are used for the first time with the first request."""
    user = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    return json.dumps(user)


def test_there_is_no_store_without_credentials_and_one_as_soon_as_there_are_some(credentials: Path) -> None:
    """Without credentials every call is refused for ever, and fsspec keeps what it has made once."""
    with pytest.raises(StoreUnavailable, match=r"gs://bucket/folder: Google gives no credentials.*service account"):
        open_store("gs://bucket/folder")
    credentials.write_text(a_user())
    assert isinstance(open_store("gs://bucket/folder"), GcsStore)


def test_credentials_that_cannot_be_read_are_told_of(credentials: Path) -> None:
    """A secret that is not mounted may be an empty folder."""
    credentials.mkdir()
    with pytest.raises(StoreUnavailable, match=r"no credentials: IsADirectoryError"):
        open_store("gs://bucket/folder")


def test_an_emulator_is_asked_without_credentials_if_one_says_so(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "gcs", {"token": "anon"})
    assert isinstance(open_store("gs://bucket/folder"), GcsStore)


def test_doctor_says_that_there_are_no_credentials(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PROJECT": "test",
        "DEFINITIONS": "unused",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "OFFLINE_URL": "gs://bucket",
    }.items():
        monkeypatch.setenv(f"STILLWELL_{name}", value)
    store, finding = doctor._offline(Settings.load())
    assert store is None
    assert finding.found.startswith("gs://bucket/test/prod cannot be written")
    assert "Google gives no credentials" in finding.found
