"""`stillwell doctor`: asks every resource whether it is there and fit, and says how to mend what is not."""

import contextlib
import dataclasses
import importlib.util
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import json_option, print_json
from stillwell.errors import AlreadyExists, DefinitionError, OutcomeUnknown, SettingsError, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec

_KAFKA_TIMEOUT_S = 15.0
_REDIS_TIMEOUT_S = 5.0
_OLDEST_REDIS = (6, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one resource; fix is empty where nothing is wrong."""

    subject: str
    found: str
    fix: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.fix


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Ask every resource whether it is there and fit; exit code 1, and the fix, for each that is not."""
    findings = examine()
    if as_json:
        print_json([{**dataclasses.asdict(finding), "healthy": finding.healthy} for finding in findings])
    else:
        for finding in findings:
            mark = click.style("ok   ", fg="green") if finding.healthy else click.style("WRONG", fg="red", bold=True)
            click.echo(f"{mark} {finding.subject:<14} {finding.found}")
            for line in finding.fix.splitlines():
                click.echo(f"      {'':<14} → {line}")
    return 0 if all(finding.healthy for finding in findings) else 1


def examine() -> list[Finding]:
    """A finding for each resource; for the settings alone where they cannot be read."""
    from stillwell.settings import Settings

    try:
        settings = Settings.load()
    except SettingsError as error:
        return [Finding("settings", "cannot be used", str(error))]
    definitions, loaded = _definitions(settings)
    return [
        Finding("settings", f"project {settings.project}, namespace {settings.namespace}"),
        loaded,
        _kafka(settings, definitions),
        _redis(settings),
        _offline(settings),
    ]


def _definitions(settings: "Settings") -> "tuple[DefinitionsSpec | None, Finding]":
    from stillwell.definitions.loading import load_definitions

    try:
        definitions = load_definitions(settings.definitions)
    except DefinitionError as error:
        return None, Finding("definitions", f"{settings.definitions} is wrong", "\n".join(map(str, error.args)))
    counts = f"{len(definitions.topics)} topics, {len(definitions.views)} views"
    return definitions, Finding("definitions", f"{settings.definitions}: {counts}")


def _kafka(settings: "Settings", definitions: "DefinitionsSpec | None") -> Finding:
    import asyncio

    if importlib.util.find_spec("aiokafka") is None:
        return Finding("Kafka", "not asked: its client is not installed", "pip install 'stillwell[server]'")
    names = {settings.dead_letter_topic}
    if definitions is not None:
        names |= {topic.topic for topic in definitions.topics}
    where = settings.kafka_bootstrap
    try:
        missing = asyncio.run(asyncio.wait_for(_missing_topics(settings, names), _KAFKA_TIMEOUT_S))
    except (StoreError, SettingsError) as error:
        return Finding("Kafka", f"{where} does not answer", str(error))
    except TimeoutError:
        fix = "Check STILLWELL_KAFKA_BOOTSTRAP, the security settings, and that no firewall swallows the connection."
        return Finding("Kafka", f"{where} gave no answer within {_KAFKA_TIMEOUT_S:g} s", fix)
    if missing:
        return Finding("Kafka", f"{where} lacks {', '.join(missing)}", "stillwell topics create")
    return Finding("Kafka", f"{where}: consumer groups work, {len(names)} topics are there")


async def _missing_topics(settings: "Settings", names: set[str]) -> list[str]:
    """The topics that are not there. Raises StoreUnavailable unless brokers and group coordinator answer."""
    from aiokafka import TopicPartition

    from stillwell.kafka_connection import connection
    from streams.cluster import Cluster

    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        found = await cluster.topics(names)
        await cluster.committed(settings.kafka_group, TopicPartition(settings.dead_letter_topic, 0))
    finally:
        await cluster.stop()
    return sorted(names - found.keys())


def _redis(settings: "Settings") -> Finding:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    where = settings.shown()["redis_url"]
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    try:
        with client:
            # By INFO, because managed services refuse CONFIG.
            facts = {**client.info("server"), **client.info("memory"), **client.info("replication")}
            client.eval("return 1", 0)
    except redis.AuthenticationError as error:
        return Finding("Redis", f"{where} refuses us: {error}", "Correct user and password in STILLWELL_REDIS_URL.")
    except redis.RedisError as error:
        return Finding("Redis", f"{where} does not answer: {error}", "Check STILLWELL_REDIS_URL, and that Redis runs.")
    version, policy, role = facts["redis_version"], facts.get("maxmemory_policy", "unknown"), facts["role"]
    fixes = []
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        fixes.append(f"Upgrade to {'.'.join(map(str, _OLDEST_REDIS))} or newer.")
    if policy != "noeviction":
        fixes.append(
            "Forbid it to forget: `CONFIG SET maxmemory-policy noeviction`, on Memorystore `gcloud redis instances "
            "update INSTANCE --update-redis-config maxmemory-policy=noeviction`."
        )
    if role != "master":
        fixes.append("Name the primary in STILLWELL_REDIS_URL: a replica takes no writes.")
    return Finding("Redis", f"{where}: version {version}, {policy}, {role}", "\n".join(fixes))


def _offline(settings: "Settings") -> Finding:
    from stillwell.storage import open_store

    if settings.offline_url.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        return Finding("offline store", "not asked: its client is not installed", "pip install 'stillwell[server]'")
    try:
        store = open_store(settings.offline_root)
        proved = _is_create_only(store.create, store.delete, f"_doctor/{secrets.token_hex(8)}")
    except (StoreUnavailable, OutcomeUnknown) as error:
        return Finding(
            "offline store",
            f"{settings.offline_root} cannot be written: {error}",
            "Check STILLWELL_OFFLINE_URL and the permission to create, read, list and delete there.",
        )
    if not proved:
        return Finding(
            "offline store",
            f"{settings.offline_root} accepted a second create of one object",
            "Use a store that honours create-only writes: without them two writers can both believe they won.",
        )
    return Finding("offline store", f"{settings.offline_root}: create-only, as shown by a refused second create")


def _is_create_only(create: Callable[[str, bytes], None], delete: Callable[[str], None], path: str) -> bool:
    """Whether of two creates of one path the second is refused; leaves nothing behind."""
    create(path, b"first")
    try:
        create(path, b"second")
    except AlreadyExists:
        return True
    finally:
        with contextlib.suppress(StoreUnavailable):
            delete(path)
    return False
