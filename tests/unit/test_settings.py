"""Settings: where they come from, what is refused, and that no secret is shown."""

import datetime
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
from redis.asyncio.connection import parse_url

from stillwell import settings as module
from stillwell.errors import SettingsError
from stillwell.redaction import hide_password
from stillwell.settings import NOT_SETTINGS, ProjectSettings, Settings, spelled, variable

SCRIPTS = Path(__file__).parents[2] / "scripts"

MINIMUM = {
    "STILLWELL_PROJECT": "flights",
    "STILLWELL_DEFINITIONS": "schemas.flights",
    "STILLWELL_KAFKA_BOOTSTRAP": "localhost:9092",
    "STILLWELL_REDIS_URL": "redis://localhost:6379/0",
    "STILLWELL_OFFLINE_URL": "gs://bucket/features/",
}


@pytest.fixture(autouse=True)
def minimum(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory, and an environment that sets what must be set."""
    monkeypatch.chdir(tmp_path)
    for name, value in MINIMUM.items():
        monkeypatch.setenv(name, value)


def refused(kind: type[ProjectSettings] = Settings) -> str:
    """The message of the SettingsError that loading raises."""
    with pytest.raises(SettingsError) as error:
        kind.load()
    return str(error.value)


def test_five_settings_are_enough_and_the_rest_follows_from_them() -> None:
    settings = Settings.load()
    assert settings.namespace == "prod"
    assert settings.kafka_group == "flights.prod"
    assert settings.dead_letter_topic == "flights.prod.dead-letters"
    assert settings.offline_url == "gs://bucket/features"
    assert settings.offline_root == "gs://bucket/features/flights/prod"
    assert settings.window_age == datetime.timedelta(seconds=30)
    assert settings.window_bytes == 32 * 1024 * 1024


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stillwell.toml").write_text('namespace = "file"\nwindow_age = "1m"\nweb_port = 7000\n')
    monkeypatch.setenv("STILLWELL_NAMESPACE", "environment")
    settings = Settings.load()
    assert settings.namespace == "environment"
    assert settings.window_age == datetime.timedelta(minutes=1)
    assert settings.web_port == 7000


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWELL_NAMESPACE", "")
    assert Settings.load().namespace == "prod"


def test_another_file_can_be_named_and_must_then_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILLWELL_CONFIG", str(tmp_path / "other.toml"))
    assert "other.toml, but there is no such file" in refused()
    (tmp_path / "other.toml").write_text('namespace = "other"')
    assert Settings.load().namespace == "other"


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "stillwell.toml").write_text("namespace: prod")
    assert "stillwell.toml must be TOML" in refused()


@pytest.mark.parametrize("kind", [Settings, ProjectSettings])
def test_an_unknown_name_is_refused_wherever_it_stands(
    kind: type[ProjectSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLWELL_WINDOW_ROW", "7")
    (tmp_path / "stillwell.toml").write_text('kafka_bootstap = "x:1"')
    message = refused(kind)
    assert "STILLWELL_WINDOW_ROW, set in the environment, is no setting. Did you mean STILLWELL_WINDOW_ROWS?" in message
    assert "kafka_bootstap, set in stillwell.toml, is no setting. Did you mean kafka_bootstrap?" in message


def test_a_variable_or_a_heading_in_the_file_is_told_how_it_stands_there(tmp_path: Path) -> None:
    (tmp_path / "stillwell.toml").write_text('STILLWELL_NAMESPACE = "mine"\n[stillwell]\nproject = "shop"\n')
    message = refused()
    assert "STILLWELL_NAMESPACE, set in stillwell.toml, is no setting. Did you mean namespace?" in message
    assert "[stillwell], a heading in stillwell.toml, is no setting. All settings stand above the first" in message


def test_a_mark_of_the_encoding_in_front_of_the_file_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "stillwell.toml").write_bytes(b'\xef\xbb\xbfnamespace = "mine"')
    assert Settings.load().namespace == "mine"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads its first byte, not even root."""
    monkeypatch.setenv("STILLWELL_CONFIG", "/proc/self/mem")
    assert "/proc/self/mem cannot be read: Input/output error." in refused()


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="Extra inputs are not permitted"):
        Settings(windw_rows=7)  # type: ignore[call-arg]


