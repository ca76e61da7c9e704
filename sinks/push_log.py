"""The durable log of pushes: records into Kafka, each acknowledged with its place, or refused within a deadline.

Whoever pushes in the same turn of the event loop, and while an earlier batch of a partition is on its way, shares the
next one: a batch of one record costs as much as one of a hundred (on one machine a millisecond and 0.25 ms of processor
time; a record by itself 0.4 µs). aiokafka's own `send` gathers too, but costs 25 µs a record.

A producer never gives up a batch. So who has waited long enough is told, and the producer is thrown away with what it
had not sent (`sinks.push_producer`): the next push makes another. A record that was given up may be in Kafka all the
same, or not: to push it again is harmless.
"""

import asyncio
import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2

from sinks.push_producer import FAREWELL, METADATA_MAX_AGE_MS, Producer, ProducerInUse
from stillwell.errors import OutcomeUnknown, StillwellError, StoreUnavailable
from stillwell.kafka_connection import refusals
from stillwell.pushing.log import Place
from stillwell.pushing.record import PushRecord

_log = structlog.get_logger(__name__)

_RECORD_OVERHEAD = 100
"""Bytes of memory that a record takes beside its content, more or less."""

_MENDS = refusals("the user of the query service", "batches")


_NOWHERE = Place(-1, -1, -1)
_AS_GIVEN = -1
"""What Kafka answers as the timestamp of records that keep their own."""

_GIVEN_UP = "they may be there, or may yet come; to push them again is harmless"


