"""`stillwell topics`: list and make the topics that are needed, and adopt one that was made anew."""

import dataclasses
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stillwell.cli.asking import ask
from stillwell.cli.infer import infer
from stillwell.cli.output import json_option, print_json

if TYPE_CHECKING:
    from stillwell.layout.chain import TopicIncarnation
    from stillwell.settings import Settings
    from stillwell.topics import NeededTopic, NewTopic, Situation

PARTITIONS = 6
"""Of a topic that is made, where nobody says how many."""


@click.group()
def topics() -> None:
    """List and make the topics that are needed, infer definitions from one, adopt one that was made anew."""


topics.add_command(infer)


@topics.command("list")
@json_option
def list_topics(as_json: bool) -> int:
    """List the topics that are needed, what each is for, and how many partitions it has in Kafka.

    Exit code 1 if one is not there.
    """
    import asyncio

    from stillwell.counting import counted
    from stillwell.definitions.loading import load_definitions
    from stillwell.settings import Settings
    from stillwell.topics import needed_topics

    settings = Settings.load()
    needed = needed_topics(settings, load_definitions(settings.definitions))
    partitions = asyncio.run(_partitions(settings, [each.name for each in needed]))
    if as_json:
        print_json([{**dataclasses.asdict(each), "partitions": partitions.get(each.name)} for each in needed])
    else:
        width = max(len(each.name) for each in needed)
        for each in needed:
            count = partitions.get(each.name)
            there = f"{counted(count, 'partition'):>14}" if count else " not in Kafka!"
            click.echo(f"{each.name:<{width}}  {there}  {_use(each)}")
    return 0 if all(each.name in partitions for each in needed) else 1


def _use(topic: "NeededTopic") -> str:
    if topic.use == "pushes":
        return f"pushes to {topic.of}"
    if topic.use == "predictions":
        return f"log of predictions of {topic.of}"
    if topic.use == "events":
        return f"events of {topic.of}, for {', '.join(topic.views) or 'no view: it is not read'}"
    return topic.use


async def _partitions(settings: "Settings", names: Sequence[str]) -> dict[str, int]:
    """How many partitions those of the topics have that are there."""
    from stillwell.kafka_connection import connection
    from streams.cluster import Cluster

    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        return {name: facts.partitions for name, facts in (await cluster.topics(names)).items()}
    finally:
        await cluster.stop()


@topics.command()
@click.option(
    "--partitions", type=click.IntRange(min=1), default=PARTITIONS, show_default=True, help="Of each new topic."
)
@click.option(
    "--replication",
    type=click.IntRange(min=1),
    help="Copies of each partition of new topics; 3 unless given, or as many as there are brokers.",
)
@json_option
def create(partitions: int, replication: int | None, as_json: bool) -> None:
    """Create all topics that are not there: of the definitions, of pushes to views, of dead letters, of refreshes.

    How long events are kept is left to the broker, and to whoever owns the topic. Dead letters are kept for 30 days.
    With three copies or more a write counts once two have it. What is there already is never changed.
    """
    import asyncio

    from stillwell.counting import counted
    from stillwell.definitions.loading import load_definitions
    from stillwell.settings import Settings
    from stillwell.topics import needed_topics

    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    names = [each.name for each in needed_topics(settings, definitions)]
    created, existing = asyncio.run(_create(settings, names, partitions, replication))
    if as_json:
        print_json(
            {
                "created": [dataclasses.asdict(topic) for topic in created],
                "existing": [{"name": name, "partitions": count} for name, count in existing.items()],
            }
        )
        return
    for name, count in existing.items():
        click.echo(f"{name} exists, with {counted(count, 'partition')}")
    for new in created:
        configs = "".join(f", {name}={value}" for name, value in new.configs.items())
        made = f"{counted(new.partitions, 'partition')}, {counted(new.replication, 'copy', 'copies')} of each"
        click.echo(f"{new.name} created, with {made}{configs}")


async def _create(
    settings: "Settings", names: Sequence[str], partitions: int, replication: int | None
) -> "tuple[list[NewTopic], dict[str, int]]":
    from stillwell.kafka_connection import connection
    from streams.cluster import Cluster
    from streams.topics import create_missing, default_replication

    copies = replication or await default_replication(connection(settings))
    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        return await create_missing(cluster, names, partitions, copies, settings.dead_letter_topic)
    finally:
        await cluster.stop()


