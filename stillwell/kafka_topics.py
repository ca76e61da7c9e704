"""What Kafka says of topics: their ids, which aiokafka's clients do not tell, and how many partitions they have."""

import asyncio
import base64
import dataclasses
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from stillwell.errors import StoreUnavailable
from stillwell.kafka_connection import unreachable

_NO_TOPIC_ID = bytes(16)

PATIENCE = 5.0
"""Every link waits for a broker to tell of its topic: by aiokafka's own 40 s, a broker in three that swallows what it
is sent would hold up a third of all links for that long. Shorter takes a slow broker for one that is gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the cluster knows it now.

    id: Kafka's own, new each time that a topic is created, in base64 as Kafka's tools print it. partitions: how many.
    """

    name: str
    id: str
    partitions: int


class KafkaTopics:
    """Asks the cluster. Every method raises StoreUnavailable when it does not answer."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        patience: float = PATIENCE,
        shuffle: Callable[[list[int]], None] = random.shuffle,
    ) -> None:
        """connection: what every aiokafka client needs (bootstrap_servers, security).

        patience: seconds for each step with one broker that tells of topics: to connect, and to answer.
        """
        self._shuffle = shuffle
        self._client = AIOKafkaClient(**connection, request_timeout_ms=round(patience * 1000))

    async def start(self) -> None:
        """Connect."""
        try:
            await self._client.bootstrap()
        except (KafkaError, OSError) as error:
            await self.stop()
            raise unreachable(error) from error

    async def stop(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The named topics that exist."""
        answer = await self._metadata(names)
        found = {}
        for code, name, topic_id, _, partitions, *_ in answer.topics:
            if for_code(code) is UnknownTopicOrPartitionError:
                continue
            if code or topic_id == _NO_TOPIC_ID:
                raise StoreUnavailable(f"Kafka does not tell of topic {name}: {for_code(code).__name__}")
            found[name] = TopicFacts(name, base64.urlsafe_b64encode(topic_id).decode().rstrip("="), len(partitions))
        return found

    async def _metadata(self, names: Collection[str]) -> Any:
        """What the first broker says that answers: all know the same, and one may be cut off from us alone."""
        brokers = [broker.nodeId for broker in self._client.cluster.brokers()]
        self._shuffle(brokers)
        failures = []
        for broker in brokers:
            try:
                return await self._client.send(broker, _MetadataRequest(names))
            except (KafkaError, OSError) as error:
                failures.append(f"broker {broker}: {error!r}")
        reasons = "; ".join(failures) or "no broker is known"
        raise StoreUnavailable(f"Kafka does not tell of topics {', '.join(names)}: {reasons}")


class TopicsWhenAsked:
    """KafkaTopics that are connected when somebody first asks, and anew behind a failure: for who must start without
    Kafka, and seldom asks. `stop` it."""

    def __init__(self, make: Callable[[], KafkaTopics]) -> None:
        self._make = make
        self._topics: KafkaTopics | None = None
        self._asking = asyncio.Lock()

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The named topics that exist. Raises StoreUnavailable."""
        async with self._asking:
            try:
                if self._topics is None:
                    self._topics = self._make()
                    await self._topics.start()
                return await self._topics.topics(names)
            except BaseException:
                await self._drop()
                raise

    async def stop(self) -> None:
        """Close the connections."""
        async with self._asking:
            await self._drop()

    async def _drop(self) -> None:
        topics, self._topics = self._topics, None
        if topics is not None:
            await topics.stop()


# Metadata (key 3 of the Kafka protocol guide) in version 10, the first that tells topic ids; aiokafka stops at 5.
# AIOKafkaClient and aiokafka.protocol are private API, as they are in aiokafka 0.14.0, which is pinned: look at both
# before it is raised. aiokafka carries no types, hence the exemptions.


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: Any) -> bytes:
        return bytes(data.read(16))

    @classmethod
    def repr(cls, value: bytes) -> str:
        return value.hex()


class _MetadataResponse10(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequest10(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION: ClassVar[bool] = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequest10]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest10]) -> _MetadataRequest10:
        wanted: list[tuple[bytes, str, dict[int, bytes]]] = [(_NO_TOPIC_ID, name, {}) for name in self._topics]
        return request_struct_class(wanted, False, False, False, {})
