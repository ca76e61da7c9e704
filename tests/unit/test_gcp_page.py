"""What the page on Google Cloud says of Stillwell is so. What it says of Google Cloud nobody here can try."""

import re
from pathlib import Path

import pytest

from serving.processes import parent
from stillwell.settings import Settings
from tests.unit.test_format_pages import table

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/howto/run-on-gcp.md").read_text()
NUMBERS = {row[0].strip("`"): row[1:] for row in table(PAGE, "## Where it runs: GKE")}
KAFKA = {row[0].strip("`"): row[1].strip("`") for row in table(PAGE, "works by a key")}


def test_no_command_that_is_used_is_one_that_memorystore_blocks() -> None:
    layout = (ROOT / "docs/reference/redis-layout.md").read_text()
    used = set(re.findall(r"\+([a-z]+)", layout.partition("ACL SETUSER")[2].partition("```")[0]))
    (told,) = re.findall(r"`CONFIG` is \[blocked\].*?none of them", PAGE, re.DOTALL)
    blocked = {name.lower() for name in re.findall(r"`([A-Z]+)`", told)}
    assert len(used) > 10
    assert blocked == {"config", "acl", "client", "cluster", "command", "object"}
    assert used & blocked == set()


def test_settings_of_the_page_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    redis, offline = (re.search(rf"`STILLWELL_{name}=([^`]+)`", PAGE) for name in ("REDIS_URL", "OFFLINE_URL"))
    assert redis
    assert offline
    told = {**KAFKA, "STILLWELL_REDIS_URL": redis[1].replace("PORT", "6378"), "STILLWELL_OFFLINE_URL": offline[1]}
    for name, value in {**told, "STILLWELL_PROJECT": "p", "STILLWELL_DEFINITIONS": "d"}.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.kafka_security_protocol, settings.kafka_sasl_mechanism) == ("SASL_SSL", "PLAIN")
    assert settings.redis_url.get_secret_value().startswith("rediss://")


def test_ports_and_patience_are_those_of_the_settings() -> None:
    defaults = Settings.model_fields
    ports = [re.findall(r"\d+", cell)[0] for cell in NUMBERS["port"]]
    assert ports == [str(defaults[name].default) for name in ("web_port", "serve_port")]
    worker, service = map(int, NUMBERS["terminationGracePeriodSeconds"])
    assert worker > defaults["drain_timeout"].default.total_seconds()
    (sleep,) = re.findall(r"\d+", NUMBERS["preStop"][1])
    assert service >= int(sleep) + parent._PATIENCE
    assert (NUMBERS["livenessProbe"], NUMBERS["readinessProbe"]) == (["`/healthz`"] * 2, ["`/readyz`"] * 2)


def test_the_page_gives_a_right_to_each_request_that_the_store_makes() -> None:
    """One method of the store's for each right; whoever adds a method has to say what it may."""
    store = (ROOT / "stillwell/storage.py").read_text().partition("class GcsStore")[2]
    methods = set(re.findall(r"^    def ([a-z]\w+)", store, re.MULTILINE)) - {"half_written"}
    assert methods == {"create", "read", "list", "delete"}
    rights = {
        right
        for row in table(PAGE, "`STILLWELL_OFFLINE_URL=gs")
        for right in re.findall(r"`(storage\.[a-z.]+)`", row[0])
    }
    assert rights == {f"storage.objects.{name}" for name in ("create", "get", "list", "delete")}