class _Ask:
    """Records that somebody waits for. touched: whether some of them were given to a producer."""

    __slots__ = ("done", "left", "places", "records", "timestamp", "touched")

    def __init__(self, records: Sequence[PushRecord], timestamp: int, done: "asyncio.Future[list[Place]]") -> None:
        self.records = records
        self.timestamp = timestamp
        self.done = done
        self.places = [_NOWHERE] * len(records)
        self.left = len(records)
        self.touched = False

    def acknowledge(self, number: int, place: Place) -> None:
        """One of the records is at its place."""
        self.places[number] = place
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(self.places)

    def fail(self, error: StillwellError) -> None:
        """They will not all be there."""
        if not self.done.done():
            self.done.set_exception(error)

    def forget(self) -> None:
        """Nobody waits any more."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()


_Member = tuple[_Ask, int]
"""A record: whose, and which of its records."""


class _Lane:
    """One partition: what waits for its next batch, and the batch that is on its way."""

    __slots__ = ("last", "on_its_way", "partition", "sending", "topic", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.waiting: collections.deque[_Member] = collections.deque()
        self.on_its_way: list[_Member] = []
        self.sending: asyncio.Task[None] | None = None
        self.last = -1
        """The greatest offset that Kafka has given."""


class KafkaPushLog:
    """For one event loop; `close` it."""

    def __init__(
        self,
        make: Callable[[], Producer],
        timeout: float,
        most_bytes: int,
        made_anew: Callable[[str], None] = lambda topic: None,
    ) -> None:
        """make: gives a producer that is not started. timeout: seconds in which Kafka must have acknowledged what is
        appended, connecting included. most_bytes: that may wait for it; beyond, appending is refused at once.
        made_anew: told of a topic whose offsets begin again, before anybody hears of one of them."""
        self._producer = ProducerInUse(make, timeout)
        self._timeout = timeout
        self._most_bytes = most_bytes
        self._made_anew = made_anew
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._partitions: dict[str, tuple[float, list[int]]] = {}
        self._batches = 0
        self._nbytes = 0

    async def append(self, topic: str, records: Sequence[PushRecord], timestamp: int) -> list[Place]:
        """Put records, which all have this timestamp, into a topic; where they are, in their order.

        Those with a key go to the partition that Kafka's producers choose for it, those without to one together. Raises
        StoreUnavailable where certainly none of them was written, OutcomeUnknown where some may be, or may yet come.
        """
        nbytes = sum(record.nbytes + _RECORD_OVERHEAD for record in records)
        if self._nbytes + nbytes > self._most_bytes:
            raise StoreUnavailable(
                f"{self._nbytes} bytes of pushed rows wait for Kafka already, of {self._most_bytes} that may: it is "
                "slow or away; push again later, or less at a time"
            )
        ask = _Ask(records, timestamp, self._loop.create_future())
        deadline = self._loop.call_later(self._timeout, self._late, ask, topic)
        self._nbytes += nbytes
        try:
            self._hand_out(ask, topic, await self._partitions_of(topic, ask))
            return await ask.done
        finally:
            self._nbytes -= nbytes
            deadline.cancel()
            # Whoever was cancelled (a client that went away) leaves records behind that are passed over.
            ask.forget()

    async def close(self) -> None:
        """Refuse what waits, and let go of Kafka. What is on its way has a moment to be acknowledged."""
        self._producer.refuse()
        sending = [lane.sending for lane in self._lanes.values() if lane.sending]
        if sending:
            await asyncio.wait(sending, timeout=FAREWELL)
        self._discard()
        await self._producer.close()

    # ---- to a partition ----

    async def _partitions_of(self, topic: str, ask: _Ask) -> list[int]:
        """The numbers of the topic's partitions. Raises what the deadline says, if that comes first."""
        known = self._partitions.get(topic)
        if known and self._producer.current is not None and self._loop.time() < known[0]:
            return known[1]
        looking: asyncio.Task[list[int]] = self._producer.spawn(self._look(topic))
        try:
            await asyncio.wait((looking, ask.done), return_when=asyncio.FIRST_COMPLETED)
            if ask.done.done():
                await ask.done
            return looking.result()
        finally:
            looking.cancel()

    async def _look(self, topic: str) -> list[int]:
        producer = await self._producer.started()
        try:
            # aiokafka goes on asking for a topic that is not there.
            async with asyncio.timeout(self._timeout / 2):
                found = sorted(await producer.partitions_for(topic))
        except TimeoutError as error:
            raise StoreUnavailable(f"push topic {topic}: {_MENDS[UnknownTopicOrPartitionError]}") from error
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"push topic {topic}: {_MENDS.get(type(error), repr(error))}") from error
        self._partitions[topic] = self._loop.time() + METADATA_MAX_AGE_MS / 1_000, found
        return found

    def _hand_out(self, ask: _Ask, topic: str, partitions: Sequence[int]) -> None:
        if not ask.records:
            ask.done.set_result([])
        # Those without a key that gather for the same batch share a partition; the next ones go to another.
        keyless = self._batches % len(partitions)
        lanes = [self._lane(topic, partition) for partition in partitions]
        for number, record in enumerate(ask.records):
            lane = lanes[keyless if record.key is None else _hash(record.key) % len(lanes)]
            lane.waiting.append((ask, number))
        for lane in lanes:
            self._flush(lane)

    def _lane(self, topic: str, partition: int) -> _Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(topic, partition)
        return lane

    def _flush(self, lane: _Lane) -> None:
        """Send what waits, unless a batch is on its way: behind it this is called again."""
        if lane.waiting and lane.sending is None:
            lane.sending = self._loop.create_task(self._send(lane))

    async def _send(self, lane: _Lane) -> None:
        """One batch. Runs in the next turn of the loop: until then others join."""
        producer: Producer | None = None
        try:
            producer = await self._producer.started()
            # Thrown away in the moment between its start and now: the lane is flushed once more.
            if producer is self._producer.current:
                await self._send_batch(lane, producer)
        except (KafkaError, OSError) as error:
            mend = _MENDS.get(type(error))
            told = f"push topic {lane.topic}: {mend or repr(error)}"
            _fail(lane.on_its_way, StoreUnavailable(told) if mend else OutcomeUnknown(told))
            _log.warning("a batch of pushed rows failed; the next push makes another producer", error=told)
            self._discard(producer)
        except StoreUnavailable as error:
            _fail(lane.waiting, error)
            lane.waiting.clear()
        except Exception as error:
            # A fault of ours or of aiokafka's: everybody is told, rather than tried again without end.
            _log.exception("pushed rows cannot be sent", topic=lane.topic)
            _fail([*lane.on_its_way, *lane.waiting], OutcomeUnknown(f"push topic {lane.topic}: {error!r}"))
            lane.waiting.clear()
            self._discard(producer)
        except asyncio.CancelledError:
            _fail(lane.on_its_way, OutcomeUnknown(f"push topic {lane.topic}: {_GIVEN_UP}"))
        finally:
            lane.on_its_way = []
            lane.sending = None
            self._flush(lane)

    async def _send_batch(self, lane: _Lane, producer: Producer) -> None:
        batch = producer.create_batch()
        lane.on_its_way = members = _fill(batch, lane.waiting)
        if not members:
            return
        self._batches += 1
        for ask, _ in members:
            ask.touched = True
        sent = await (await producer.send_batch(batch, lane.topic, partition=lane.partition))
        if sent.offset < 0:
            told = f"push topic {lane.topic}: Kafka has the rows, but no longer tells where"
            _fail(members, OutcomeUnknown(told))
            return
        if sent.offset <= lane.last:
            self._made_anew(lane.topic)
        lane.last = sent.offset + len(members) - 1
        for place, (ask, number) in enumerate(members, sent.offset):
            timestamp = ask.timestamp if sent.timestamp == _AS_GIVEN else sent.timestamp
            ask.acknowledge(number, Place(lane.partition, place, timestamp))

    def _late(self, ask: _Ask, topic: str) -> None:
        """Somebody has waited long enough."""
        if ask.done.done():
            return
        told = f"Kafka has not acknowledged rows for push topic {topic} within {self._timeout:g} s"
        if ask.touched:
            ask.fail(OutcomeUnknown(f"{told}: {_GIVEN_UP}"))
            if self._producer.current is not None:
                _log.warning(
                    "Kafka does not acknowledge pushed rows; the next push makes another producer", topic=topic
                )
            self._discard()
        else:
            ask.fail(StoreUnavailable(f"{told}: none of them was sent"))

    def _discard(self, producer: Producer | None = None) -> None:
        """Throw the producer away (only if it still is this one), and give up the batches that it was given."""
        if not self._producer.discard(producer):
            return
        for lane in self._lanes.values():
            if lane.sending and lane.on_its_way and lane.sending is not asyncio.current_task():
                lane.sending.cancel()


@functools.lru_cache(maxsize=4_096)
def _hash(key: bytes) -> int:
    """Kafka's own hash of a key: 2 µs for a short one that is not remembered."""
    return int(murmur2(key)) & 0x7FFFFFFF


def _fill(batch: Any, waiting: collections.deque[_Member]) -> list[_Member]:
    """Move records into a batch until it is full; those that nobody waits for any more are dropped."""
    members: list[_Member] = []
    while waiting:
        ask, number = waiting[0]
        if not ask.done.done():
            record = ask.records[number]
            headers = list(record.headers)
            taken = batch.append(timestamp=ask.timestamp, key=record.key, value=record.value, headers=headers)
            if taken is None:
                break
            members.append((ask, number))
        waiting.popleft()
    return members


def _fail(members: Sequence[_Member], error: StillwellError) -> None:
    """Tell everybody who has records among these."""
    own = collections.Counter(ask for ask, _ in members)
    for ask, count in own.items():
        # Where some of somebody's records were refused for certain, the others may have been written.
        whole = count == len(ask.records) or not ask.touched
        ask.fail(error if whole or isinstance(error, OutcomeUnknown) else OutcomeUnknown(str(error)))
