"""`stillwell get`."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from stillwell.cli.neighbours import tell_neighbours
from stillwell.cli.output import json_option, print_json
from stillwell.cli.service import timeout_option, url_option
from stillwell.cli.values import instant, jsonable, parse, shown

if TYPE_CHECKING:
    from stillwell.client import Row, Value
    from stillwell.layout.stamp import Stamp
    from stillwell.reading.online import Stored
    from stillwell.reading.plan import Plan
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec, FeatureSpec, OutputSpec, ViewSpec


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="NAME… KEY=VALUE…")
@click.option("--after", multiple=True, metavar="TOKEN", help="Wait until what was pushed can be read.")
@timeout_option
@url_option
@json_option
def get(words: tuple[str, ...], after: tuple[str, ...], timeout: float, url: str | None, as_json: bool) -> None:
    """Show what is known of an entity, as it is in Redis or as a query service answers.

    A NAME is a feature as VIEW:FEATURE, a feature service, or a view, an alias, an on-demand view or a model, for all
    that it has. There may be several; of a query service a feature service is asked for alone. A key is given as text:
    a whole number, true or false, base64 for bytes, ISO-8601 with a zone for a time. Each feature is PRESENT,
    NULL_VALUE, NOT_FOUND, or OUTSIDE_MAX_AGE: then the row is older than the view's TTL.
    """
    names = [word for word in words if "=" not in word]
    pairs = pairs_of(word for word in words if "=" in word)
    if not names:
        raise click.UsageError("name a view, a feature or a feature service before the keys")
    if url is not None:
        _through_the_service(url, names, pairs, after, timeout, as_json)
    else:
        _from_the_store(names, pairs, after, timeout, as_json)


def _through_the_service(
    url: str, names: Sequence[str], pairs: Mapping[str, str], after: Sequence[str], timeout: float, as_json: bool
) -> None:
    import asyncio

    from stillwell.client.service import at

    async def ask() -> "tuple[Row, Collection[str]]":
        service = at(url)
        try:
            row = await service.features_of_text(names, pairs, after, timeout)
            return row, await service.models(timeout) if _missing(row) and not as_json else ()
        finally:
            await service.close()

    row, models = asyncio.run(ask())
    _show(row, as_json)
    _tell_of_predictions(row, models, pairs, f" --url {url}")


def _tell_of_predictions(row: "Row", models: Iterable[str], pairs: Mapping[str, str], where: str = "") -> None:
    """Why an output is not there, features do not say: there may be no prediction yet, or the model may have failed."""
    keys = " ".join(f"{name}={text}" for name, text in pairs.items())
    for model in models:
        if model in _missing(row):
            told = f"`stillwell predict {model} {keys}{where}` says why"
            click.echo(f"{model} has no prediction of this entity that could be shown: {told}")


def _missing(row: "Row") -> set[str]:
    """Whatever has something that was not found: by its name."""
    return {name.partition(":")[0] for name, each in row.features.items() if each.status.value == "NOT_FOUND"}


def _from_the_store(
    names: Sequence[str], pairs: Mapping[str, str], after: Sequence[str], timeout: float, as_json: bool
) -> None:
    from stillwell.definitions.loading import load_definitions
    from stillwell.reading.catalog import Catalog
    from stillwell.settings import Settings

    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    views = {view.name: view for view in definitions.views}
    references = list(dict.fromkeys(each for name in names for each in _references(definitions, name)))
    plan = Catalog(definitions).plan(references)
    whole = views.get(names[0]) if len(names) == 1 else None
    entity = _entity(pairs, plan, whole.entity.name if whole else ", ".join(names))
    stored: list[bytes | None] = []
    row = _read(settings, definitions, references, entity, after, timeout, lambda seen: stored.extend(seen.values))
    if whole is None:
        _show(row, as_json)
        if not as_json:
            _tell_of_predictions(row, [model.name for model in definitions.models], pairs)
        return
    place = _place(settings, definitions, _stamp(stored[-1])) if stored and stored[-1] is not None else None
    (_print_as_json if as_json else _print)(whole, row, place)
    if place is None and not as_json and (others := tell_neighbours(settings, whole)):
        click.echo(others)


def _read(
    settings: "Settings",
    definitions: "DefinitionsSpec",
    references: Sequence[str],
    entity: Mapping[str, object],
    after: Sequence[str],
    timeout: float,
    seen: "Callable[[Stored], None]",
) -> "Row":
    import asyncio

    from stillwell.client import Client, Retries
    from stillwell.client.direct import direct

    async def read() -> "Row":
        async with Client.of(direct(settings, definitions, Retries(), seen), timeout=timeout) as client:
            return (await client.features(references, [entity], after=after)).one()

    return asyncio.run(read())


def _stamp(value: bytes) -> "Stamp":
    from stillwell.layout.stamp import Stamp
    from stillwell.layout.value import stamp_of

    return Stamp.unpack(stamp_of(value))


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a row comes from. topic: Kafka's name, or None where nobody knows which topic the stamp means."""

    topic: str | None
    stamp: "Stamp"


