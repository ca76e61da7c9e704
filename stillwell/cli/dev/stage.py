"""Where `stillwell dev` plays: servers of its own, and a namespace that nobody misses.

Redis and the offline store are always its own, and Kafka is where the settings name none. In a Kafka that they name it
makes a dead-letter topic (and one for refreshes, where there are models) and a group, both called after the namespace,
and takes them away in the end: nothing else is written there.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stillwell.cli.dev.child import run_command
from stillwell.cli.output import download_progress
from stillwell.errors import StillwellError, StoreUnavailable
from stillwell.local import KafkaBroker, RedisServer, free_port
from stillwell.local.temporary import TemporaryFolder

if TYPE_CHECKING:
    import subprocess

    from stillwell.settings import Settings

_WINDOW_AGE = "5s"
"""Files are seen soon, and are few: a person looks, and for minutes."""


class NotReady(StillwellError):
    """No worker can be started as things are. The message says what is to be mended; a change of a file may do that."""


class Stage:
    """For a `with` block: the servers run within it, and nothing is left of them behind it."""

    def __init__(self, kafka: str | None, newest: int | None) -> None:
        """kafka: the address of one that is there already; None to start one. newest: with how many records before its
        end a partition there begins; None for its beginning."""
        self.namespace = f"dev-{secrets.token_hex(3)}"
        self._given = kafka
        self._newest = newest
        self._set_up_once = False
        self._made: set[str] = set()
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Raises LocalStackError, with nothing left behind."""
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._ending = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.close()

    def _start(self, undo: contextlib.ExitStack) -> None:
        temporary = TemporaryFolder()
        undo.callback(temporary.remove)
        self.folder = temporary.path
        self.offline = self.folder / "offline"
        self.offline.mkdir()
        self._redis = RedisServer(self.folder / "redis")
        self._redis.start()
        undo.callback(self._redis.stop)
        kafka = self._given
        if kafka is None:
            with download_progress("Fetching Apache Kafka") as progress:
                broker = KafkaBroker(self.folder / "kafka", progress=progress)
                broker.start()
            undo.callback(broker.stop)
            kafka = broker.bootstrap
        self.environment: Mapping[str, str] = {
            "STILLWELL_KAFKA_BOOTSTRAP": kafka,
            "STILLWELL_REDIS_URL": self._redis.url,
            "STILLWELL_OFFLINE_URL": str(self.offline),
            "STILLWELL_NAMESPACE": self.namespace,
            "STILLWELL_KAFKA_GROUP": "{project}.{namespace}",
            "STILLWELL_DEAD_LETTER_TOPIC": "{project}.{namespace}.dead-letters",
            "STILLWELL_PUSH": str(self._given is None).lower(),
        }
        # This process is one of those that go by them.
        os.environ.update(self.environment)

    @property
    def of_the_worker(self) -> Mapping[str, str]:
        """The worker's settings beyond those: it is watched by a person, who wants to see soon, and never to wait."""
        return {
            **self.environment,
            "STILLWELL_WINDOW_AGE": _WINDOW_AGE,
            "STILLWELL_REJECT_RATIO": "1",
            "STILLWELL_LOG_FORMAT": "console",
            "STILLWELL_LOG_LEVEL": os.environ.get("STILLWELL_LOG_LEVEL", "warning"),
            "STILLWELL_WEB_PORT": str(free_port()),
            "STILLWELL_WEB_HOST": "127.0.0.1",
        }

    def load(self) -> "Loaded":
        """See that a worker can load the definitions.

        Raises NotReady with what is wrong with them, and StoreUnavailable where Kafka does not answer.
        """
        with ThreadPoolExecutor() as both:
            checking = both.submit(run_command, ["check"], self.environment)
            listed = run_command(["topics", "list", "--json"], self.environment)
            checked = checking.result()
        if not listed.stdout.startswith("["):
            raise NotReady(_said(checked)) if checked.returncode else StoreUnavailable(_said(listed))
        return Loaded(json.loads(listed.stdout), _said(checked) if checked.returncode else "")

    def set_up(self, loaded: "Loaded") -> None:
        """Make what a worker needs. Raises NotReady, and StoreUnavailable where Kafka does not answer."""
        self._set_up_once = True
        asyncio.run(self._set_up(loaded.topics))

    def wipe(self) -> None:
        """Forget what a worker before has stored; no worker runs."""
        import redis

        with redis.Redis(port=self._redis.port) as client:
            client.flushall()
        shutil.rmtree(self.offline)
        self.offline.mkdir()

    def take_away(self) -> None:
        """Remove from a Kafka that was there before what was made in it; no worker runs. Raises StoreUnavailable."""
        if self._given is not None and self._set_up_once:
            asyncio.run(self._take_away())

    async def _set_up(self, needed: Sequence[Mapping[str, Any]]) -> None:
        from stillwell.kafka_connection import connection
        from stillwell.settings import Settings
        from streams.cluster import Cluster
        from streams.onlooker import Onlooker, no_topic
        from streams.topics import create_missing, default_replication

        settings = Settings.load()
        events = [each["name"] for each in needed if each["use"] == "events" and each["views"]]
        # In a Kafka that is somebody's, a topic of events is theirs to make.
        names = [each["name"] for each in needed if self._given is None or each["use"] != "events" or each["views"]]
        cluster = Cluster(connection(settings))
        await cluster.start()
        try:
            async with Onlooker.open(connection(settings)) as onlooker:
                missing = names - (await cluster.topics(names)).keys()
                if self._given is not None and (lacking := sorted(missing.intersection(events))):
                    known = await onlooker.topics()
                    raise NotReady("\n".join(no_topic(each, known) for each in lacking))
                copies = await default_replication(connection(settings))
                # One partition, so that what is sent to a Kafka of ours is taken in in its order.
                created, _ = await create_missing(cluster, sorted(missing), 1, copies, settings.dead_letter_topic)
                self._made |= {each.name for each in created if self.namespace in each.name}
                if self._given is not None and self._newest is not None:
                    await _begin_late(settings, cluster, onlooker, events, self._newest)
        finally:
            await cluster.stop()

    async def _take_away(self) -> None:
        from stillwell.kafka_connection import connection
        from stillwell.settings import Settings
        from streams.cluster import Cluster

        settings = Settings.load()
        cluster = Cluster(connection(settings))
        await cluster.start()
        try:
            left = []
            for delete, name in (
                *((cluster.delete_topic, topic) for topic in sorted(self._made)),
                (cluster.delete_group, settings.kafka_group),
                (cluster.delete_group, f"{settings.kafka_group}.refresh"),
            ):
                try:
                    await delete(name)
                except StoreUnavailable as error:
                    left.append(str(error))
            if left:
                raise StoreUnavailable("; ".join(left))
        finally:
            await cluster.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """What the definitions need, and what `stillwell check` has against them that keeps no worker from running: golden
    examples that do not hold, '' for none.

    topics: as `stillwell topics list --json` prints them.
    """

    topics: Sequence[Mapping[str, Any]]
    caution: str


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command says is wrong."""
    return "\n".join(line.removeprefix("stillwell: ") for line in done.stderr.strip().splitlines())


async def _begin_late(settings: "Settings", cluster: Any, onlooker: Any, topics: Sequence[str], newest: int) -> None:
    """Have each partition begin so many records before its end: a topic may hold years, and a person waits for rows.

    Chains begin where their genesis says, whoever wrote it: so it is written here, before the worker would.
    """
    from sinks.archive import Archive
    from stillwell.cli.patience import until_done
    from stillwell.instants import now
    from stillwell.layout.chain import PartitionId
    from stillwell.storage import open_store
    from stillwell.threads import ThreadedStore, ThreadPool

    with contextlib.closing(ThreadPool("store", 1)) as threads:
        objects = ThreadedStore(open_store(settings.offline_root), threads)
        archive = Archive(objects, until_done, now, f"{socket.gethostname()}:{os.getpid()}")
        for name, facts in (await cluster.topics(topics)).items():
            opened = await archive.open_incarnation(name, 1, facts.id, facts.partitions, "earliest")
            for number, (start, end) in enumerate(await onlooker.bounds(name, facts.partitions)):
                partition = archive.partition(PartitionId(name, opened.incarnation, number), ())
                await partition.begin(max(start, end - newest), facts.id)
