"""One suite for the log of pushes, over Kafka and over its twin; then what only a real broker and a cut line show."""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from sinks.push_log import KafkaPushLog
from sinks.push_producer import push_producer
from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.pushing.log import Place, PushLog
from stillwell.pushing.record import PushRecord
from stillwell.testing.push_log import MemoryPushLog
from tests.services import Proxy
from tests.waiting import eventually_async, eventually_here

NOW_MS = 1_767_225_600_000
PARTITIONS = 3
TIMEOUT_S = 3.0
MANY_BYTES = 64 * 1024 * 1024


def record(key: bytes | None, value: bytes, *headers: tuple[str, bytes | None]) -> PushRecord:
    return PushRecord(key, value, headers)


@dataclasses.dataclass(frozen=True)
class Found:
    """A record as a consumer finds it."""

    place: Place
    record: PushRecord


@dataclasses.dataclass(frozen=True)
class Opened:
    """A log, a topic of three partitions in it, and what is in the topic."""

    log: PushLog
    topic: str
    found: Callable[[], list[Found]]


def kafka_log(bootstrap: str, timeout: float = TIMEOUT_S, most_bytes: int = MANY_BYTES) -> KafkaPushLog:
    return KafkaPushLog(lambda: push_producer({"bootstrap_servers": bootstrap}, timeout), timeout, most_bytes)


@asynccontextmanager
async def closing(log: KafkaPushLog) -> AsyncIterator[KafkaPushLog]:
    try:
        yield log
    finally:
        await log.close()


