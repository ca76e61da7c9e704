"""`stillwell doctor`: asks every resource whether it is there and fit, and says how to mend what is not."""

import contextlib
import dataclasses
import importlib.util
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import json_option, print_json
from stillwell.errors import (
    AlreadyExists,
    DefinitionError,
    FormatError,
    OutcomeUnknown,
    SettingsError,
    StoreError,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from stillwell.layout.online import OnlineServer
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec, ModelSpec
    from stillwell.storage import ObjectStore

_KAFKA_TIMEOUT_S = 15.0
_MODELS_TIMEOUT_S = 15.0

_WIDTH = 14
"""Of the column of subjects, unless one is longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one resource. fix: empty where nothing is wrong; advice: what is allowed, but unwise."""

    subject: str
    found: str
    fix: str = ""
    advice: str = ""

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
        width = max(_WIDTH, *(len(finding.subject) for finding in findings))
        for finding in findings:
            mark = click.style("ok   ", fg="green") if finding.healthy else click.style("WRONG", fg="red", bold=True)
            click.echo(f"{mark} {finding.subject:<{width}} {finding.found}")
            for line in (*finding.fix.splitlines(), *finding.advice.splitlines()):
                click.echo(f"      {'':<{width}} → {line}")
    return 0 if all(finding.healthy for finding in findings) else 1


def examine() -> list[Finding]:
    """A finding for each resource; for the settings alone where they cannot be read."""
    from stillwell.settings import Settings

    try:
        settings = Settings.load()
    except SettingsError as error:
        return [Finding("settings", "cannot be used", str(error))]
    definitions, loaded = _definitions(settings)
    store, offline = _offline(settings)
    return [
        Finding("settings", f"project {settings.project}, namespace {settings.namespace}"),
        loaded,
        _kafka(settings, definitions),
        _redis(settings, store),
        offline,
        _registry(settings, store, definitions),
        *_models(definitions),
    ]


def _definitions(settings: "Settings") -> "tuple[DefinitionsSpec | None, Finding]":
    from stillwell.counting import counted
    from stillwell.definitions.loading import load_definitions

    try:
        definitions = load_definitions(settings.definitions)
    except DefinitionError as error:
        return None, Finding("definitions", f"{settings.definitions} is wrong", "\n".join(map(str, error.args)))
    counts = f"{counted(len(definitions.topics), 'topic')}, {counted(len(definitions.views), 'view')}"
    return definitions, Finding("definitions", f"{settings.definitions}: {counts}")


def _kafka(settings: "Settings", definitions: "DefinitionsSpec | None") -> Finding:
    import asyncio

    from stillwell.counting import counted
    from stillwell.topics import needed_topics

    if importlib.util.find_spec("aiokafka") is None:
        return Finding("Kafka", "not asked: its client is not installed", "pip install 'stillwell[server]'")
    names = {settings.dead_letter_topic}
    if definitions is not None:
        names.update(each.name for each in needed_topics(settings, definitions))
    where = settings.kafka_bootstrap
    try:
        missing, creates = asyncio.run(asyncio.wait_for(_ask_kafka(settings, names), _KAFKA_TIMEOUT_S))
    except (StoreError, SettingsError) as error:
        return Finding("Kafka", f"{where} does not answer", str(error))
    except TimeoutError:
        fix = "Check STILLWELL_KAFKA_BOOTSTRAP, the security settings, and that no firewall swallows the connection."
        return Finding("Kafka", f"{where} gave no answer within {_KAFKA_TIMEOUT_S:g} s", fix)
    advice = _NO_AUTO_CREATE if creates else ""
    if missing:
        return Finding("Kafka", f"{where} lacks {', '.join(missing)}", "stillwell topics create", advice)
    return Finding("Kafka", f"{where}: consumer groups work; there: {counted(len(names), 'topic')}", advice=advice)


_NO_AUTO_CREATE = (
    "Brokers have auto.create.topics.enable=true: any client that still asks for a topic which was deleted makes it "
    "anew, with the broker's defaults. Set it to false."
)


async def _ask_kafka(settings: "Settings", names: set[str]) -> tuple[list[str], bool]:
    """The topics that are not there, and whether asking for one makes it.

    Raises StoreUnavailable unless brokers and group coordinator answer.
    """
    from aiokafka import TopicPartition

    from stillwell.kafka_connection import connection
    from streams.cluster import Cluster

    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        found = await cluster.topics(names)
        await cluster.committed(settings.kafka_group, TopicPartition(settings.dead_letter_topic, 0))
        return sorted(names - found.keys()), await cluster.creates_topics_by_itself()
    finally:
        await cluster.stop()


def _redis(settings: "Settings", store: "ObjectStore | None") -> Finding:
    import asyncio

    from stillwell.layout.chain import has_links

    where = settings.shown()["redis_url"]
    try:
        server, epoch = asyncio.run(_ask_redis(settings))
    except SettingsError as error:
        return Finding("Redis", f"{where} is not fit", str(error))
    except StoreError as error:
        return Finding("Redis", f"{where} cannot be used", str(error))
    found = f"{where}: version {server.version}, {server.maxmemory_policy}, {server.role}"
    if server.role != "master":
        return Finding("Redis", found, "Name the primary in STILLWELL_REDIS_URL: a replica takes no writes.")
    if epoch is not None:
        return Finding("Redis", f"{found}, ready")
    try:
        forgotten = store is not None and has_links(store)
    except StoreUnavailable:
        forgotten = False  # what is wrong with the offline store is said of that
    if forgotten:
        fix = "It has forgotten what is at rest, or a rebuild did not end: nobody reads or writes. `stillwell rebuild`"
        return Finding("Redis", f"{found}, not ready", fix)
    return Finding("Redis", f"{found}, empty: the first worker makes it ready")


async def _ask_redis(settings: "Settings") -> "tuple[OnlineServer, str | None]":
    """What the server says of itself, and the epoch that is in force.

    Raises SettingsError where it is not fit, StoreError where it cannot be used.
    """
    from sinks.redis import RedisOnlineStore

    online = await RedisOnlineStore.open(settings)
    try:
        server, epoch = await online.read_server(), (await online.read_state()).epoch
        if server.role == "master":
            await online.probe()
        return server, epoch
    finally:
        await online.close()


def _offline(settings: "Settings") -> "tuple[ObjectStore | None, Finding]":
    """The store, if it can be used, and what there is to say of it."""
    from stillwell.storage import open_store

    if settings.offline_url.startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        return None, Finding(
            "offline store", "not asked: its client is not installed", "pip install 'stillwell[server]'"
        )
    try:
        store = open_store(settings.offline_root)
        proved = _is_create_only(store.create, store.delete, f"_doctor/{secrets.token_hex(8)}")
    except (StoreUnavailable, OutcomeUnknown) as error:
        return None, Finding(
            "offline store",
            f"{settings.offline_root} cannot be written: {error}",
            "Check STILLWELL_OFFLINE_URL and the permission to create, read, list and delete there.",
        )
    if not proved:
        return None, Finding(
            "offline store",
            f"{store.url} accepted a second create of one object",
            "Use a store that honours create-only writes: without them two writers can both believe they won.",
        )
    return store, Finding("offline store", f"{store.url}: create-only, as shown by a refused second create")


def _registry(settings: "Settings", store: "ObjectStore | None", definitions: "DefinitionsSpec | None") -> Finding:
    """Whether a worker with these definitions would start."""
    from stillwell.counting import counted
    from stillwell.registry import review

    if store is None or definitions is None:
        return Finding("registry", "not asked", "Mend the definitions and the offline store first.")
    try:
        cautions = review(store, definitions, settings.redis_grace)
    except DefinitionError as error:
        return Finding("registry", "a worker would be refused", str(error))
    except (StoreError, FormatError) as error:
        return Finding("registry", "cannot be read", str(error))
    advice = "\n".join(caution.message for caution in cautions)
    return Finding("registry", f"may run: {counted(len(definitions.views), 'view')}", advice=advice)


def _models(definitions: "DefinitionsSpec | None") -> list[Finding]:
    """Whether each model's server has the model, as a worker looks when it starts. A function has no server."""
    import asyncio

    from stillwell.spec import OpenInferenceSpec

    served = (
        [model for model in definitions.models if isinstance(model.server, OpenInferenceSpec)] if definitions else []
    )

    async def ask() -> list[Finding]:
        return await asyncio.gather(*map(_model, served))

    return asyncio.run(ask())


async def _model(model: "ModelSpec") -> Finding:
    import asyncio
    import os

    from stillwell.errors import ModelError, ModelLeftAlone, ModelUnavailable
    from stillwell.predictions.inference import open_inference

    subject = f"model {model.name}"
    inference = open_inference(model, os.environ)
    try:
        async with asyncio.timeout(_MODELS_TIMEOUT_S):
            await inference.check()
    except ModelLeftAlone as error:
        return Finding(subject, "where its server is, nobody knows", f"{error}, wherever serve and worker run.")
    except (ModelUnavailable, TimeoutError) as error:
        said = f"{error}\n" if str(error) else ""
        return Finding(subject, "its server cannot be asked", f"{said}{_MEND_SERVER.format(_place(model))}")
    except ModelError as error:
        return Finding(
            subject,
            "its server does not have it as it is defined",
            f"{error}\nMend the definition, or what the server runs.",
        )
    finally:
        await inference.close()
    return Finding(subject, "its server has it, with the inputs and outputs of the definition")


_MEND_SERVER = (
    "See whether the model's server runs, whether {} leads there, and that no firewall stands between. Until then its "
    "predictions grow stale; features are read all the same."
)


def _place(model: "ModelSpec") -> str:
    """What says where a model's server is."""
    from stillwell.spec import OpenInferenceSpec

    variable = model.server.variable if isinstance(model.server, OpenInferenceSpec) else None
    return variable or "the url in its definition"


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
