"""A small deployment for integration tests: topics of orders, a view of customers for each, written as a package.

What was sent is remembered record by record as Kafka has acknowledged it, so that an oracle can say what must come of
it (`tests/integration/oracle.py`).
"""

import dataclasses
import datetime
import itertools
import json
import random
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

DEFINITIONS = """
from datetime import timedelta
from stillwell import Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View, col, feature

class Customer(Entity, owner="tests"):
    customer: Key[String]
"""

TOPIC = '''
class {event}(Topic, name="{topic}", event_time="at", start="earliest"):
    at: Col[Timestamp]
    customer: Col[String]
    amount: Col[Float64]
    number: Col[Int64]

class Last{event}(View, source={event}, entity=Customer, keys={{"customer": {event}.customer}},
                  where={event}.amount >= 0, ttl=timedelta(days=3650)):
    """The latest of a customer."""
    amount: Feature[Float64] = feature({event}.amount)
    number: Feature[Int64] = feature({event}.number)
'''

VIEW = "LastOrder"
"""The view of the first topic."""

VIEW_OF_RETURNS = "LastReturn"
"""The view of the second topic, where there is one."""

Order = Mapping[str, object]
Headers = tuple[tuple[str, bytes | None], ...]

_FIRST = 1_760_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record to be produced, for those that are more than a value."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Sent:
    """A record that Kafka has, and where. timestamp: milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    record: Record = dataclasses.field(compare=False)


def write_definitions(folder: Path, topic: str, returns: str | None = None) -> None:
    """The package `orders` in a folder: a topic and its view, and the same once more for a second topic, `returns`."""
    package = folder / "orders"
    package.mkdir(exist_ok=True)
    topics = {"Order": topic} | ({"Return": returns} if returns else {})
    parts = [DEFINITIONS, *(TOPIC.format(event=event, topic=name) for event, name in topics.items())]
    (package / "__init__.py").write_text("".join(parts))


def order(number: int, rng: random.Random, customers: int = 50) -> dict[str, object]:
    """An order in disorder: its time is up to an hour before that of its number."""
    return {
        "at": time(number - rng.randrange(3_600)),
        "customer": f"c{rng.randrange(customers)}",
        "amount": round(rng.uniform(-1, 100), 2),
        "number": number,
    }


def orders(count: int, rng: random.Random, first: int = 0, customers: int = 50) -> list[dict[str, object]]:
    """So many orders in disorder, numbered from `first` on."""
    return [order(number, rng, customers) for number in range(first, first + count)]


def time(seconds: int) -> str:
    """So many seconds after the first order, as orders write it."""
    return datetime.datetime.fromtimestamp(_FIRST + seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def produce(
    bootstrap: str,
    topic: str,
    values: Iterable[Order | bytes | Record | None],
    partitions: int = 1,
    *,
    settings: Mapping[str, str | int] | None = None,
) -> list[Sent]:
    """Produce each value to the partitions in turn, and wait until all are acknowledged; gives what Kafka has now."""
    sent: list[Sent] = []
    producer = Producer(producing(bootstrap, settings))
    for index, value in enumerate(values):
        send(producer, topic, value, index % partitions, sent.append)
    _finish(producer)
    return sent


def produce_transaction(
    bootstrap: str, topic: str, values: Iterable[Order | bytes | Record | None], *, partitions: int = 1, commit: bool
) -> list[Sent]:
    """Produce in one transaction, to the partitions in turn, that is committed or aborted; gives what was committed."""
    sent: list[Sent] = []
    producer = Producer({**producing(bootstrap, {"message.timeout.ms": 30_000}), "transactional.id": f"orders-{topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for index, value in enumerate(values):
        send(producer, topic, value, index % partitions, sent.append)
    _finish(producer)
    if commit:
        producer.commit_transaction(30)
        return sent
    producer.abort_transaction(30)
    return []


def send(
    producer: Producer,
    topic: str,
    value: Order | bytes | Record | None,
    partition: int,
    acknowledged: Callable[[Sent], object],
) -> None:
    """Hand one value to a producer; told of what Kafka has when it has it."""
    record = value if isinstance(value, Record) else Record(_body(value))

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            acknowledged(_sent(message, record))

    while True:
        try:
            producer.produce(
                topic,
                record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partition,
                on_delivery=delivered,
            )
            break
        except BufferError:
            producer.poll(1)
    producer.poll(0)


def read(bootstrap: str, topic: str, partitions: int) -> list[Sent]:
    """Every record that a topic holds now, but for those of aborted transactions."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: list[Sent] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        ended: set[int | None] = set()
        while len(ended) < partitions:
            for message in consumer.consume(5_000, 1.0):
                error = message.error()
                if error is None:
                    headers = tuple(message.headers() or ())
                    found.append(_sent(message, Record(message.value(), message.key(), headers)))  # type: ignore[arg-type]
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
    finally:
        consumer.close()
    return found


def log_ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    """The offset behind the last record or marker of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    try:
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for partition in range(partitions)
        }
    finally:
        consumer.close()


class Feed:
    """Produces orders in the background at a steady pace for the length of a `with`; `sent` is what Kafka has of them.

    values: what to send, in order, without end. Partitions are taken in turn.
    """

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, values: Iterator[Order | bytes | Record | None], pace: int
    ) -> None:
        """pace: records a second."""
        self.sent: list[Sent] = []
        self._producer = Producer(producing(bootstrap))
        self._topic = topic
        self._partitions = partitions
        self._values = values
        self._pace = pace
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed of {topic}")

    @classmethod
    def of_orders(cls, bootstrap: str, topic: str, partitions: int, rng: random.Random, pace: int = 1_000) -> Self:
        """One of orders in disorder."""
        return cls(bootstrap, topic, partitions, (order(number, rng) for number in itertools.count()), pace)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        _finish(self._producer)

    def _run(self) -> None:
        in_turn = itertools.cycle(range(self._partitions))
        tick = 0.02
        while not self._ended.wait(tick):
            for value in itertools.islice(self._values, max(1, int(self._pace * tick))):
                send(self._producer, self._topic, value, next(in_turn), self.sent.append)


def producing(bootstrap: str, settings: Mapping[str, str | int] | None = None) -> dict[str, str | int]:
    """What a producer of orders is configured with."""
    # Idempotent: an outage of Kafka makes no record come twice, and changes nothing in the order of a partition.
    return {
        "bootstrap.servers": bootstrap,
        "linger.ms": 5,
        "enable.idempotence": True,
        "message.timeout.ms": 120_000,
        **(settings or {}),
    }


def _finish(producer: Producer) -> None:
    left = producer.flush(120)
    assert left == 0, f"Kafka has not acknowledged {left} records"


def _body(value: Order | bytes | None) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()


def _sent(message: Message, record: Record) -> Sent:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Sent(topic, partition, offset, message.timestamp()[1], record)


def in_partition(sent: Iterable[Sent], partition: int) -> Sequence[Sent]:
    """Those of one partition, by offset."""
    return sorted(each for each in sent if each.partition == partition)
