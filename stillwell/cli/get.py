"""`stillwell get`."""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import json_option, print_json
from stillwell.cli.values import instant, jsonable, parse, shown

if TYPE_CHECKING:
    from stillwell.answer import Answer, Answers
    from stillwell.layout.stamp import Stamp
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec, ViewSpec


@click.command()
@click.argument("view")
@click.argument("keys", nargs=-1, metavar="KEY=VALUE…")
@json_option
def get(view: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Show the newest row of an entity, as it is in Redis.

    A key is given as text: a whole number, true or false, base64 for bytes, ISO-8601 with a zone for a time. Each
    feature is PRESENT, NULL_VALUE, NOT_FOUND, or OUTSIDE_MAX_AGE: then the row is older than the view's TTL.
    """
    import asyncio

    from stillwell.answer import Answers
    from stillwell.definitions.loading import load_definitions
    from stillwell.settings import Settings

    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    spec = _view(definitions, view)
    entity = _entity(spec, keys)
    stored = asyncio.run(_fetch(settings, spec, entity))
    answers = Answers(spec)
    if not answers.can_read(stored):
        answers = _with_older_layouts(settings, spec)
    now = datetime.datetime.now(datetime.UTC)
    answer = answers.of(stored, now)
    place = _place(settings, definitions, answer.stamp) if answer.stamp else None
    if as_json:
        print_json(_as_json(spec, entity, answer, place, now))
    else:
        _print(spec, entity, answer, place, now)


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a row comes from. topic: Kafka's name, or None where nobody knows which topic the stamp means."""

    topic: str | None
    stamp: "Stamp"


def _view(definitions: "DefinitionsSpec", name: str) -> "ViewSpec":
    from stillwell.definitions.mistakes import did_you_mean

    views = {view.name: view for view in definitions.views}
    if name not in views:
        raise click.UsageError(f"there is no view {name!r}{did_you_mean(name, views)}")
    return views[name]


def _entity(view: "ViewSpec", pairs: Sequence[str]) -> dict[str, object]:
    """The value of each key of the view's entity. Raises UsageError for what is missing, unknown or of another type."""
    from stillwell.definitions.mistakes import did_you_mean

    types = {key.name: key.type for key in view.entity.keys}
    values: dict[str, object] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"{pair!r} is no KEY=VALUE")
        if name not in types:
            raise click.UsageError(f"{view.entity.name} has no key {name!r}{did_you_mean(name, types)}")
        if name in values:
            raise click.UsageError(f"the key {name} is given twice")
        try:
            values[name] = parse(types[name], text)
        except ValueError as error:
            raise click.UsageError(f"the key {name} {error}") from None
    if missing := [name for name in types if name not in values]:
        raise click.UsageError(f"{view.entity.name} needs {' and '.join(f'{name}=…' for name in missing)} too")
    return values


async def _fetch(settings: "Settings", view: "ViewSpec", entity: dict[str, object]) -> bytes | None:
    """The stored row. Raises StoreNotReady where Redis may have lost it."""
    from sinks.redis import RedisOnlineStore
    from stillwell.layout.entity_key import entity_key

    try:
        key = entity_key(view.entity.keys, entity)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    online = await RedisOnlineStore.open(settings)
    try:
        return (await online.get(view.name, [key]))[0]
    finally:
        await online.close()


def _with_older_layouts(settings: "Settings", view: "ViewSpec") -> "Answers":
    """The layouts of all versions that were ever registered: definitions have but the newest."""
    from stillwell.answer import Answers
    from stillwell.known_views import registered_versions
    from stillwell.storage import open_store

    return Answers(view, registered_versions(open_store(settings.offline_root), view.name))


def _place(settings: "Settings", definitions: "DefinitionsSpec", stamp: "Stamp") -> _Place:
    """Which topic a stamp means, by its digest: one of the definitions, or else one that once was."""
    from stillwell.known_views import registered_topics
    from stillwell.layout.stamp import topic_digest
    from stillwell.storage import open_store

    def among(topics: Iterable[str]) -> str | None:
        return next((topic for topic in topics if topic_digest(topic) == stamp.topic), None)

    defined = among(topic.topic for topic in definitions.topics)
    return _Place(defined or among(registered_topics(open_store(settings.offline_root))), stamp)


def _as_json(
    view: "ViewSpec", entity: dict[str, object], answer: "Answer", place: _Place | None, now: datetime.datetime
) -> dict[str, object]:
    row = None
    if place and answer.event_time:
        stamp = place.stamp
        row = {
            "event_time": jsonable(answer.event_time),
            "age_s": (now - answer.event_time).total_seconds(),
            "version": stamp.version,
            "topic": place.topic,
            "topic_digest": stamp.topic.hex(),
            "incarnation": stamp.incarnation,
            "partition": stamp.partition,
            "offset": stamp.offset,
            "row": stamp.row,
            "sequence": stamp.sequence,
            "record_timestamp": instant(stamp.timestamp),
        }
    return {
        "view": view.name,
        "entity": {name: jsonable(value) for name, value in entity.items()},
        "ttl_s": view.ttl.total_seconds() or None,
        "features": {
            feature.name: {"value": jsonable(feature.value), "status": feature.status.value}
            for feature in answer.features
        },
        "row": row,
    }


def _print(
    view: "ViewSpec", entity: dict[str, object], answer: "Answer", place: _Place | None, now: datetime.datetime
) -> None:
    click.echo(f"{view.name} of {', '.join(f'{name}={shown(value)}' for name, value in entity.items())}")
    width = max(len(feature.name) for feature in answer.features)
    for feature in answer.features:
        click.echo(f"  {feature.name:<{width}}  {feature.status.value:<15}  {shown(feature.value)}")
    if place is None or answer.event_time is None:
        click.echo("there is no row")
        return
    stamp = place.stamp
    topic = place.topic or f"an unknown topic ({stamp.topic.hex()})"
    ttl = f"TTL {view.ttl}" if view.ttl else "no TTL"
    age = datetime.timedelta(seconds=round((now - answer.event_time).total_seconds()))
    click.echo(f"event time {jsonable(answer.event_time)}, {age} ago; {ttl}")
    click.echo(
        f"from {topic}, partition {stamp.partition}, offset {stamp.offset} of incarnation {stamp.incarnation}, row "
        f"{stamp.row}; record of {instant(stamp.timestamp)}; written by version {stamp.version} of the view"
    )
