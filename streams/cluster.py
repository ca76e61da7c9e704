"""What Kafka says of topics and groups, beyond what aiokafka's consumer tells."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest

from stillwell.errors import StoreUnavailable
from stillwell.kafka_connection import unreachable
from stillwell.kafka_topics import PATIENCE, KafkaTopics


class Cluster(KafkaTopics):
    """Asks the cluster. Every method raises StoreUnavailable when it does not answer."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        patience: float = PATIENCE,
        shuffle: Callable[[list[int]], None] = random.shuffle,
    ) -> None:
        """As of KafkaTopics."""
        super().__init__(connection, patience, shuffle)
        self._admin = AIOKafkaAdminClient(**connection)

    async def start(self) -> None:
        """Connect."""
        await super().start()
        try:
            await self._admin.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            raise unreachable(error) from error

    async def stop(self) -> None:
        """Close the connections."""
        await super().stop()
        await self._admin.close()

    async def committed(self, group: str, partition: TopicPartition) -> tuple[int, str] | None:
        """The offset that a group has committed for a partition, and the metadata beside it."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(group, partitions=[partition])
        except GroupCoordinatorNotAvailableError as error:
            raise StoreUnavailable("Kafka's group coordinator is not available yet") from error
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka does not tell what group {group} committed: {error!r}") from error
        found = offsets.get(partition)
        return (found.offset, found.metadata) if found and found.offset >= 0 else None

    async def creates_topics_by_itself(self) -> bool:
        """Whether a broker creates a topic that somebody merely asks about. False where brokers do not say."""
        name = "auto.create.topics.enable"
        try:
            brokers = (await self._admin.describe_cluster())["brokers"]
            resources = [ConfigResource(ConfigResourceType.BROKER, each["node_id"], {name: None}) for each in brokers]
            answers = await self._admin.describe_configs(resources)
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka does not tell how its brokers are configured: {error!r}") from error
        # To whoever may not ask, a broker answers with an error and no entries.
        entries = [entry for answer in answers for *_, entries in answer.resources for entry in entries]
        return any((key, value) == (name, "true") for key, value, *_ in entries)

    async def create_topic(self, name: str, partitions: int, replication: int, configs: Mapping[str, str]) -> bool:
        """Create a topic. False if it exists."""
        topic = NewTopic(name, partitions, replication, topic_configs=dict(configs))
        try:
            answer = await self._admin.create_topics([topic])
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka cannot create topic {name}: {error!r}") from error
        for _, code, *message in answer.topic_errors:
            if for_code(code) is TopicAlreadyExistsError:
                return False
            if code:
                raise StoreUnavailable(f"Kafka refuses to create topic {name}: {for_code(code).__name__} {message}")
        return True

    async def delete_topic(self, name: str) -> None:
        """Delete a topic that nobody needs any more; nothing, where there is none."""
        try:
            answer = await self._admin.delete_topics([name])
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka cannot delete topic {name}: {error!r}") from error
        for _, code, *_ in answer.topic_error_codes:
            if code and for_code(code) is not UnknownTopicOrPartitionError:
                raise StoreUnavailable(f"Kafka refuses to delete topic {name}: {for_code(code).__name__}")

    async def delete_group(self, name: str) -> None:
        """Delete a group that has no member, with the offsets that it has committed; nothing, where there is none."""
        try:
            # Private API, as aiokafka 0.14.0, which is pinned, has it: its admin client knows the request by no method.
            coordinator = await self._admin.find_coordinator(name)
            answer = await self._admin._send_request_to_node(coordinator, DeleteGroupsRequest([name]))
        except (KafkaError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Kafka cannot delete group {name}: {error!r}") from error
        for _, code in answer.results:
            if code and for_code(code) is not GroupIdNotFound:
                raise StoreUnavailable(f"Kafka refuses to delete group {name}: {for_code(code).__name__}")