def test_variables_that_other_parts_read_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NOT_SETTINGS.keys() - {"STILLWELL_CONFIG"}:
        monkeypatch.setenv(name, str(tmp_path))
    Settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STILLWELL_WORKER_SERVICE_HOST", "10.0.0.1"),
        ("STILLWELL_WORKER_SERVICE_PORT", "6066"),
        ("STILLWELL_WORKER_SERVICE_PORT_METRICS", "6066"),
        ("STILLWELL_WORKER_PORT", "tcp://10.0.0.1:6066"),
        ("STILLWELL_PORT_6066_TCP", "tcp://10.0.0.1:6066"),
        ("STILLWELL_PORT_6066_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_the_variables_of_a_kubernetes_service_are_left_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    Settings.load()


def test_a_misspelt_port_is_not_taken_for_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWELL_WEBB_PORT", "6066")
    assert "Did you mean STILLWELL_WEB_PORT?" in refused()


def test_every_variable_of_the_scripts_is_a_setting_or_left_alone() -> None:
    """A script that exports another one would have every command that it runs refuse to start."""
    scripts = [file for file in SCRIPTS.iterdir() if file.is_file()]
    used = {name for file in scripts for name in re.findall(r"STILLWELL_[A-Z_]*[A-Z]", file.read_text())}
    assert "STILLWELL_TOOLS" in used
    assert used <= {*NOT_SETTINGS, *map(variable, Settings.model_fields)}


def test_what_is_missing_is_named_with_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLWELL_DEFINITIONS")
    assert refused() == (
        "STILLWELL_DEFINITIONS is missing. The package that holds the topics, entities and views, by its import name. "
        f"Set it in the environment, or `definitions` in stillwell.toml, which is not in {Path.cwd()}."
    )


def test_what_is_missing_beside_a_settings_file_is_not_said_to_be_in_the_wrong_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stillwell.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLWELL_DEFINITIONS")
    assert refused().endswith("Set it in the environment, or `definitions` in stillwell.toml.")
    (tmp_path / "other.toml").write_text("")
    monkeypatch.setenv("STILLWELL_CONFIG", "other.toml")
    assert refused().endswith("Set it in the environment, or `definitions` in other.toml.")


def test_a_command_without_services_needs_no_services_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "OFFLINE_URL"):
        monkeypatch.delenv(f"STILLWELL_{name}")
    assert ProjectSettings.load().definitions == "schemas.flights"


