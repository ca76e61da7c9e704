"""Looks at every link as soon as it is there: what it stands for must be at its place already.

In the end nobody can tell any more which was first, the link or its rows: what a crash leaves out is put right when the
partition is opened again. So law 3 is looked at while everything breaks, by a way to the stores that nobody cuts.
"""

import datetime
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from stillwell.errors import NotFound
from stillwell.layout import chain
from stillwell.layout.chain import Link, PartitionId
from stillwell.layout.dead_letter import read_dead_letter
from stillwell.layout.parquet import read_table
from stillwell.storage import ObjectStore
from tests.integration import oracle, orders
from tests.integration.orders import Record, Sent
from tests.stores import store_of

_LOOK_EVERY_S = 0.2
"""A link that comes less than this before its rows goes unseen; shorter looks would take the workers' time."""

_SHOWN = 5


class Witness:
    """Follows every chain of a topic for the length of a `with`.

    ends: how far each partition's chain has come. lateness: seconds from each link's making to its having been seen.
    """

    def __init__(self, environment: Mapping[str, str], topic: str, partitions: int) -> None:
        """environment: the deployment's settings, without proxies."""
        self.ends: dict[int, int] = {}
        self.lateness: list[float] = []
        self.wrong: list[str] = []
        self._environment = environment
        self._ids = [PartitionId(topic, 1, partition) for partition in range(partitions)]
        self._letters = _Letters(environment)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._letters.close()

    def _run(self) -> None:
        try:
            store = store_of(self._environment)
            while not self._ended.wait(_LOOK_EVERY_S):
                for id in self._ids:
                    for link in self._new_links(store, id):
                        self.wrong += self._missing(store, link)
        except Exception as error:  # a witness that has left must be missed
            self.wrong.append(f"the witness could not go on: {error!r}")

    def _new_links(self, store: ObjectStore, id: PartitionId) -> Iterator[Link]:
        try:
            if id.partition not in self.ends:
                self.ends[id.partition] = chain.decode_genesis(store.read(id.genesis_path), id.genesis_path).start
            while True:
                path = id.link_path(self.ends[id.partition])
                link = chain.decode_link(store.read(path), path)
                yield link
                self.lateness.append((datetime.datetime.now(datetime.UTC) - link.created_at).total_seconds())
                self.ends[id.partition] = link.end
        except NotFound:
            return

    def _missing(self, store: ObjectStore, link: Link) -> Iterator[str]:
        """What a link stands for and is not there."""
        name = f"link {link.id} {link.start}→{link.end}"
        try:
            records = _records(store, link)
        except NotFound as error:
            yield f"{name} was there before its file: {error}"
            return
        newest = oracle.newest(records)
        found = oracle.rows_in_redis(self._environment, orders.VIEW, newest)
        if rows := sorted(each for each, row in newest.items() if each not in found or found[each] < row):
            yield f"{name} was there before {len(rows)} of its rows were in Redis, such as {rows[:_SHOWN]}"
        rejects = {(each.partition, each.offset) for each in records if oracle.row_of(each) is None}
        if letters := sorted(rejects - self._letters.until_now(rejects)):
            yield f"{name} was there before {len(letters)} of its dead letters, such as {letters[:_SHOWN]}"


class _Letters:
    """The coordinates of all dead letters, read on as they come."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._found: set[oracle.Coordinates] = set()
        self._place = TopicPartition(environment["STILLWELL_DEAD_LETTER_TOPIC"], 0, 0)
        self._read_until = 0
        self._consumer = Consumer(
            {
                "bootstrap.servers": environment["STILLWELL_KAFKA_BOOTSTRAP"],
                "group.id": "witness",
                "enable.auto.commit": False,
            }
        )
        self._consumer.assign([self._place])

    def until_now(self, wanted: set[oracle.Coordinates]) -> set[oracle.Coordinates]:
        """Those that the topic holds, if any that is wanted is not known yet."""
        if not wanted <= self._found:
            end = self._consumer.get_watermark_offsets(self._place, timeout=10)[1]
            while self._read_until < end:
                # So many and no more: it waits until it has them, and the next link would be looked at late.
                for message in self._consumer.consume(min(end - self._read_until, 1_000), 1.0):
                    letter = read_dead_letter(message.key(), message.value(), tuple(message.headers() or ()))  # type: ignore[arg-type]
                    if letter:
                        self._found.add((letter.partition, letter.offset))
                    self._read_until = (message.offset() or 0) + 1
        return self._found

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _records(store: ObjectStore, link: Link) -> list[Sent]:
    if link.raw is None:
        return []
    columns = read_table(store.read(link.raw.path)).select(["_offset", "_timestamp", "value"]).to_pydict()
    return [
        Sent(link.id.topic, link.id.partition, offset, timestamp, Record(value))
        for offset, timestamp, value in zip(columns["_offset"], columns["_timestamp"], columns["value"], strict=True)
    ]
