"""What stands in docker-compose.yml and deploy/ is there: settings, commands, services, files, versions."""

import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement

from serving.processes import parent
from stillwell.cli.main import run
from stillwell.settings import Settings, variable

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
SCRAPED: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
PROVISIONING = ROOT / "deploy/grafana/provisioning"
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
each_of_ours = pytest.mark.parametrize("name", OURS)


def instructions(word: str) -> list[list[str]]:
    """The words behind each such instruction of the Dockerfile."""
    return [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith(f"{word} ")]


@pytest.fixture
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings as a service has them: every name is known, and every value allowed."""
    monkeypatch.chdir(tmp_path)
    for key, value in SERVICES[request.param]["environment"].items():
        monkeypatch.setenv(key, str(value))
    return Settings.load()


@each_of_ours
def test_every_variable_of_ours_is_a_setting(name: str) -> None:
    ours = {key for key in SERVICES[name]["environment"] if key.startswith("STILLWELL_")}
    assert ours
    assert ours <= set(map(variable, Settings.model_fields))


@each_of_ours
def test_every_command_of_ours_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SERVICES[name]["command"], "--help"]) == 0
    assert f"stillwell {' '.join(SERVICES[name]['command'])}" in capsys.readouterr().out


@pytest.mark.parametrize("settings", OURS, indirect=True)
def test_what_the_settings_point_at_is_a_service_that_listens_there(settings: Settings) -> None:
    host, _, port = settings.kafka_bootstrap.partition(":")
    assert f"://{host}:{port}," in f"{SERVICES['kafka']['environment']['KAFKA_ADVERTISED_LISTENERS']},"
    assert host == "kafka"
    redis = urlsplit(settings.redis_url.get_secret_value())
    assert (redis.hostname, redis.port) == ("redis", 6379)
    emulator = urlsplit(OURS["worker"]["environment"]["STORAGE_EMULATOR_HOST"])
    options = dict(zip(SERVICES["gcs"]["command"][::2], SERVICES["gcs"]["command"][1::2], strict=True))
    assert (emulator.scheme, emulator.hostname, str(emulator.port)) == (options["-scheme"], "gcs", options["-port"])
    assert options["-external-url"] == emulator.geturl()
    bucket = settings.offline_url.removeprefix("gs://").split("/")[0]
    assert SERVICES["gcs"]["volumes"] == [f"objects:{options['-filesystem-root']}/{bucket}"]


@pytest.mark.parametrize("settings", ["worker"], indirect=True)
def test_a_worker_is_shown_probed_and_given_time_to_drain(settings: Settings) -> None:
    worker = SERVICES["worker"]
    assert settings.web_host == "0.0.0.0"
    assert instructions("EXPOSE") == [[str(settings.web_port), str(settings.serve_port)]]
    assert worker["ports"][0].endswith(f":{settings.web_port}")
    assert f":{settings.web_port}/healthz" in worker["healthcheck"]["test"][-1]
    assert int(worker["stop_grace_period"].removesuffix("s")) > settings.drain_timeout.total_seconds()
    assert worker["deploy"]["replicas"] == 2


@pytest.mark.parametrize("settings", ["serve"], indirect=True)
def test_the_service_is_shown_probed_for_readiness_and_given_time_to_end(settings: Settings) -> None:
    service = SERVICES["serve"]
    assert settings.serve_host == "0.0.0.0"
    assert service["ports"] == [f"127.0.0.1:{settings.serve_port}:{settings.serve_port}"]
    assert f":{settings.serve_port}/readyz" in service["healthcheck"]["test"][-1]
    assert int(service["stop_grace_period"].removesuffix("s")) > parent._PATIENCE


@each_of_ours
def test_a_probe_of_ours_is_a_program_that_the_image_has_and_compiles(name: str) -> None:
    """It is Python's own: the slim image has neither curl nor wget."""
    if probe := SERVICES[name].get("healthcheck"):
        program, how, code = probe["test"][1:]
        assert (probe["test"][0], program, how) == ("CMD", "python", "-c")
        compile(code, name, "exec")