@pytest.mark.parametrize(
    ("name", "value", "telling"),
    [
        ("PROJECT", "Flights", "STILLWELL_PROJECT: must be of small letters of ASCII, digits, _ and -, and begin with"),
        ("NAMESPACE", "a:b", "STILLWELL_NAMESPACE: must be of small letters"),
        ("DEFINITIONS", "schemas/flights.py", "STILLWELL_DEFINITIONS: must be the name of a Python package or module"),
        (
            "KAFKA_GROUP",
            "a b",
            "STILLWELL_KAFKA_GROUP: must be of letters of ASCII, digits, '.', '_' and '-', as Kafka",
        ),
        ("KAFKA_BOOTSTRAP", "localhost", "STILLWELL_KAFKA_BOOTSTRAP: must be host:port, or several with commas and no"),
        ("OFFLINE_URL", "s3://bucket", "must be gs://bucket, gs://bucket/path or a folder; what came is 's3://bucket'"),
        ("OFFLINE_URL", "gs://", "must be gs://bucket"),
        ("WINDOW_AGE", "30", "STILLWELL_WINDOW_AGE: must be a number and its unit: ms, s, m, h or d, as in '30s'"),
        ("WINDOW_AGE", "0s", "must be longer than nothing"),
        ("FETCH_WAIT", "0.5ms", "must be from 1ms to 2s"),
        ("FETCH_WAIT", "45s", "must be from 1ms to 2s"),
        ("WINDOW_BYTES", "many", "STILLWELL_WINDOW_BYTES: "),
        ("WINDOW_ROWS", "0", "STILLWELL_WINDOW_ROWS: "),
        ("REJECT_RATIO", "1.5", "STILLWELL_REJECT_RATIO: "),
        ("LOG_LEVEL", "loud", "STILLWELL_LOG_LEVEL: "),
        ("PUSH", "maybe", "STILLWELL_PUSH: must be true or false; what came is 'maybe'"),
        ("WEB_PORT", "70000", "Correct it in the environment"),
        ("WEB_PORT", "0", "STILLWELL_WEB_PORT: "),
        ("KAFKA_GROUP", "{team}.x", "may hold {project} and {namespace}, and no other braces"),
        ("WINDOW_BYTES", "1GiB", "window_bytes is 1GiB, more than buffer_bytes allows a whole topic (128MiB)"),
        ("PARTITION_FETCH_BYTES", "1GiB", "partition_fetch_bytes is 1GiB"),
        ("SESSION_TIMEOUT", "2m", "session_timeout is 2m, longer than rebalance_timeout (1m)"),
        ("WINDOW_AGE", "2m", "watchdog_timeout is 2m, not longer than window_age (2m)"),
        ("KAFKA_SASL_USER", "worker", "kafka_security_protocol is PLAINTEXT, which does not use them"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "needs kafka_sasl_user and kafka_sasl_password"),
        ("KAFKA_SSL_CA", "/ca.pem", "kafka_ssl_ca is set, but kafka_security_protocol is PLAINTEXT"),
    ],
)
def test_a_wrong_value_is_refused_with_the_rule(
    name: str, value: str, telling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STILLWELL_{name}", value)
    assert telling in refused()


def test_a_command_without_services_refuses_their_wrong_values_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLWELL_REDIS_URL")
    monkeypatch.setenv("STILLWELL_WINDOW_AGE", "5 parsecs")
    assert refused(ProjectSettings) == (
        "STILLWELL_WINDOW_AGE: must be a number and its unit: ms, s, m, h or d, as in '30s'; what came is '5 parsecs'. "
        "Correct it in the environment."
    )


def test_a_wrong_value_in_the_file_is_corrected_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "stillwell.toml").write_text("window_age = 30")
    assert "what came is 30. Correct it in stillwell.toml" in refused()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250ms", datetime.timedelta(milliseconds=250)),
        ("1.5s", datetime.timedelta(seconds=1.5)),
        ("5m", datetime.timedelta(minutes=5)),
        ("6h", datetime.timedelta(hours=6)),
        ("7d", datetime.timedelta(days=7)),
    ],
)
def test_durations_have_units(text: str, value: datetime.timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWELL_MAX_FUTURE", text)
    assert Settings.load().max_future == value
    assert module._duration(spelled(value)) == value


def test_a_folder_for_the_offline_store_does_not_depend_on_where_a_command_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLWELL_OFFLINE_URL", "offline")
    assert Settings.load().offline_url == str(tmp_path / "offline")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Settings.load().namespace = "other"


def test_no_way_of_printing_settings_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWELL_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("STILLWELL_KAFKA_SASL_USER", "worker")
    monkeypatch.setenv("STILLWELL_KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("STILLWELL_REDIS_URL", "rediss://worker:hunter2@store:6379/0")
    settings = Settings.load()
    printed = f"{settings} {settings!r} {settings.shown()} {settings.model_dump_json()} {settings.model_dump()}"
    assert "hunter2" not in printed
    assert settings.shown()["redis_url"] == "rediss://worker:***@store:6379/0"
    assert settings.redis_url.get_secret_value() == "rediss://worker:hunter2@store:6379/0"


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("redis://store", {"host": "store"}),
        ("redis://store/", {"host": "store"}),
        ("redis://store:6380/12", {"host": "store", "port": 6380, "db": 12}),
        ("rediss://worker:hunter2@[::1]:65535", {"host": "::1", "port": 65535}),
        ("redis://worker:%2F%3F%40%3A%23%20@store:1/0", {"password": "/?@:# ", "host": "store", "port": 1, "db": 0}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix://worker:hunter2@/run/redis.sock?db=3", {"password": "hunter2", "path": "/run/redis.sock", "db": 3}),
    ],
)
def test_a_redis_url_is_taken_as_redis_py_understands_it(
    url: str, reached: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWELL_REDIS_URL", url)
    understood = parse_url(Settings.load().redis_url.get_secret_value())
    assert {name: understood.get(name) for name in ("host", "port", "db", "path", *reached)} == {
        "host": None, "port": None, "db": None, "path": None, **reached
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://store", "must be redis://host:port/db"),
        ("store:6379", "must be redis://host:port/db"),
        ("redis://:hunter2@:6379/0", "must be redis://host:port/db"),
        ("redis:///0", "must be redis://host:port/db"),
        ("redis://h/0?password=hunter2", "redis://user:password@host:port/db"),
        ("redis://h/0?foo=1", "must have nothing behind a ?"),
        ("redis://h/0?decode_responses=true", "must have nothing behind a ?"),
        ("redis://h/0?protocol=3", "must have nothing behind a ?"),
        ("redis://h?db=3", "must have nothing behind a ?"),
        ("unix:///run/redis.sock?db=3&password=hunter2", "must have nothing but db=N behind a ?"),
        ("unix:///run/redis.sock?db=three", "must have nothing but db=N behind a ?"),
        ("unix://store/run/redis.sock", "must be unix:///path"),
        ("unix:///", "must be unix:///path"),
        ("redis://h:99999999/0", "port from 1 to 65535"),
        ("redis://h:0/0", "port from 1 to 65535"),
        ("redis://[::1/0", "port from 1 to 65535"),
        ("redis://h/abc", "number of a database"),
        ("redis://h/1/2", "number of a database"),
        ("redis://worker:hunter2/x@h", "%2F"),
        ("redis://worker:hunter2?x@h", "%3F"),
        ("redis://worker:7?hunter2@h", "%3F"),
        ("redis://worker:7/hunter2@h", "%2F"),
        ("redis://worker:7#hunter2@h", "%23"),
        ("redis://worker:hunter2 x@h", "%20"),
    ],
)
def test_a_redis_url_that_would_be_misunderstood_is_refused_with_the_mend(
    url: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its password is not in the refusal, wherever it stood."""
    monkeypatch.setenv("STILLWELL_REDIS_URL", url)
    message = refused()
    assert rule in message
    assert "hunter2" not in message
    assert message.endswith("Correct it in the environment.")


@pytest.mark.parametrize("name", ["STILLWELL_REDIS_URL", "STILLWELL_KAFKA_SASL_PASSWORD"])
def test_no_error_shows_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "https://worker:hunter2@store")
    with pytest.raises(SettingsError) as error:
        Settings.load()
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:p@ss@host", "redis://:***@host"),
        ("redis://user:secret@host:1/0 failed", "redis://user:***@host:1/0 failed"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://us@er:secret@host", "redis://us@er:***@host"),
        ("redis://h/0?password=secret", "redis://h/0?password=***"),
        ("GET http://h/x?a=1&Access_Token=sec=ret&b=2#c failed", "GET http://h/x?a=1&Access_Token=***&b=2#c failed"),
        ("what is the password? a=1&b=2", "what is the password? a=1&b=2"),
        ("host:9092", "host:9092"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert hide_password(text) == shown


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("."), name


def test_the_reference_lists_every_setting(page: Callable[[str, str], None]) -> None:
    page("reference/settings.md", reference())


def reference() -> str:
    """docs/reference/settings.md, as the code says."""
    lines = [
        "# Settings",
        "",
        "Set them in the environment, or under the short name in a TOML file: `stillwell.toml` in the working",
        "directory, or the one that `STILLWELL_CONFIG` names. The environment wins. Unknown names are refused in both.",
        "Durations are numbers with a unit (`250ms`, `30s`, `5m`, `6h`, `7d`), and so may sizes be (`32MiB`).",
        "Passwords, also those within URLs, are shown nowhere.",
        "",
        "This page is made from `stillwell/settings.py`.",
        "",
        "| environment | file | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        given = "none" if field.default in (None, "") else f"`{spelled(field.default)}`"
        default = "must be set" if field.is_required() else given
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{variable(name)}` | `{name}` | {default} | {meaning} |")
    lines += ["", "Read elsewhere, from the environment alone:", "", "| environment | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in NOT_SETTINGS.items()]
    return "\n".join(lines) + "\n"
