"""`stillwell push`."""

from typing import TYPE_CHECKING, BinaryIO, Literal

import click

from stillwell.cli.output import json_option
from stillwell.cli.rows import FORMATS, Format, format_of, rows_of
from stillwell.cli.service import service_option
from stillwell.cli.told import Told

if TYPE_CHECKING:
    from stillwell.cli.rows import Types

_TIMEOUT = 30.0
"""Seconds for a batch, with its repetitions."""


@click.command()
@click.argument("view")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--mode",
    type=click.Choice(["sync", "async"]),
    default="sync",
    show_default=True,
    help="Answer once rows are in Redis, or once Kafka holds them.",
)
@click.option(
    "--to",
    type=click.Choice(["online", "offline", "online_and_offline"]),
    default="online_and_offline",
    show_default=True,
    help="Who is to see the rows.",
)
@click.option(
    "--transform-on-write/--final",
    default=True,
    show_default=True,
    help="Whether they are events of the view's topic, or finished rows.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="JSON lines, CSV or Parquet; as the file's name ends, if it is not given, and JSON lines for standard input.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="A text of your own: the same file, pushed again under it within ten minutes, is not taken twice.",
)
@service_option
@json_option
def push(
    view: str,
    file: BinaryIO,
    mode: Literal["sync", "async"],
    to: Literal["online", "offline", "online_and_offline"],
    transform_on_write: bool,
    format_: Format | None,
    idempotency_key: str | None,
    url: str,
    as_json: bool,
) -> int:
    """Push the rows of a FILE to a view; a FILE called - is standard input.

    A FILE has one JSON object a line, or is CSV, with the names of its columns in the first line, or Parquet. CSV needs
    the definitions, which say of what type each column is: STILLWELL_DEFINITIONS names them. An empty cell is null.

    Says of each row that cannot be used why, as FILE:LINE, as soon as that is known, of a hundred at the most, and
    counts all; with --json a line for every row, and one in the end. The exit code is 0 if all were taken. The token
    that it prints makes `stillwell get --after` wait for the rows.
    """
    import asyncio

    from stillwell.cli.pushing import push_rows
    from stillwell.client import Client

    written = format_ or format_of(file.name)
    told = Told(view, as_json, "row" if written == "parquet" else "line", getattr(file, "name", "-"))

    async def run() -> None:
        async with (
            Client(url, timeout=_TIMEOUT) as client,
            client.pusher(
                view, mode=mode, to=to, transform_on_write=transform_on_write, idempotency_key=idempotency_key
            ) as pusher,
        ):
            try:
                await push_rows(rows_of(file, written, lambda: _types(view, transform_on_write)), pusher, told)
            finally:
                told.token = str(pusher.token) if pusher.token else None

    try:
        asyncio.run(run())
    finally:
        told.sum_up()
    return 1 if told.counts["rejected"] else 0


def _types(view: str, transform_on_write: bool) -> "Types":
    """The columns that a row of a view may have, as the definitions say. Raises UsageError for what is no view."""
    from stillwell.definitions.loading import load_definitions
    from stillwell.pushing.instead import not_a_view
    from stillwell.pushing.record import final_topic, raw_topic
    from stillwell.settings import ProjectSettings
    from stillwell.spec import Origin

    settings = ProjectSettings.load()
    definitions = load_definitions(settings.definitions)
    views = {each.name: each for each in definitions.views}
    if view not in views:
        raise click.UsageError(not_a_view(definitions, view))
    topic = (raw_topic if transform_on_write else final_topic)(settings.project, views[view])
    return {column.name: column for column in topic.columns if column.origin is Origin.VALUE}