def consumed(bootstrap: str, topic: str, partitions: int = PARTITIONS) -> list[Found]:
    """All records of a topic that are committed, by partition and offset."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "isolation.level": "read_committed"})
    try:
        found: list[Found] = []
        for partition in range(partitions):
            end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            consumer.assign([TopicPartition(topic, partition, 0)])
            while end and (not found or found[-1].place[:2] != (partition, end - 1)):
                message = consumer.poll(10)
                assert message is not None, f"{topic}-{partition} ends at {end}, found {found[-1:]}"
                assert message.error() is None, message.error()
                place = Place(partition, message.offset() or 0, message.timestamp()[1])
                headers = tuple(message.headers() or ())
                found.append(Found(place, PushRecord(message.key(), message.value() or b"", headers)))  # type: ignore[arg-type]
        return found
    finally:
        consumer.close()


@pytest.fixture(params=["kafka", "twin"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    if request.param == "twin":
        twin = MemoryPushLog({"t": PARTITIONS})
        yield Opened(twin, "t", lambda: [Found(*kept) for kept in twin.records("t")])
        return
    bootstrap, name = request.getfixturevalue("bootstrap"), request.getfixturevalue("topic")(partitions=PARTITIONS)
    async with closing(kafka_log(bootstrap)) as log:
        yield Opened(log, name, lambda: consumed(bootstrap, name))


async def test_every_record_is_where_its_place_says(opened: Opened, rng: random.Random) -> None:
    """Of many at once, each with its key, value, headers and timestamp."""
    asks = [
        [
            record(rng.choice([None, b"s1:%d" % rng.randrange(9)]), b'{"n":%d.%d}' % (ask, number), ("to", b"online"))
            for number in range(rng.randrange(30))
        ]
        for ask in range(40)
    ]
    places = await asyncio.gather(*(opened.log.append(opened.topic, each, NOW_MS + at) for at, each in enumerate(asks)))
    said = [
        Found(place, pushed)
        for ask, given in zip(asks, places, strict=True)
        for pushed, place in zip(ask, given, strict=True)
    ]
    assert sorted(said, key=lambda each: each.place) == sorted(opened.found(), key=lambda each: each.place)
    assert {found.place.timestamp for found in said} <= {NOW_MS + at for at in range(40)}


async def test_records_of_one_key_go_to_one_partition_in_their_order(opened: Opened) -> None:
    first = await opened.log.append(opened.topic, [record(b"s1:a", b"%d" % number) for number in range(5)], NOW_MS)
    second = await opened.log.append(opened.topic, [record(b"s1:a", b"5")], NOW_MS)
    assert len({place.partition for place in [*first, *second]}) == 1
    offsets = [place.offset for place in [*first, *second]]
    assert offsets == sorted(set(offsets))


async def test_records_without_a_key_stay_together(opened: Opened) -> None:
    for _ in range(4):
        places = await opened.log.append(opened.topic, [record(None, b"%d" % number) for number in range(50)], NOW_MS)
        assert len({place.partition for place in places}) == 1


async def test_nothing_to_append_is_nothing(opened: Opened) -> None:
    assert await opened.log.append(opened.topic, [], NOW_MS) == []


async def test_a_topic_that_is_not_there_is_told(opened: Opened) -> None:
    with pytest.raises(StoreUnavailable, match="stillwell topics create"):
        await opened.log.append("no-such-topic", [record(None, b"{}")], NOW_MS)


# ---- Kafka alone ----


async def test_keys_go_where_other_producers_send_them(bootstrap: str, topic: Callable[..., str]) -> None:
    """librdkafka's `murmur2_random` is what Java's producers do."""
    name, keys = topic(partitions=PARTITIONS), [b"s%d:%s" % (size, b"k" * size) for size in range(1, 30)]
    others: dict[bytes | None, int | None] = {}
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(
            name, b"{}", key, on_delivery=lambda _, message: others.update({message.key(): message.partition()})
        )
    assert producer.flush(30) == 0
    async with closing(kafka_log(bootstrap)) as log:
        places = await log.append(name, [record(key, b"{}") for key in keys], NOW_MS)
    assert {key: place.partition for key, place in zip(keys, places, strict=True)} == others


async def test_a_topic_that_keeps_its_own_time_gives_it(bootstrap: str, topic: Callable[..., str]) -> None:
    name = topic(partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    async with closing(kafka_log(bootstrap)) as log:
        places = await log.append(name, [record(None, b"{}"), record(None, b"{}")], NOW_MS)
    assert [each.place for each in consumed(bootstrap, name)] == places
    assert places[0].timestamp > NOW_MS


async def test_what_is_larger_than_a_batch_is_cut(bootstrap: str, topic: Callable[..., str]) -> None:
    name = topic(partitions=PARTITIONS)
    values = [bytes([number % 256]) * 300_000 for number in range(12)]
    async with closing(kafka_log(bootstrap)) as log:
        places = await log.append(name, [record(None, value) for value in values], NOW_MS)
    assert [found.record.value for found in consumed(bootstrap, name)] == values
    assert [place.offset for place in places] == list(range(12))


async def test_kafka_that_is_away_is_told_within_the_deadline_and_found_again(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic(partitions=PARTITIONS)
    async with closing(kafka_log(kafka_proxy.address, timeout=1.0)) as log:
        kafka_proxy.down()
        await _told_in_time(StoreUnavailable, log.append(name, [record(None, b"never")], NOW_MS))
        kafka_proxy.up()
        await _until_appended(log, name)


async def test_a_line_that_is_cut_in_between_leaves_the_outcome_open_and_then_goes_on(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    """What comes of it later is there once, or not at all; what was acknowledged is there in any case."""
    name = topic(partitions=PARTITIONS)
    async with closing(kafka_log(kafka_proxy.address, timeout=1.0)) as log:
        acknowledged = list(await log.append(name, [record(b"s1:a", b"first")], NOW_MS))
        with kafka_proxy.toxic("timeout", timeout=0):
            for number in range(2):
                await _told_in_time(
                    (OutcomeUnknown, StoreUnavailable), log.append(name, [record(b"s1:a", b"open %d" % number)], NOW_MS)
                )
        acknowledged += await _until_appended(log, name)
    found = consumed(bootstrap, name)
    assert set(acknowledged) <= {each.place for each in found}
    values = [each.record.value for each in found]
    assert len(values) == len(set(values))


async def test_an_answer_that_is_lost_on_its_way_doubles_nothing(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    """Kafka has the record, the line ends within the answer, and the producer tries again by itself."""
    name = topic(partitions=1)
    async with closing(kafka_log(kafka_proxy.address, timeout=15.0)) as log:
        acknowledged = await log.append(name, [record(b"s1:a", b"first")], NOW_MS)
        with kafka_proxy.toxic("limit_data", bytes=1):
            pushing = asyncio.ensure_future(log.append(name, [record(b"s1:a", b"second")], NOW_MS))
            await eventually_async(lambda: _ends_at(bootstrap, name, 2), what="a record that nobody is told of")
            assert not pushing.done()
        acknowledged += await pushing
        acknowledged += await log.append(name, [record(b"s1:a", b"third")], NOW_MS)
    found = consumed(bootstrap, name, 1)
    assert [each.record.value for each in found] == [b"first", b"second", b"third"]
    assert [each.place for each in found] == acknowledged


async def test_a_record_that_was_sent_is_never_said_to_be_nowhere(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    """Its acknowledgement did not come; the record did."""
    name = topic(partitions=1)
    async with closing(kafka_log(kafka_proxy.address, timeout=2.0)) as log:
        await log.append(name, [record(b"s1:a", b"first")], NOW_MS)
        with kafka_proxy.toxic("timeout", timeout=0):
            second = log.append(name, [record(b"s1:a", b"second")], NOW_MS)
            await _told_in_time(OutcomeUnknown, second, within_s=10)
    assert [each.record.value for each in consumed(bootstrap, name, 1)] == [b"first", b"second"]


async def test_what_kafka_refuses_is_told_at_once_as_certainly_not_written(
    bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic(partitions=1, config={"max.message.bytes": "2000"})
    async with closing(kafka_log(bootstrap, timeout=60.0)) as log:
        await log.append(name, [record(None, b"first")], NOW_MS)
        large = bytes(random.Random(1).randbytes(5_000))
        second = log.append(name, [record(None, large)], NOW_MS)
        await _told_in_time(StoreUnavailable, second, "max.message.bytes", within_s=20)
        await log.append(name, [record(None, b"third")], NOW_MS)
    assert [each.record.value for each in consumed(bootstrap, name, 1)] == [b"first", b"third"]


async def test_records_that_come_while_a_batch_is_on_its_way_share_the_next_one_in_their_order(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic(partitions=1)
    async with closing(kafka_log(kafka_proxy.address, timeout=15.0)) as log:
        await log.append(name, [record(b"s1:a", b"first")], NOW_MS)
        before = log._batches
        with kafka_proxy.toxic("latency", latency=300):
            pushing = []
            for number in range(20):
                pushing.append(asyncio.ensure_future(log.append(name, [record(b"s1:a", b"%d" % number)], NOW_MS)))
                await asyncio.sleep(0.002)
            places = await asyncio.gather(*pushing)
        assert log._batches - before == 2
    assert [place.offset for (place,) in places] == list(range(1, 21))


async def test_a_place_that_kafka_no_longer_tells_is_not_made_up(bootstrap: str, topic: Callable[..., str]) -> None:
    """As it answers a repeat of a batch that it has long since."""

    class Forgetful(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka carries no types
        async def send_batch(self, batch: Any, name: str, *, partition: int) -> Any:
            sent = await super().send_batch(batch, name, partition=partition)

            async def forgotten() -> Any:
                return (await sent)._replace(offset=-1)

            return forgotten()

    name = topic(partitions=1)
    log = KafkaPushLog(lambda: Forgetful(bootstrap_servers=bootstrap, enable_idempotence=True), TIMEOUT_S, MANY_BYTES)
    async with closing(log):
        with pytest.raises(OutcomeUnknown, match="no longer tells where"):
            await log.append(name, [record(None, b"there")], NOW_MS)
    assert [each.record.value for each in consumed(bootstrap, name, 1)] == [b"there"]


async def test_its_end_waits_for_what_is_on_its_way_and_takes_no_more(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic(partitions=1)
    log = kafka_log(kafka_proxy.address, timeout=5.0)
    await log.append(name, [record(None, b"first")], NOW_MS)
    with kafka_proxy.toxic("latency", latency=300):
        pushing = asyncio.ensure_future(log.append(name, [record(None, b"second")], NOW_MS))
        await eventually_here(lambda: log._batches == 2, what="it is on its way")
        await log.close()
        assert (await pushing)[0].offset == 1
    with pytest.raises(StoreUnavailable, match="the query service ends"):
        await log.append(name, [record(None, b"third")], NOW_MS)


async def test_what_is_made_to_send_waits_for_all_replicas_and_repeats_nothing() -> None:
    """What one broker alone cannot show."""
    producer = push_producer({"bootstrap_servers": "127.0.0.1:1"}, 1.0)
    assert producer._sender._acks == -1
    assert producer._txn_manager is not None
    await producer.stop()


async def test_a_frozen_kafka_does_not_make_others_wait_behind_what_was_given_up(
    kafka_proxy: Proxy, bootstrap: str, topic: Callable[..., str]
) -> None:
    """aiokafka's idempotent producer would send the batch that was given up before any other, for ever."""
    name = topic(partitions=1)
    made: list[AIOKafkaProducer] = []

    def make() -> AIOKafkaProducer:
        made.append(push_producer({"bootstrap_servers": kafka_proxy.address}, 1.0))
        return made[-1]

    async with closing(KafkaPushLog(make, 1.0, MANY_BYTES)) as log:
        await log.append(name, [record(b"s1:a", b"first")], NOW_MS)
        with kafka_proxy.toxic("timeout", timeout=0):
            pushing = [log.append(name, [record(b"s1:a", b"%d" % number)], NOW_MS) for number in range(50)]
            told = await asyncio.gather(*pushing, return_exceptions=True)
        assert all(isinstance(each, OutcomeUnknown | StoreUnavailable) for each in told)
        await _until_appended(log, name)
    assert len(made) > 1