@pytest.mark.parametrize("settings", ["worker"], indirect=True)
def test_prometheus_asks_every_worker_and_service_and_reads_the_alarms(settings: Settings) -> None:
    asked = {
        name: each["port"]
        for job in SCRAPED["scrape_configs"]
        for each in job["dns_sd_configs"]
        for name in each["names"]
    }
    assert asked == {"worker": settings.web_port, "serve": settings.serve_port}
    assert all(each["type"] == "A" for job in SCRAPED["scrape_configs"] for each in job["dns_sd_configs"])
    assert [mounted("prometheus", file) for file in SCRAPED["rule_files"]] == [ROOT / "deploy/prometheus/rules.yml"]
    (config,) = (word.partition("=")[2] for word in SERVICES["prometheus"]["command"] if "--config.file" in word)
    assert mounted("prometheus", config) == ROOT / "deploy/prometheus/prometheus.yml"


def test_grafana_finds_prometheus_and_the_dashboard_and_lets_people_look() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    url = urlsplit(source["url"])
    assert SERVICES[str(url.hostname)]["ports"] == [f"127.0.0.1:{url.port}:{url.port}"]
    assert source["isDefault"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/stillwell.yml").read_text())["providers"]
    dashboards = mounted("grafana", provider["options"]["path"])
    environment = SERVICES["grafana"]["environment"]
    home = mounted("grafana", environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home in dashboards.iterdir()
    assert mounted("grafana", "/etc/grafana/provisioning") == PROVISIONING
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "${GRAFANA_ROLE:-Viewer}"


def mounted(name: str, path: str) -> Path:
    """What a service finds under a path: a file or folder of the repository, which it cannot change."""
    for volume in SERVICES[name]["volumes"]:
        here, there, *mode = volume.split(":")
        if here.startswith("./") and Path(path).is_relative_to(there):
            assert mode == ["ro"], volume
            found: Path = (ROOT / here / Path(path).relative_to(there)).resolve()
            assert found.exists(), found
            return found
    raise AssertionError(f"{name} has nothing at {path}")


@each_of_ours
def test_a_container_of_ours_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == "/tmp"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [user.split(":")[0] for (user,) in instructions("USER")] == ["10001"]


def test_redis_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_services_and_volumes_that_are_named_are_there() -> None:
    for service in SERVICES.values():
        for other, on in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert on["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
        sources = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {source for source in sources if not source.startswith("./")} <= COMPOSE["volumes"].keys()
        assert [source for source in sources if source.startswith("./") and not (ROOT / source).exists()] == []


def test_nothing_is_reachable_from_other_machines_and_images_are_of_one_version() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_the_image_is_made_and_runs_on_one_version_of_python_that_is_tested() -> None:
    ((made, *_), (run_on,)) = instructions("FROM")
    assert made == run_on
    version = re.fullmatch(r"python:(3\.(?:11|12)\.\d+)-slim-bookworm", run_on)
    assert version, run_on


def test_the_broker_is_the_version_of_the_embedded_stack() -> None:
    (jars,) = (ROOT / "stillwell/local").glob("kafka-*.jars")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{jars.stem.removeprefix('kafka-')}"


def test_the_image_copies_what_is_there_and_is_not_ignored_and_runs_our_command() -> None:
    assert all(service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"} for service in OURS.values())
    copied = [source for *sources, _ in instructions("COPY") if not sources[0].startswith("--") for source in sources]
    rooms = {name for name in ("stillwell", "streams", "sinks", "serving", "schemas") if (ROOT / name).is_dir()}
    assert rooms <= set(copied)
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), f".dockerignore keeps {source} out"
    assert instructions("ENTRYPOINT") == [['["stillwell"]']]
    assert "stillwell" in PYPROJECT["scripts"]


def pins(file: str) -> dict[str, str]:
    """Each locked requirement, by name and version, with its hashes."""
    return {pin.split(" ", 1)[0]: pin for pin in _pins((ROOT / file).read_text())}


def _pins(text: str) -> Iterator[str]:
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    return (" ".join(line.split()) for line in joined.splitlines() if line)


def test_the_image_has_what_a_worker_asks_for_in_the_versions_that_are_tested() -> None:
    locked, tested = pins("deploy/requirements.txt"), pins("requirements.txt")
    assert locked.items() <= tested.items(), "run scripts/lock"
    asked = [*PYPROJECT["dependencies"], *PYPROJECT["optional-dependencies"]["server"]]
    names = {Requirement(pin.split(" ", 1)[0]).name for pin in locked}
    assert {Requirement(each).name for each in asked} <= names
    assert "pytest" not in names