def _references(definitions: "DefinitionsSpec", name: str) -> Sequence[str]:
    """The features that a name stands for. Raises UsageError for one that is not there."""
    from stillwell.definitions.mistakes import did_you_mean

    if ":" in name:
        return [name]
    services = {service.name: service.features for service in definitions.services}
    if name in services:
        return services[name]
    listed: dict[str, Sequence[FeatureSpec | OutputSpec]] = {view.name: view.features for view in definitions.views}
    listed |= {each.name: each.features for each in definitions.on_demand}
    listed |= {model.name: model.outputs for model in definitions.models}
    listed |= {alias.name: alias.view.features for alias in definitions.aliases}
    if name in listed:
        return [f"{name}:{feature.name}" for feature in listed[name]]
    if any(name == key.name for entity in definitions.entities for key in entity.keys):
        raise click.UsageError(f"{name!r} is no KEY=VALUE; write {name}=…")
    raise click.UsageError(f"there is no view {name!r}{did_you_mean(name, [*listed, *services])}")


def pairs_of(words: Iterable[str]) -> dict[str, str]:
    """The text of each key, from KEY=VALUE. Raises UsageError for one that is given twice, or is none."""
    pairs: dict[str, str] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise click.UsageError(f"{word!r} is no KEY=VALUE; write {word}=…")
        if name in pairs:
            raise click.UsageError(f"the key {name} is given twice")
        pairs[name] = text
    return pairs


def _entity(pairs: Mapping[str, str], plan: "Plan", whose: str) -> dict[str, object]:
    """The value of each key, and of what else a request brings. Raises UsageError for what is missing, unknown or of
    another type."""
    from stillwell.definitions.mistakes import did_you_mean

    types = plan.columns
    values: dict[str, object] = {}
    for name, text in pairs.items():
        if name not in types:
            raise click.UsageError(f"{whose} has no key {name!r}{did_you_mean(name, types)}")
        try:
            values[name] = parse(types[name], text)
        except ValueError as error:
            raise click.UsageError(f"the key {name} {error}") from None
    if missing := [name for name in plan.required if name not in values]:
        raise click.UsageError(f"{whose} needs {' and '.join(f'{name}=…' for name in missing)} too")
    return {name: values[name] for name in types if name in values}


def _place(settings: "Settings", definitions: "DefinitionsSpec", stamp: "Stamp") -> _Place:
    """Which topic a stamp means, by its digest: one of the definitions, or else one that once was."""
    from stillwell.known_views import registered_topics
    from stillwell.layout.stamp import topic_digest
    from stillwell.pushing.topics import push_topics
    from stillwell.storage import open_store

    def among(topics: Iterable[str]) -> str | None:
        return next((topic for topic in topics if topic_digest(topic) == stamp.topic), None)

    # Pushes too, though they may be switched off by now.
    defined = among((*(each.topic for each in definitions.topics), *push_topics(settings.project, definitions)))
    return _Place(defined or among(registered_topics(open_store(settings.offline_root), settings.project)), stamp)


def _print_as_json(view: "ViewSpec", found: "Row", place: _Place | None) -> None:
    row = None
    at = _of_the_row(found)
    if place and at.event_time and at.age is not None:
        stamp = place.stamp
        row = {
            "event_time": jsonable(at.event_time),
            "age_s": at.age.total_seconds(),
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
    print_json({**_features(found), "view": view.name, "ttl_s": view.ttl.total_seconds() or None, "row": row})


def _print(view: "ViewSpec", found: "Row", place: _Place | None) -> None:
    click.echo(f"{view.name} of {_named(found.entity)}")
    _print_features({reference.partition(":")[2]: each for reference, each in found.features.items()})
    at = _of_the_row(found)
    if place is None or at.event_time is None or at.age is None:
        click.echo("there is no row")
        return
    from stillwell.counting import lasting, lasting_about

    stamp = place.stamp
    topic = place.topic or f"an unknown topic ({stamp.topic.hex()})"
    ttl = f"TTL {lasting(view.ttl)}" if view.ttl else "no TTL"
    click.echo(f"event time {jsonable(at.event_time)}, {lasting_about(at.age)} ago; {ttl}")
    click.echo(
        f"from {topic}, partition {stamp.partition}, offset {stamp.offset} of incarnation {stamp.incarnation}, row "
        f"{stamp.row}; record of {instant(stamp.timestamp)}; written by version {stamp.version} of the view"
    )


def _show(found: "Row", as_json: bool) -> None:
    """Features of one or several views."""
    if as_json:
        print_json(_features(found))
        return
    click.echo(f"Features of {_named(found.entity)}")
    _print_features(found.features, ages=True)


def _features(found: "Row") -> dict[str, object]:
    """What is printed as JSON, wherever it comes from."""
    return {
        "entity": {name: jsonable(value) for name, value in found.entity.items()},
        "features": {
            reference: {
                "value": jsonable(each.value),
                "status": each.status.value,
                "event_time": jsonable(each.event_time),
                "age_s": None if each.age is None else each.age.total_seconds(),
                "freshness": each.freshness and each.freshness.value,
            }
            for reference, each in found.features.items()
        },
    }


def _print_features(features: "Mapping[str, Value]", ages: bool = False) -> None:
    from stillwell.counting import lasting_about

    width = max(map(len, features))
    for name, each in features.items():
        late = ", LATE" if each.freshness and each.freshness.value == "LATE" else ""
        age = f"  ({lasting_about(each.age)} old{late})" if ages and each.age is not None else ""
        click.echo(f"  {name:<{width}}  {each.status.value:<15}  {shown(each.value)}{age}")


def _named(entity: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in entity.items())


def _of_the_row(found: "Row") -> "Value":
    """Any feature of a view: all have the row's event time and age."""
    return next(iter(found.features.values()))