async def test_no_more_waits_for_kafka_than_is_allowed(kafka_proxy: Proxy, topic: Callable[..., str]) -> None:
    name = topic(partitions=PARTITIONS)
    kafka_proxy.down()
    async with closing(kafka_log(kafka_proxy.address, timeout=1.0, most_bytes=10_000)) as log:
        waiting = asyncio.ensure_future(log.append(name, [record(None, b"x" * 8_000)], NOW_MS))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="of 10000 that may"):
            await log.append(name, [record(None, b"x" * 8_000)], NOW_MS)
        with pytest.raises(StoreUnavailable):
            await waiting
        kafka_proxy.up()
        await _until_appended(log, name, b"x" * 8_000)


async def test_who_went_away_holds_nobody_up(bootstrap: str, topic: Callable[..., str]) -> None:
    name = topic(partitions=1)
    async with closing(kafka_log(bootstrap, most_bytes=1_000)) as log:
        for _ in range(20):
            gone = asyncio.ensure_future(log.append(name, [record(None, b"x" * 500)], NOW_MS))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        assert len(await log.append(name, [record(None, b"x" * 500)], NOW_MS)) == 1


async def test_a_topic_that_was_made_anew_is_found(
    admin: AdminClient, bootstrap: str, topic: Callable[..., str]
) -> None:
    """Its partitions know nothing of the producer's numbers; that offsets begin again is told at once."""
    name = topic(partitions=1)
    told: list[str] = []
    async with closing(kafka_log(bootstrap)) as log:
        log._made_anew = told.append
        await log.append(name, [record(b"s1:a", b"before")], NOW_MS)
        topic_again(admin, name)
        assert told == []
        await _until_appended(log, name, within_s=20)
        assert told == [name]


def topic_again(admin: AdminClient, name: str) -> None:
    """Delete a topic and make it anew."""
    from confluent_kafka.cimpl import NewTopic

    admin.delete_topics([name])[name].result(30)
    deadline = time.monotonic() + 20
    while True:
        try:
            admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
            return
        except Exception:
            assert time.monotonic() < deadline


async def _ends_at(bootstrap: str, topic: str, offset: int) -> bool:
    """Whether its only partition has so many records."""

    def end() -> int:
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1])
        finally:
            consumer.close()

    return await asyncio.to_thread(end) == offset


async def _told_in_time(
    error: Any, pushing: Awaitable[object], telling: str | None = None, within_s: float = 2.5
) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=telling):
        await pushing
    assert time.monotonic() - began < within_s


async def _until_appended(log: KafkaPushLog, topic: str, value: bytes = b"again", within_s: float = 15) -> list[Place]:
    """What one more append gives, once Kafka is found again; each attempt has a value of its own."""
    deadline = time.monotonic() + within_s
    number = 0
    while True:
        number += 1
        try:
            return await log.append(topic, [record(b"s1:a", value + b" %d" % number)], NOW_MS)
        except (StoreUnavailable, OutcomeUnknown):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
