"""How every Kafka client of ours connects."""

import aiokafka.client
import pytest
from aiokafka.protocol.metadata import MetadataRequest_v5

from stillwell.errors import SettingsError
from stillwell.kafka_connection import connection
from stillwell.settings import Settings


def settings(monkeypatch: pytest.MonkeyPatch, **more: str) -> Settings:
    """The least that must be set, and more."""
    least = {
        "project": "flights",
        "definitions": "schemas",
        "kafka_bootstrap": "a:9092,b:9092",
        "redis_url": "redis://localhost",
        "offline_url": "gs://bucket",
    }
    for name, value in {**least, **more}.items():
        monkeypatch.setenv(f"STILLWELL_{name.upper()}", value)
    return Settings.load()


def test_a_plain_connection_names_the_brokers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection(settings(monkeypatch)) == {
        "bootstrap_servers": ["a:9092", "b:9092"],
        "security_protocol": "PLAINTEXT",
    }


def test_credentials_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_user": "worker", "kafka_sasl_password": "hunter2"}
    found = connection(settings(monkeypatch, **sasl, kafka_sasl_mechanism="SCRAM-SHA-512"))
    assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("worker", "hunter2")
    assert found["sasl_mechanism"] == "SCRAM-SHA-512"
    assert found["ssl_context"] is not None


def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"STILLWELL_KAFKA_SSL_CA must name .* /nowhere/ca.pem gave"):
        connection(settings(monkeypatch, kafka_security_protocol="SSL", kafka_ssl_ca="/nowhere/ca.pem"))


def test_no_client_creates_a_topic_by_asking_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(settings(monkeypatch))
    asks = aiokafka.client.MetadataRequest(["orders"]).build(MetadataRequest_v5)
    assert asks.topics == ["orders"]
    assert asks.allow_auto_topic_creation is False
