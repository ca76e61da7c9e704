"""How far a partition is behind is known also while nothing of it is fetched."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from streams.log_ends import LogEnds

ORDERS = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
RETURNS = TopicPartition("returns", 0)


class _Kafka:
    """Answers with the ends that a test sets; a topic that is set to an error fails."""

    def __init__(self) -> None:
        self.ends: dict[TopicPartition, int] = {ORDERS[0]: 10, ORDERS[1]: 20, RETURNS: 30}
        self.fetched: dict[TopicPartition, int | None] = {}
        self.errors: dict[str, Exception] = {}
        self.asked: list[list[TopicPartition]] = []

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked.append(list(partitions))
        if error := self.errors.get(partitions[0].topic):
            raise error
        return {partition: self.ends[partition] for partition in partitions}

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        return self.fetched.get(partition)


async def test_ends_are_asked_for_by_one_request_a_topic() -> None:
    kafka = _Kafka()
    ends = LogEnds(cast(Any, kafka))
    assert ends.of(RETURNS, flows=False) is None
    await ends.ask({RETURNS, *ORDERS})
    assert kafka.asked == [ORDERS, [RETURNS]]
    assert [ends.of(partition, flows=False) for partition in (*ORDERS, RETURNS)] == [10, 20, 30]


@pytest.mark.parametrize("error", [KafkaTimeoutError(), ConnectionError(), TimeoutError()])
async def test_a_topic_that_is_not_answered_for_keeps_its_last_ends_and_others_get_theirs(error: Exception) -> None:
    kafka = _Kafka()
    ends = LogEnds(cast(Any, kafka))
    await ends.ask([*ORDERS, RETURNS])
    kafka.errors["orders"] = error
    kafka.ends = dict.fromkeys(kafka.ends, 99)
    await ends.ask([*ORDERS, RETURNS])
    assert [ends.of(partition, flows=False) for partition in (*ORDERS, RETURNS)] == [10, 20, 99]


async def test_of_what_was_asked_and_what_came_with_a_fetch_the_later_one_counts() -> None:
    """While records flow, fetches tell sooner; while none is fetched, only asking does."""
    kafka = _Kafka()
    ends = LogEnds(cast(Any, kafka))
    kafka.fetched = {ORDERS[0]: 12, ORDERS[1]: 5}
    assert ends.of(ORDERS[0], flows=True) == 12
    await ends.ask(ORDERS)
    assert [ends.of(partition, flows=True) for partition in ORDERS] == [12, 20]
    assert [ends.of(partition, flows=False) for partition in ORDERS] == [10, 20]


async def test_what_was_given_away_is_forgotten() -> None:
    kafka = _Kafka()
    ends = LogEnds(cast(Any, kafka))
    await ends.ask(ORDERS)
    await ends.ask([ORDERS[1]])
    assert [ends.of(partition, flows=False) for partition in ORDERS] == [None, 20]
    await ends.ask([])
    assert ends.of(ORDERS[1], flows=False) is None
