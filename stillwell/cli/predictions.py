"""`stillwell predictions`: have predictions computed again."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from stillwell.cli.get import pairs_of
from stillwell.cli.output import json_option, print_json

if TYPE_CHECKING:
    from stillwell.layout.redis_keys import RedisKeys
    from stillwell.predictions.hint import Hint
    from stillwell.predictions.inputs import ModelInputs
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec, ModelSpec

_AT_A_TIME = 1_000


@click.group()
def predictions() -> None:
    """Have predictions computed again."""


@predictions.command()
@click.argument("model", required=False)
@click.argument("keys", nargs=-1, metavar="KEY=VALUE…")
@click.option("--all", "all_entities", is_flag=True, help="Of every entity that has a row in a view that it reads.")
@json_option
def refresh(model: str | None, keys: tuple[str, ...], all_entities: bool, as_json: bool) -> int:
    """Ask the workers to compute a model's predictions again where they are not fresh.

    Of one entity, or with --all of all of them, as for a new version of a model whose predictions shall be there before
    anybody asks; without a MODEL, of every model. It ends when the refresh topic has everything; the workers then take
    their time.
    """
    import asyncio

    from stillwell.definitions.loading import load_definitions
    from stillwell.predictions.inputs import ModelInputs
    from stillwell.settings import Settings

    if bool(keys) == all_entities or (model is None and not all_entities):
        raise click.UsageError("name a model and one entity by its keys, or say --all")
    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    named = _models(definitions, model)
    inputs = {each.name: ModelInputs(each, definitions) for each in named}
    left_out = {each.name: why for each in named if (why := _why_not(each, inputs[each.name], definitions, bool(keys)))}
    if model in left_out:
        raise click.UsageError(f"{model} {left_out[model]}")
    hints = {
        each.name: _hints(settings, each, inputs[each.name].own_views(definitions), pairs_of(keys))
        for each in named
        if each.name not in left_out
    }
    counts = asyncio.run(_send(settings, hints)) if hints else {}
    if as_json:
        of_all = {"models": [{"model": name, "hints": count} for name, count in counts.items()], "left_out": left_out}
        print_json(of_all if model is None else {"model": model, "hints": counts[model]})
        return 0
    from stillwell.counting import counted

    for name, count in counts.items():
        click.echo(f"To be looked at: {counted(count, 'prediction')} of {name}")
    for name, why in left_out.items():
        click.echo(f"Left out: {name} {why}")
    return 0


def _models(definitions: "DefinitionsSpec", name: str | None) -> "Sequence[ModelSpec]":
    """The model of this name; all, where there is none. Raises UsageError where the definitions do not have it."""
    from stillwell.definitions.mistakes import did_you_mean

    models = {each.name: each for each in definitions.models}
    if not models:
        raise click.UsageError("the definitions have no model, so that there are no predictions")
    if name is None:
        return definitions.models
    if name not in models:
        raise click.UsageError(f"the definitions have no model {name!r}{did_you_mean(name, models)}")
    return [models[name]]


def _why_not(model: "ModelSpec", inputs: "ModelInputs", definitions: "DefinitionsSpec", one: bool) -> str:
    """Why a model's predictions cannot be computed again by command; empty where they can. one: of one entity."""
    if inputs.request:
        return f"needs values of requests ({', '.join(inputs.request)}): it is refreshed when it is read"
    if not one and not inputs.own_views(definitions):
        return f"reads no view of {model.entity.name}: which entities there are is unknown; name each by its keys"
    return ""


async def _send(settings: "Settings", models: "Mapping[str, AsyncIterator[list[Hint]]]") -> dict[str, int]:
    """Send each model's hints; how many there were."""
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
    counts = dict.fromkeys(models, 0)
    try:
        topic = RefreshTopic(producer, refresh_topic(settings.project, settings.namespace))
        for name, some in models.items():
            async for hints in some:
                await topic.send(hints)
                counts[name] += len(hints)
    finally:
        await producer.stop()
    return counts


async def _hints(
    settings: "Settings", model: "ModelSpec", views: Sequence[str], entity: Mapping[str, str]
) -> "AsyncIterator[list[Hint]]":
    """For one entity; for every one that has a row in one of these views, where none is named."""
    from sinks.redis_link import RedisLink
    from stillwell.layout.redis_keys import RedisKeys

    if entity:
        yield [_hint(model, _key_of_text(model, entity))]
        return
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


def _key_of_text(model: "ModelSpec", entity: Mapping[str, str]) -> bytes:
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
