"""`stillwell try`."""

import dataclasses
import datetime
import pathlib
from typing import TYPE_CHECKING

import click

from stillwell.cli.events import STANDARD_INPUT, first_of, key_option, name_of, newest_of, refuse_key
from stillwell.cli.output import json_option, print_json
from stillwell.cli.values import excerpt, jsonable, printable, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillwell.broken import Broken
    from stillwell.records import Reject
    from stillwell.spec import ViewSpec
    from stillwell.trial import Record, Tried

_MOST_FILTERED = 3
"""Of the records that a view left out on purpose, so many are shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """Records, and where each is from: `line 3`, or partition and offset, `0/17`. name: of the file or topic."""

    name: str
    records: "tuple[Record, ...]"
    places: tuple[str, ...]


@click.command("try")
@click.argument("view")
@click.option(
    "--from",
    "source",
    metavar="TOPIC|FILE",
    help="A topic of Kafka's, or a file of JSON lines, - for standard input. Without: the topic that the view reads.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="So many records: the newest of a topic, the first of a file.",
)
@key_option
@json_option
def try_view(view: str, source: str | None, limit: int, key: str | None, as_json: bool) -> None:
    """Show what a VIEW makes of some records, and write nothing.

    Each row, each record that cannot be used with the reason, how many were filtered, and if no row comes of any
    record, why. A topic is read without a consumer group: nobody's offset moves. A file needs no service at all.
    """
    from stillwell.definitions.loading import load_definitions
    from stillwell.pushing.instead import not_a_view
    from stillwell.settings import ProjectSettings
    from stillwell.trial import Trial

    settings = ProjectSettings.load()
    definitions = load_definitions(settings.definitions)
    views = {each.name: each for each in definitions.views}
    if view not in views:
        raise click.UsageError(not_a_view(definitions, view, "try", "no view is computed from it"))
    chosen = views[view]
    trial = Trial(chosen, settings.max_future)
    taken = _source(chosen, source, limit, key)
    tried = trial.run(taken.records)
    if as_json:
        _print_as_json(chosen, taken, tried)
    else:
        _print(chosen, taken, tried)


def _source(view: "ViewSpec", source: str | None, limit: int, key: str | None) -> _Source:
    from stillwell.pushing.on_write import PUSHED
    from stillwell.settings import KafkaSettings

    if source is not None and (source == STANDARD_INPUT or pathlib.Path(source).is_file()):
        return _Source(name_of(source), *first_of(source, limit, key))
    topic = source or view.source.topic
    if topic.startswith(PUSHED):
        raise click.UsageError(f"{view.name} reads no topic: what it stores is pushed. Name a file of events by --from")
    if source is not None and ("/" in source or source.endswith((".ndjson", ".jsonl", ".json"))):
        raise click.UsageError(f"there is no file {source!r}")
    refuse_key(key)
    return _Source(topic, *newest_of(KafkaSettings.load(), topic, limit))


# ---- for people ----


def _print(view: "ViewSpec", taken: _Source, tried: "Tried") -> None:
    from stillwell.rowless import causes, explanation, why_too_old

    for row in tried.rows:
        click.echo(f"{taken.places[row.offset]:<10}  {_row(view, row.values)}")
    for reject in tried.rejects:
        _print_reject(taken, reject)
    for offset in tried.filtered[:_MOST_FILTERED]:
        click.echo(f"{taken.places[offset]:<10}  filtered: {excerpt(taken.records[offset].value)}")
    for broken in tried.broken:
        if broken.rule.action != "reject":
            click.echo(_doubt(taken, broken))
    if _all_too_old(view, tried):
        click.echo(why_too_old(view))
    click.echo(_summary(view, taken, tried))
    if tried.records and not tried.rows:
        click.echo(explanation(view.name, tried.why_without, causes(view)))


def _row(view: "ViewSpec", values: "Mapping[str, object]") -> str:
    """A row on one line: whose it is, what it says, and as of when."""
    keys = [key.name for key in view.entity.keys]
    features = [feature.name for feature in view.features]
    of = ", ".join(f"{name}={shown(values[name])}" for name in keys)
    said = ", ".join(f"{name}={shown(values[name])}" for name in features)
    return f"{of} → {said}  ({jsonable(values['event_timestamp'])})"


def _print_reject(taken: _Source, reject: "Reject") -> None:
    whom = f" for {reject.view}" if reject.view else ""
    click.echo(f"{taken.places[reject.offset]:<10}  rejected{whom}, {reject.reason}: {printable(reject.error)}")
    value = taken.records[reject.offset].value
    click.echo(f"{'':<10}      {'no value' if value is None else excerpt(value) or 'an empty value'}")


def _doubt(taken: _Source, broken: "Broken") -> str:
    """What a rule says that does not reject: it keeps what it warns of, and would stop a worker."""
    from stillwell.counting import counted

    column, rule, action = broken.rule
    does = "which is kept, counted and told" if action == "warn" else "which stops a worker"
    what = f"{action}: {column} is not {rule}, got {printable(broken.value)}, {does}"
    return f"{taken.places[broken.offset]:<10}  {what}; so {counted(broken.count, 'record')}"


def _all_too_old(view: "ViewSpec", tried: "Tried") -> bool:
    """Whether there are rows, and none that counts: mostly because the event time is read in a wrong unit."""
    from stillwell.instants import now
    from stillwell.rowless import counts_from

    oldest = counts_from(view, now())
    times = [row.values["event_timestamp"] for row in tried.newest]
    return bool(times) and oldest is not None and all(isinstance(at, datetime.datetime) and at < oldest for at in times)


def _summary(view: "ViewSpec", taken: _Source, tried: "Tried") -> str:
    from stillwell.counting import counted

    if not tried.records:
        return f"{taken.name} holds no record"
    of = counted(len(tried.newest), "entity", "entities")
    return (
        f"{counted(tried.records, 'record')} of {taken.name}: {counted(len(tried.rows), 'row')} of {of}, "
        f"{len(tried.filtered):,} filtered, {len(tried.rejects):,} rejected. Nothing was written"
    )


# ---- for programs ----


def _print_as_json(view: "ViewSpec", taken: _Source, tried: "Tried") -> None:
    print_json(
        {
            "view": view.name,
            "source": taken.name,
            "records": tried.records,
            "rows": [
                {"at": taken.places[row.offset], **{name: jsonable(value) for name, value in row.values.items()}}
                for row in tried.rows
            ],
            "rejects": [
                {"at": taken.places[reject.offset], "view": reject.view, "reason": reject.reason, "error": reject.error}
                for reject in tried.rejects
            ],
            "filtered": [taken.places[offset] for offset in tried.filtered],
            "broken": [
                {**each.rule._asdict(), "count": each.count, "first": taken.places[each.offset]}
                for each in tried.broken
            ],
        }
    )
