"""A small deployment for integration tests: one topic of orders, one view of customers, written as a package."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka import Producer

DEFINITIONS = '''
from datetime import timedelta
from stillwell import Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View, col, feature

class Customer(Entity, owner="tests"):
    customer: Key[String]

class Order(Topic, name="{topic}", event_time="at", start="earliest"):
    at: Col[Timestamp]
    customer: Col[String]
    amount: Col[Float64]
    number: Col[Int64]

class LastOrder(View, source=Order, entity=Customer, keys={{"customer": Order.customer}}, where=Order.amount >= 0,
                ttl=timedelta(days=3650)):
    """The latest order of a customer."""
    amount: Feature[Float64] = feature(Order.amount)
    number: Feature[Int64] = feature(Order.number)
'''


def write_definitions(folder: Path, topic: str) -> None:
    """The package `orders` in a folder."""
    package = folder / "orders"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text(DEFINITIONS.format(topic=topic))


def order(number: int, rng: random.Random, customers: int = 50) -> dict[str, object]:
    """An order in disorder: its time is up to an hour before that of its number."""
    at = 1_760_000_000 + number - rng.randrange(3_600)
    return {
        "at": f"{_iso(at)}",
        "customer": f"c{rng.randrange(customers)}",
        "amount": round(rng.uniform(-1, 100), 2),
        "number": number,
    }


def _iso(seconds: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")


def produce(bootstrap: str, topic: str, values: Iterable[Mapping[str, object] | bytes], partitions: int = 1) -> None:
    """Produce each value to the partitions in turn, and wait until all are acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for index, value in enumerate(values):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        producer.produce(topic, body, partition=index % partitions)
        producer.poll(0)
    producer.flush(30)


def newest(orders: Iterable[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """The oracle: the order of each customer that is latest by time, then by place in its only partition."""
    found: dict[str, Mapping[str, object]] = {}
    for each in orders:
        customer = str(each["customer"])
        if float(str(each["amount"])) >= 0 and str(each["at"]) >= str(found.get(customer, {"at": ""})["at"]):
            found[customer] = each
    return found
