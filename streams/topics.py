"""Topics as an operator sees them: creating those that are missing, adopting one that is not what it was."""

import asyncio
import datetime
from collections.abc import Mapping, Sequence, Set
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stillwell.errors import PartitionStopped, StoreUnavailable
from stillwell.instants import duration_ms
from stillwell.kafka_connection import unreachable
from stillwell.layout.chain import PartitionId, TopicIncarnation
from stillwell.topics import Ends, NewTopic, Situation
from streams.cluster import Cluster
from streams.onlooker import Onlooker
from streams.ports import Archive

DEAD_LETTER_RETENTION = datetime.timedelta(days=30)
"""Long enough to come back from a holiday, mend a definition and replay."""

MOST_REPLICAS = 3
"""Copies of each partition, where there are as many brokers. With so many, a write counts once two have it."""

_LOOKS = 20
_PAUSE = 0.5
"""A new leader may not know how far readers had come for a moment: look so often before believing a short log."""

_TELLINGS = 5
_TELLING_LOOKS = 100
_TELLING_PAUSE = 0.05


async def broker_count(connection: Mapping[str, Any]) -> int:
    """How many brokers the cluster has. Raises StoreUnavailable."""
    admin = AIOKafkaAdminClient(**connection)
    try:
        try:
            await admin.start()
        except (KafkaError, OSError) as error:
            raise unreachable(error) from error
        return len((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError) as error:
        raise StoreUnavailable(f"Kafka does not tell of its brokers: {error!r}") from error
    finally:
        await admin.close()


async def default_replication(connection: Mapping[str, Any]) -> int:
    """Copies of each partition of a new topic, where nobody says how many. Raises StoreUnavailable."""
    return min(MOST_REPLICAS, await broker_count(connection))


async def create_missing(
    cluster: Cluster, names: Sequence[str], partitions: int, replication: int, dead_letters: str
) -> tuple[list[NewTopic], dict[str, int]]:
    """Create those of the topics that are not there; gives them, and how many partitions those have that were there.

    dead_letters: the one among them that is kept for DEAD_LETTER_RETENTION. How long events are kept is left to the
    broker, and to whoever owns them.
    """
    found = await cluster.topics(names)
    missing = [name for name in names if name not in found]
    created = []
    for name in missing:
        new = NewTopic(name, partitions, replication, _configs(replication, name == dead_letters))
        # False, if somebody else was faster: then it is there, which is what was wanted.
        if await cluster.create_topic(name, partitions, replication, new.configs):
            created.append(new)
    if missing:
        await _told_of(cluster, set(missing))
    return created, {name: facts.partitions for name, facts in found.items()}


async def _told_of(cluster: Cluster, names: Set[str]) -> None:
    """Wait until Kafka tells of topics that it has just created, which takes its brokers a moment: a worker that is
    started next would be refused. Each question goes to a broker by chance, so that some answers in a row are wanted.
    Some seconds at most."""
    told = 0
    for _ in range(_TELLING_LOOKS):
        try:
            told = told + 1 if names <= set(await cluster.topics(names)) else 0
        except StoreUnavailable:  # known, but without a leader
            told = 0
        if told == _TELLINGS:
            return
        await asyncio.sleep(_TELLING_PAUSE)


def _configs(replication: int, dead_letters: bool) -> dict[str, str]:
    configs = {"min.insync.replicas": "2"} if replication >= MOST_REPLICAS else {}
    if dead_letters:
        retention_ms = duration_ms(DEAD_LETTER_RETENTION)
        configs |= {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
    return configs


async def examine(
    cluster: Cluster, onlooker: Onlooker, archive: Archive, topic: str, chained: Sequence[PartitionId]
) -> Situation:
    """Compare. chained: the partitions that have chains. Raises PartitionStopped where there is nothing to adopt."""
    for look in range(_LOOKS):
        found = await _look(cluster, onlooker, archive, topic, chained)
        if found.topic_id != found.last.topic_id or found.reason is None:
            break
        await asyncio.sleep(_PAUSE if look < _LOOKS - 1 else 0)
    return found


async def adopt(archive: Archive, found: Situation) -> TopicIncarnation:
    """Open the next incarnation, from the earliest record on: what was produced before now must not be lost.

    Raises PartitionStopped when somebody else has adopted another topic of this name meanwhile.
    """
    topic, topic_id = found.topic, found.topic_id
    number = found.last.incarnation + 1
    opened = await archive.open_incarnation(topic, number, topic_id, found.partition_count, "earliest")
    if opened.topic_id != topic_id:
        raise PartitionStopped(
            f"incarnation {opened.incarnation} of {topic} was opened for Kafka's topic {opened.topic_id} meanwhile, "
            f"which is not {topic_id}: run `stillwell topics adopt {topic}` again"
        )
    return opened


async def _look(
    cluster: Cluster, onlooker: Onlooker, archive: Archive, topic: str, chained: Sequence[PartitionId]
) -> Situation:
    now = (await cluster.topics([topic])).get(topic)
    if now is None:
        raise PartitionStopped(f"Kafka has no topic {topic}: `stillwell topics create` creates it, then adopt it")
    last = await archive.incarnation(topic)
    if last is None:
        raise PartitionStopped(f"topic {topic} was never read: there is nothing to adopt, a worker just begins")
    logs = dict(enumerate(await onlooker.bounds(topic, now.partitions)))
    ends = {
        id.partition: await _chain_end(archive, id)
        for id in chained
        if (id.topic, id.incarnation) == (topic, last.incarnation)
    }
    partitions = tuple(Ends(number, ends.get(number), logs.get(number)) for number in sorted({*logs, *ends}))
    return Situation(topic, now.id, now.partitions, last, partitions)


async def _chain_end(archive: Archive, id: PartitionId) -> int | None:
    partition = archive.partition(id, ())
    return partition.end if await partition.find_end(None) else None
