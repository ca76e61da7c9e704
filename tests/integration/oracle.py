"""What must be true of a deployment of orders, said again in a few lines that share no rule with the product's own.

Every offset is once in the raw archive, as it came, and once in the view if it is worth a row; every customer's newest
order is in Redis, value by value, and nothing else; every record that cannot be used is in the dead letters, as it was.
`stillwell verify` says the rest: that all of it is linked, and adds up.
"""

import asyncio
import collections
import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import redis
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from sinks.redis import RedisOnlineStore
from sinks.redis_link import RedisLink
from stillwell.layout import chain, value
from stillwell.layout.dead_letter import DeadLetter, read_dead_letter
from stillwell.layout.parquet import read_table
from stillwell.layout.redis_keys import RedisKeys
from stillwell.spec import FeatureSpec
from stillwell.types import FLOAT64, INT64
from tests.integration import orders
from tests.integration.orders import Record, Sent
from tests.stores import store_of

Coordinates = tuple[int, int]
"""Partition and offset."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_HOUR_MS = 3_600_000
_LONGEST_NAME = 500
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Row:
    """What Redis has to hold of a customer. In the order of its fields, the last of several is the newest."""

    event_time: int
    timestamp: int
    partition: int
    offset: int
    amount: float
    number: int


def row_of(sent: Sent) -> tuple[str, Row] | None:
    """The customer and the row that a record is to give, or None for a record that cannot be used."""
    try:
        order = json.loads(sent.record.value or b"")
        at = (datetime.datetime.fromisoformat(order["at"]) - _EPOCH) // _MICROSECOND
        customer, amount, number = order["customer"], order["amount"], order["number"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if (type(customer), type(amount), type(number)) != (str, float, int) or at // 1000 > sent.timestamp + _HOUR_MS:
        return None
    if not -(2**63) <= number < 2**63 or len(customer) > _LONGEST_NAME:
        return None
    return customer, Row(at, sent.timestamp, sent.partition, sent.offset, amount, number)


def newest(sent: Iterable[Sent]) -> dict[str, Row]:
    """The newest row of each customer: by the order's time, then its record's, then its place."""
    found: dict[str, Row] = {}
    for each in sent:
        given = row_of(each)
        if given and given[1].amount >= 0:
            customer, row = given
            found[customer] = max(row, found.get(customer, row))
    return found


def what_is_wrong(
    environment: Mapping[str, str], topic: str, sent: Sequence[Sent], view: str = orders.VIEW
) -> list[str]:
    """Everything in which a deployment differs from what these records must have become.

    environment: the deployment's settings. sent: all records of the topic that it was to read; none, if it read none.
    """
    given = {(each.partition, each.offset): row_of(each) for each in sent}
    archived = list(_archived(environment, topic))
    raw = [at for table in archived for at in _coordinates(table)]
    rows = [at for table in _rows(environment, topic, view) for at in _coordinates(table)]
    return [
        *_wrong_places("raw archive", raw, set(given)),
        *_wrong_places(f"files of {view}", rows, {at for at, got in given.items() if got and got[1].amount >= 0}),
        *_wrong_records(archived, sent),
        *_wrong_rows(environment, view, newest(sent)),
        *_wrong_letters(environment, topic, {(each.partition, each.offset): each for each in sent if not row_of(each)}),
    ]


def linked(environment: Mapping[str, str], topic: str | None = None) -> int:
    """How many records the chains cover."""
    return sum(link.records for link in _links(environment, topic))


def ends(environment: Mapping[str, str], topic: str) -> dict[int, int]:
    """Where the chain of each partition ends."""
    return {link.id.partition: link.end for link in _links(environment, topic)}


def committed(environment: Mapping[str, str], topic: str, of: str = "") -> dict[int, int]:
    """The offset that the group has committed for each partition of a topic that it has committed any for.

    of: whose group, where it is not the worker's own.
    """
    admin = AdminClient({"bootstrap.servers": environment["STILLWELL_KAFKA_BOOTSTRAP"]})
    group = f"{environment['STILLWELL_PROJECT']}.{environment['STILLWELL_NAMESPACE']}" + (of and f".{of}")
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    offsets = asked[group].result(10).topic_partitions
    return {each.partition: each.offset for each in offsets if each.topic == topic}


def rows_in_redis(environment: Mapping[str, str], view: str, customers: Iterable[str]) -> dict[str, Row]:
    """The rows of those of the customers that have one."""
    names = sorted(customers)
    stored = asyncio.run(_get(environment, view, [b"s%d:%b" % (len(name.encode()), name.encode()) for name in names]))
    return {name: _decoded(view, row) for name, row in zip(names, stored, strict=True) if row}


def dead_letters(environment: Mapping[str, str], topic: str) -> list[DeadLetter]:
    """What the dead-letter topic holds of a topic, repetitions included."""
    records = orders.read(environment["STILLWELL_KAFKA_BOOTSTRAP"], environment["STILLWELL_DEAD_LETTER_TOPIC"], 1)
    letters = (read_dead_letter(each.record.key, each.record.value, each.record.headers) for each in records)
    return [letter for letter in letters if letter and letter.topic == topic]


def _wrong_places(where: str, found: Iterable[Coordinates], expected: set[Coordinates]) -> Iterator[str]:
    times = collections.Counter(found)
    if missing := expected - times.keys():
        yield f"{where}: {len(missing)} of {len(expected)} offsets are missing, such as {sorted(missing)[:_SHOWN]}"
    if more := times.keys() - expected:
        yield f"{where}: {len(more)} offsets should not be there, such as {sorted(more)[:_SHOWN]}"
    if doubled := [at for at, count in times.items() if count > 1]:
        yield f"{where}: {len(doubled)} offsets are there more than once, such as {sorted(doubled)[:_SHOWN]}"


def _wrong_records(archived: Iterable[pa.Table], sent: Iterable[Sent]) -> Iterator[str]:
    found = {}
    for table in archived:
        columns = [table.column(name).to_pylist() for name in ("value", "key", "headers")]
        for at, body, key, headers in zip(_coordinates(table), *columns, strict=True):
            found[at] = Record(body, key, tuple((each["name"], each["value"]) for each in headers or ()))
    differ = [
        (each.partition, each.offset)
        for each in sent
        if found.get((each.partition, each.offset), each.record) != each.record
    ]
    if differ:
        yield f"raw archive: {len(differ)} records are not as they came, such as {differ[:_SHOWN]}"


def _wrong_rows(environment: Mapping[str, str], view: str, expected: Mapping[str, Row]) -> Iterator[str]:
    found = rows_in_redis(environment, view, expected)
    differ = {customer: (found.get(customer), row) for customer, row in expected.items() if found.get(customer) != row}
    if differ:
        yield f"Redis: {len(differ)} of {len(expected)} rows of {view} differ (found, expected): {_some(differ)}"
    keys = RedisKeys(environment["STILLWELL_PROJECT"], environment["STILLWELL_NAMESPACE"])
    with redis.Redis.from_url(environment["STILLWELL_REDIS_URL"]) as client:
        stored = sum(1 for _ in client.scan_iter(keys.prefix + b"f:*:" + view.encode(), count=10_000))
    if stored != len(expected):
        yield f"Redis: holds {stored} rows of {view}, there should be {len(expected)}"


def _wrong_letters(environment: Mapping[str, str], topic: str, rejects: Mapping[Coordinates, Sent]) -> Iterator[str]:
    letters = {(letter.partition, letter.offset): letter for letter in dead_letters(environment, topic)}
    if missing := rejects.keys() - letters.keys():
        yield f"dead letters: {len(missing)} of {len(rejects)} are missing, such as {sorted(missing)[:_SHOWN]}"
    if more := letters.keys() - rejects.keys():
        yield f"dead letters: {len(more)} should not be there, such as {sorted(more)[:_SHOWN]}"
    for at in sorted(rejects.keys() & letters.keys()):
        letter, record = letters[at], rejects[at].record
        kept = Record(letter.value, letter.key, letter.headers)
        by_reference = (Record(None, record.key, record.headers), Record(None))
        if kept not in (by_reference if letter.by_reference else (record,)):
            yield f"dead letters: {at} is not as it came: {letter}"


def _some(items: Mapping[str, object]) -> str:
    return "; ".join(f"{name}: {item}" for name, item in sorted(items.items())[:_SHOWN])


def _links(environment: Mapping[str, str], topic: str | None) -> Iterator[chain.Link]:
    store = store_of(environment)
    for id in chain.partitions(store):
        if topic in (None, id.topic):
            yield from chain.walk(store, id)[1]


def _archived(environment: Mapping[str, str], topic: str) -> Iterator[pa.Table]:
    store = store_of(environment)
    for link in _links(environment, topic):
        if link.raw:
            yield read_table(store.read(link.raw.path))


def _rows(environment: Mapping[str, str], topic: str, view: str) -> Iterator[pa.Table]:
    store = store_of(environment)
    for link in _links(environment, topic):
        for account in link.views:
            if account.view == view and account.file:
                yield read_table(store.read(account.file.path))


def _coordinates(table: pa.Table) -> Iterator[Coordinates]:
    return zip(table.column("_partition").to_pylist(), table.column("_offset").to_pylist(), strict=True)


async def _get(environment: Mapping[str, str], view: str, keys: Sequence[bytes]) -> list[bytes | None]:
    link = RedisLink(environment["STILLWELL_REDIS_URL"], timeout=5, connections=1)
    store = RedisOnlineStore(link, RedisKeys(environment["STILLWELL_PROJECT"], environment["STILLWELL_NAMESPACE"]))
    try:
        return await store.get(view, keys)
    finally:
        await store.close()


def _decoded(view: str, stored: bytes) -> Row:
    features = [
        FeatureSpec(name=name, type=kind, nullable=False, expression=None)
        for name, kind in (("amount", FLOAT64), ("number", INT64))
    ]
    row = value.decode(value.RowLayout(view, features), stored)
    stamp, amount, number = row.stamp, row.values["amount"], row.values["number"]
    assert isinstance(amount, float)
    assert isinstance(number, int)
    return Row(stamp.event_time, stamp.timestamp, stamp.partition, stamp.offset, amount, number)