@topics.command()
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def adopt(topic: str, yes: bool, as_json: bool) -> int:
    """Go on with a topic that was deleted and made anew, or whose end Kafka has lost.

    Opens the topic's next incarnation: its partitions get chains of their own, from the earliest record that Kafka has.
    So nothing is lost that was produced before the adoption, and rows of the old incarnation stay as they are. Workers
    whose partitions had stopped go on by themselves.
    """
    import asyncio

    from stillwell.definitions.loading import load_definitions
    from stillwell.definitions.mistakes import did_you_mean
    from stillwell.settings import Settings
    from stillwell.topics import chained_topics

    settings = Settings.load()
    known = chained_topics(settings, load_definitions(settings.definitions))
    if topic not in known:
        raise click.UsageError(f"the definitions have no topic {topic!r}{did_you_mean(topic, known)}")
    return asyncio.run(_adopt(settings, topic, yes, as_json))


async def _adopt(settings: "Settings", topic: str, yes: bool, as_json: bool) -> int:
    import contextlib

    from sinks.archive import Archive
    from stillwell.cli.patience import until_done
    from stillwell.instants import now
    from stillwell.kafka_connection import connection
    from stillwell.layout import chain
    from stillwell.storage import open_store
    from stillwell.threads import ThreadedStore, ThreadPool
    from streams.cluster import Cluster
    from streams.onlooker import Onlooker
    from streams.topics import adopt, examine

    async with contextlib.AsyncExitStack() as opened:
        threads = ThreadPool("store", 1)
        opened.callback(threads.close)
        objects = ThreadedStore(open_store(settings.offline_root), threads)
        who = f"{socket.gethostname()}:{os.getpid()}"
        archive = Archive(objects, until_done, now, who)
        cluster = Cluster(connection(settings))
        await cluster.start()
        opened.push_async_callback(cluster.stop)
        onlooker = await opened.enter_async_context(Onlooker.open(connection(settings)))
        found = await examine(cluster, onlooker, archive, topic, await objects.call(chain.partitions))
        if not as_json:
            _print_situation(found)
        if found.reason is None:
            click.echo(
                f"stillwell: there is no reason to adopt {topic}: it is the topic that was read, and Kafka has all of "
                "it that is linked, or more",
                err=True,
            )
            return 1
        if not yes:
            ask(f"This opens incarnation {found.last.incarnation + 1} of {topic}", "Open it?")
        incarnation = await adopt(archive, found)
    if as_json:
        print_json(_as_json(found, incarnation))
    else:
        click.echo(
            f"Adopted: incarnation {incarnation.incarnation} of {topic} begins at the earliest record that Kafka has, "
            "so that nothing is lost that was produced before now. Partitions that had stopped go on by themselves "
            "within seconds"
        )
    return 0


def _print_situation(found: "Situation") -> None:
    from stillwell.counting import counted

    partitions = counted(found.partition_count, "partition")
    click.echo(f"{found.topic}: Kafka's id is {found.topic_id}, with {partitions}")
    last = found.last
    click.echo(f"incarnation {last.incarnation}, of {last.created_at:%Y-%m-%d %H:%M:%S} UTC, is of {last.topic_id}")
    for each in found.partitions:
        chain = "no chain" if each.chain_end is None else f"linked up to {each.chain_end}"
        log = "not in Kafka" if each.log is None else f"Kafka holds {each.log[0]}→{each.log[1]}"
        click.echo(f"  partition {each.partition}: {chain}, {log}{'  ← too short' if each.is_short else ''}")
    if found.reason:
        click.echo(f"Adopt it, because {found.reason}.")


def _as_json(found: "Situation", incarnation: "TopicIncarnation") -> dict[str, object]:
    return {
        "topic": found.topic,
        "reason": found.reason,
        "kafka_id": found.topic_id,
        "previous": {"incarnation": found.last.incarnation, "topic_id": found.last.topic_id},
        "partitions": [
            {
                "partition": each.partition,
                "chain_end": each.chain_end,
                "log_start": each.log[0] if each.log else None,
                "log_end": each.log[1] if each.log else None,
            }
            for each in found.partitions
        ],
        "incarnation": incarnation.incarnation,
        "start": incarnation.start,
    }
