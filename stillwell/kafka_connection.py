"""How to connect to Kafka: the settings, in the words of aiokafka's clients."""

import re
import ssl
from collections.abc import Mapping

from stillwell.errors import SettingsError, StoreUnavailable
from stillwell.settings import KafkaSettings


def connection(settings: KafkaSettings) -> dict[str, object]:
    """The arguments that every aiokafka client of this deployment takes.

    Raises SettingsError when the file of certificates cannot be read. From here on no client of this process makes a
    topic by asking about it.
    """
    _leave_topics_alone()
    arguments: dict[str, object] = {
        "bootstrap_servers": settings.kafka_bootstrap.split(","),
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        arguments["ssl_context"] = _ssl_context(settings)
    if settings.kafka_sasl_password is not None:
        arguments["sasl_mechanism"] = settings.kafka_sasl_mechanism
        arguments["sasl_plain_username"] = settings.kafka_sasl_user
        arguments["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return arguments


def unreachable(error: Exception) -> StoreUnavailable:
    """What to raise when a client could not start."""
    # aiokafka shows addresses as its own tuples.
    said = re.sub(r"\('([^']+)', (\d+), [^)]*\)", r"\1:\2", str(error) or repr(error))
    return StoreUnavailable(f"Kafka cannot be reached: {said}; check STILLWELL_KAFKA_BOOTSTRAP")


def refusals(user: str, content: str = "records") -> Mapping[type[Exception], str]:
    """What a broker refuses for certain to write, by aiokafka's errors, and what to do.

    user: whose rights it takes. content: what is too large for the topic.
    """
    from aiokafka import errors

    return {
        errors.MessageSizeTooLargeError: f"it takes only smaller {content}: raise its max.message.bytes to 1 MiB",
        errors.UnknownTopicOrPartitionError: "Kafka has no such topic: `stillwell topics create` makes it",
        errors.TopicAuthorizationFailedError: f"allow {user} to write to it",
    }


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.kafka_ssl_ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"STILLWELL_KAFKA_SSL_CA must name a file of certificates in PEM; {settings.kafka_ssl_ca} gave: {error}. "
            "Correct the path, or remove the setting to trust the system's certificates."
        ) from error


def _leave_topics_alone() -> None:
    """Have aiokafka ask about topics without creating them.

    A request for metadata may say so, and aiokafka's always say the contrary: with a broker that has
    `auto.create.topics.enable`, as all have by default, a worker would make anew within seconds each topic that a
    person deletes under it. aiokafka 0.14.0 has no option; its clients all make their requests by this name.
    """
    import aiokafka.client
    from aiokafka.protocol.metadata import MetadataRequest

    def asking_only(topics: list[str] | None = None) -> MetadataRequest:
        return MetadataRequest(topics, allow_auto_topic_creation=False)

    aiokafka.client.MetadataRequest = asking_only
