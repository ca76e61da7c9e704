"""`stillwell produce`."""

import collections
import contextlib
import time
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from stillwell.cli.events import FileEvent, events_of, key_option
from stillwell.cli.output import json_option, print_json
from stillwell.cli.topics import PARTITIONS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from aiokafka import AIOKafkaProducer

    from stillwell.settings import KafkaSettings

_AHEAD = 2_000
"""Records that are on their way while Kafka has not acknowledged the first of them."""

_SO_FAR = 10.0
"""Seconds after which it is told how many Kafka has."""

_TIMEOUT = 30.0
"""Seconds for Kafka to acknowledge a record."""

_FAREWELL = 2.0
"""Seconds to close the connections."""


@click.command()
@click.argument("topic")
@click.argument("file", type=click.File("rb"))
@key_option
@click.option(
    "--create", is_flag=True, help="Make the topic if it is not there, as `stillwell topics create` makes topics."
)
@json_option
def produce(topic: str, file: BinaryIO, key: str | None, create: bool, as_json: bool) -> None:
    """Write the lines of a FILE to a TOPIC of Kafka's; a FILE called - is standard input.

    Each line is the value of a record, as it stands: a JSON object, or what a producer might send by mistake. Ends when
    all in-sync copies have each of them. For trying things out: a second run sends all of it a second time.
    """
    import asyncio

    from stillwell.counting import counted
    from stillwell.settings import KafkaSettings

    settings = KafkaSettings.load()
    told = _Told()
    try:
        asyncio.run(_produce(settings, topic, events_of(file, key), create, told))
    finally:
        if told.acknowledged or as_json:
            _sum_up(topic, told, as_json)
    if not told.acknowledged:
        click.echo(f"{file.name} holds no line: nothing was written", err=True)
    if key is not None and told.without_key:
        click.echo(f"{counted(told.without_key, 'line')} had no {key}: those records have no key", err=True)


class _Told:
    """What Kafka has acknowledged, by partition."""

    def __init__(self) -> None:
        self.partitions: collections.Counter[int] = collections.Counter()
        self.without_key = 0
        self._told_at = time.monotonic()

    @property
    def acknowledged(self) -> int:
        return self.partitions.total()

    def add(self, sent: "asyncio.Future[Any]") -> None:
        """A record that was sent has an answer."""
        from stillwell.counting import counted

        if sent.cancelled() or sent.exception():
            return
        self.partitions[sent.result().partition] += 1
        if time.monotonic() - self._told_at > _SO_FAR:
            self._told_at = time.monotonic()
            click.echo(f"{counted(self.acknowledged, 'record')} so far", err=True)


def _sum_up(topic: str, told: _Told, as_json: bool) -> None:
    from stillwell.counting import counted

    if as_json:
        partitions = dict(sorted(told.partitions.items()))
        print_json({"topic": topic, "acknowledged": told.acknowledged, "partitions": partitions})
        return
    where = counted(len(told.partitions), "partition")
    click.echo(f"{counted(told.acknowledged, 'record')} written to {topic}, in {where}")


async def _produce(
    settings: "KafkaSettings", topic: str, events: "AsyncIterator[FileEvent]", create: bool, told: _Told
) -> None:
    import asyncio

    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaError

    from stillwell.kafka_connection import connection, unreachable

    await _require(settings, topic, create)
    producer = AIOKafkaProducer(
        **connection(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        request_timeout_ms=round(_TIMEOUT * 1_000),
    )
    try:
        await producer.start()
    except (KafkaError, OSError) as error:
        await producer.stop()
        raise unreachable(error) from error
    try:
        await _send_all(producer, topic, events, told)
    finally:
        # It would wait for what is on its way when Ctrl-C or a refusal comes: with a Kafka that is gone, for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await producer.stop()


async def _send_all(producer: "AIOKafkaProducer", topic: str, events: "AsyncIterator[FileEvent]", told: _Told) -> None:
    from aiokafka.errors import KafkaError

    waiting: collections.deque[tuple[int, asyncio.Future[Any]]] = collections.deque()

    async def settle() -> None:
        line, sent = waiting.popleft()
        try:
            await sent
        except KafkaError as error:
            raise _refused(line, topic, error) from error

    async for event in events:
        told.without_key += event.key is None
        sent = await _sent(producer, topic, event)
        # Counted by itself: whoever interrupts while the next line is waited for is told what Kafka has by then.
        sent.add_done_callback(told.add)
        waiting.append((event.line, sent))
        while len(waiting) > _AHEAD or (waiting and waiting[0][1].done()):
            await settle()
    await producer.flush()
    while waiting:
        await settle()


async def _sent(producer: "AIOKafkaProducer", topic: str, event: FileEvent) -> "asyncio.Future[Any]":
    from aiokafka.errors import MessageSizeTooLargeError

    try:
        sent: asyncio.Future[Any] = await producer.send(topic, event.value, key=event.key)
    except MessageSizeTooLargeError as error:
        raise _refused(event.line, topic, error) from error
    return sent


def _refused(line: int, topic: str, error: Exception) -> Exception:
    from stillwell.errors import StoreUnavailable
    from stillwell.kafka_connection import refusals

    known = refusals("whoever runs this")
    what = next((said for kind, said in known.items() if isinstance(error, kind)), repr(error))
    return StoreUnavailable(f"Kafka did not take line {line} for {topic}: {what}")


async def _require(settings: "KafkaSettings", topic: str, create: bool) -> None:
    """See that the topic is there. Raises SettingsError where it is not, and is not to be made."""
    from stillwell.definitions.names import kafka_name_problem
    from stillwell.errors import SettingsError
    from stillwell.kafka_connection import connection
    from streams.cluster import Cluster
    from streams.onlooker import Onlooker, no_topic
    from streams.topics import create_missing, default_replication

    if problem := kafka_name_problem(topic):
        raise click.UsageError(f"the topic {problem}")
    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        if create:
            copies = await default_replication(connection(settings))
            await create_missing(cluster, [topic], PARTITIONS, copies, "")
        elif topic not in await cluster.topics([topic]):
            async with Onlooker.open(connection(settings)) as onlooker:
                near = no_topic(topic, await onlooker.topics())
            ended = near if near.endswith("?") else f"{near}."
            raise SettingsError(
                f"{ended} Name another one, make it by --create, or, if the definitions have it, by `stillwell topics "
                "create`"
            )
    finally:
        await cluster.stop()
