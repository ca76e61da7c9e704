"""The events that flow while everything breaks: in disorder, late, repeated, tied, bad, and in transactions."""

import contextlib
import random
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Iterator
from typing import Self

from confluent_kafka import KafkaException, Producer

from tests.integration import orders
from tests.integration.orders import Order, Record

CUSTOMERS = 2_000
TICK_S = 0.05
DAY_S = 86_400

_BAD: tuple[bytes | None, ...] = (b"{", b"", None, b"[1]", b'{"at": 1}', bytes(50), b'{"customer": "\xff"}')


def events(rng: random.Random, kinds: Counter[str]) -> Iterator[Order | Record]:
    """Orders without end, and what else producers send; counts what it gave."""
    recent: deque[Order] = deque(maxlen=1_000)
    number = 0
    while True:
        number += 1
        order = orders.order(number, rng, CUSTOMERS)
        dice = rng.random()
        if dice < 0.02:
            kinds["bad"] += 1
            yield Record(rng.choice(_BAD), key=str(number).encode())
            continue
        if dice < 0.10 and recent:
            kinds["repeated"] += 1
            yield rng.choice(recent)
            continue
        if dice < 0.20:
            kinds["late"] += 1
            order = {**order, "at": orders.time(number - rng.randrange(DAY_S))}
        elif dice < 0.30 and recent:
            kinds["tied"] += 1
            order = {**order, "at": rng.choice(recent)["at"], "customer": rng.choice(recent)["customer"]}
        else:
            kinds["plain"] += 1
        recent.append(order)
        yield order


class Feed:
    """Sends events at a steady pace for the length of a `with`, every tenth part of them in transactions, of which a
    third is aborted. It has its own way to Kafka, which nobody cuts. wrong: why it could not go on, if it could not.

    While a transaction is open nothing behind it is read: the slowest one tells how long that was.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, pace: int, rng: random.Random) -> None:
        """pace: events a second."""
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_transaction_s = 0.0
        self._topic = topic
        self._partitions = partitions
        self._pace = pace
        self._rng = rng
        self._events = events(rng, self.kinds)
        self._plain = Producer(orders.producing(bootstrap))
        self._transactional = Producer(
            {**orders.producing(bootstrap), "transactional.id": f"feed-{topic}", "message.timeout.ms": 30_000}
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Self:
        self._transactional.init_transactions(30)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: types.TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._plain.flush(60):
            self.wrong.append("the feed: Kafka has not acknowledged everything")
        for producer in (self._plain, self._transactional):
            with contextlib.suppress(KafkaException):  # of one whose transaction has failed, which was told
                producer.close()  # or it would look for a Kafka that has ended

    def _run(self) -> None:
        try:
            while not self._ended.wait(TICK_S):
                if self._rng.random() < 0.1:
                    self._send_transaction()
                else:
                    self._send(self._plain)
        except Exception as error:  # a feed that has ended would make everything easy
            self.wrong.append(f"the feed could not go on: {error!r}")

    def _send(self, producer: Producer) -> None:
        for _ in range(int(self._pace * TICK_S)):
            partition = self._rng.randrange(self._partitions)
            orders.send(producer, self._topic, next(self._events), partition, lambda sent: None)

    def _send_transaction(self) -> None:
        started = time.monotonic()
        self._transactional.begin_transaction()
        self._send(self._transactional)
        # An abort throws away what is still queued, and librdkafka then misses the numbers of these in the sequence.
        self._transactional.flush(30)
        if self._rng.random() < 0.33:
            self.kinds["aborted transactions"] += 1
            self._transactional.abort_transaction(30)
        else:
            self.kinds["transactions"] += 1
            self._transactional.commit_transaction(30)
        self.slowest_transaction_s = max(self.slowest_transaction_s, time.monotonic() - started)
