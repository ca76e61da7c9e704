"""`stillwell predictions`: have predictions computed again."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from stillwell.cli.get import pairs_of
from stillwell.cli.output import json_option, print_json

if TYPE_CHECKING:
    from stillwell.layout.redis_keys import RedisKeys
    from stillwell.predictions.hint import Hint
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec, ModelSpec

_AT_A_TIME = 1_000


@click.group()
def predictions() -> None:
    """Have predictions computed again."""


@predictions.command()
@click.argument("model")
@click.argument("keys", nargs=-1, metavar="KEY=VALUE…")
@click.option("--all", "all_entities", is_flag=True, help="Of every entity that has a row in a view that it reads.")
@json_option
def refresh(model: str, keys: tuple[str, ...], all_entities: bool, as_json: bool) -> int:
    """Ask the workers to compute a model's predictions again where they are not fresh.

    Of one entity, or of all of them, as for a new version of a model whose predictions shall be there before anybody
    asks. It ends when the refresh topic has everything; the workers then take their time.
    """
    import asyncio

    from stillwell.counting import counted
    from stillwell.definitions.loading import load_definitions
    from stillwell.definitions.mistakes import did_you_mean
    from stillwell.settings import Settings

    if bool(keys) == all_entities:
        raise click.UsageError("name one entity by its keys, or say --all")
    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    models = {each.name: each for each in definitions.models}
    if model not in models:
        raise click.UsageError(f"the definitions have no model {model!r}{did_you_mean(model, models)}")
    count = asyncio.run(_refresh(settings, definitions, models[model], None if all_entities else pairs_of(keys)))
    if as_json:
        print_json({"model": model, "hints": count})
    else:
        click.echo(f"To be looked at: {counted(count, 'prediction')} of {model}")
    return 0


async def _refresh(
    settings: "Settings", definitions: "DefinitionsSpec", model: "ModelSpec", entity: dict[str, str] | None
) -> int:
    """How many hints were sent."""
    from aiokafka.errors import KafkaError

    from sinks.refresh_topic import RefreshTopic, hint_producer
    from stillwell.kafka_connection import connection, unreachable
    from stillwell.predictions.hint import refresh_topic

    producer = hint_producer(connection(settings))
    try:
        await producer.start()
    except (KafkaError, OSError) as error:
        await producer.stop()
        raise unreachable(error) from error
    count = 0
    try:
        topic = RefreshTopic(producer, refresh_topic(settings.project, settings.namespace))
        async for hints in _hints(settings, definitions, model, entity):
            await topic.send(hints)
            count += len(hints)
    finally:
        await producer.stop()
    return count


async def _hints(
    settings: "Settings", definitions: "DefinitionsSpec", model: "ModelSpec", entity: dict[str, str] | None
) -> "AsyncIterator[list[Hint]]":
    from sinks.redis_link import RedisLink
    from stillwell.layout.redis_keys import RedisKeys
    from stillwell.predictions.inputs import ModelInputs

    inputs = ModelInputs(model, definitions)
    if inputs.request:
        needed = ", ".join(inputs.request)
        raise click.UsageError(f"{model.name} needs values of requests ({needed}): it is refreshed when it is read")
    if entity is not None:
        yield [_hint(model, _key_of_text(model, entity))]
        return
    views = inputs.own_views(definitions)
    if not views:
        raise click.UsageError(
            f"{model.name} reads no view of {model.entity.name}: which entities there are is unknown"
        )
    link = RedisLink(settings.redis_url.get_secret_value(), 5.0, 1)
    keys = RedisKeys(settings.project, settings.namespace)
    try:
        for view in views:
            async for found in _entity_keys(link, keys, view):
                yield [_hint(model, key) for key in found]
    finally:
        await link.close()


async def _entity_keys(link: Any, keys: "RedisKeys", view: str) -> AsyncIterator[Sequence[bytes]]:
    """Of every row of a view, a thousand keys or so at a time. One may come twice, as Redis's SCAN has it."""
    suffix = b":%b" % view.encode()
    cursor = b"0"
    while True:
        pattern = keys.prefix + b"f:{*}:*" + suffix
        ((cursor, found),) = await link.ask(("SCAN", cursor, "MATCH", pattern, "COUNT", str(_AT_A_TIME)))
        if found:
            yield [key[key.index(b"}:") + 2 : -len(suffix)] for key in found]
        if cursor == b"0":
            return


def _hint(model: "ModelSpec", key: bytes) -> "Hint":
    from stillwell.layout.entity_key import values_of
    from stillwell.predictions.hint import Cause, Hint

    return Hint(model.name, key, b"", values_of(model.entity.keys, key), Cause.COMMAND)


def _key_of_text(model: "ModelSpec", entity: dict[str, str]) -> bytes:
    """The key of an entity whose values are given as text."""
    from stillwell.layout.entity_key import entity_key
    from stillwell.texts import value_of

    types = {key.name: key.type for key in model.entity.keys}
    try:
        return entity_key(
            model.entity.keys,
            {name: value_of(types[name], text) if name in types else text for name, text in entity.items()},
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
