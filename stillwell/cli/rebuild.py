"""`stillwell rebuild`."""

import dataclasses
import secrets
from typing import TYPE_CHECKING

import click

from stillwell.cli.asking import ask
from stillwell.cli.output import counting_progress, json_option, print_json

if TYPE_CHECKING:
    from stillwell.rebuild import Plan, Rebuilt
    from stillwell.settings import Settings
    from stillwell.spec import DefinitionsSpec


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask, though Redis is ready.")
@json_option
def rebuild(yes: bool, as_json: bool) -> None:
    """Fill Redis again from all linked files, after it has lost data.

    While it runs Redis is not ready: workers stop, and go on by themselves afterwards. If it fails or is interrupted,
    run it again. Rows that are in Redis already stay if they are the newer ones. Asks first where Redis is ready, since
    then nothing seems to be lost.

    It asks for no predictions: at the end it says how to have those computed that writes keep fresh.
    """
    import asyncio

    from stillwell.definitions.loading import load_definitions
    from stillwell.predictions.inputs import refreshed_by_command
    from stillwell.settings import Settings

    settings = Settings.load()
    definitions = load_definitions(settings.definitions)
    models = refreshed_by_command(definitions)
    rebuilt = asyncio.run(_rebuild(settings, definitions, yes))
    if as_json:
        print_json(
            {
                "epoch": rebuilt.epoch,
                "chains": rebuilt.plan.chains,
                "links": rebuilt.plan.links,
                "files": rebuilt.files,
                "rows": rebuilt.rows,
                **dataclasses.asdict(rebuilt.counts),
                "superseded": rebuilt.superseded,
                "offline": rebuilt.offline,
                "models_to_refresh": models,
            }
        )
        return
    from stillwell.counting import counted

    counts = rebuilt.counts
    click.echo(
        f"Redis is ready again, from {counted(rebuilt.rows, 'row')} in {counted(rebuilt.files, 'file')} of "
        f"{counted(rebuilt.plan.chains, 'chain')}:"
    )
    for count, what in (
        (counts.applied, "written"),
        (rebuilt.superseded, "older than another of their entity in the same file"),
        (counts.stale + counts.duplicate, "no newer than what was there by then"),
        (counts.expired, "past their TTL"),
        (rebuilt.offline, "pushed for the offline store alone"),
    ):
        if count:
            click.echo(f"  {count:,} {what}")
    if models:
        click.echo(
            "Predictions of rows that have changed stay as they are until they are read or written to. To have them "
            "computed now, run:"
        )
    for model in models:
        click.echo(f"  stillwell predictions refresh {model} --all")


async def _rebuild(settings: "Settings", definitions: "DefinitionsSpec", yes: bool) -> "Rebuilt":
    import contextlib

    from sinks.redis import RedisOnlineStore
    from stillwell.cli.patience import until_done
    from stillwell.known_views import known_views
    from stillwell.rebuild import FILES_AT_A_TIME, is_ready, plan, rebuild
    from stillwell.storage import open_store
    from stillwell.threads import ThreadPool

    store = open_store(settings.offline_root)
    views = known_views(store, definitions)
    planned = plan(store, views)
    async with contextlib.AsyncExitStack() as opened:
        online = await RedisOnlineStore.open(settings)
        opened.push_async_callback(online.close)
        if not yes and await is_ready(online, until_done):
            _ask(settings, planned)
        threads = ThreadPool("rebuild", FILES_AT_A_TIME)
        opened.callback(threads.close)
        advance = opened.enter_context(counting_progress("files"))
        epoch = secrets.token_hex(8)
        return await rebuild(store, online, views, planned, settings.redis_grace, epoch, threads, until_done, advance)


def _ask(settings: "Settings", planned: "Plan") -> None:
    """Whether a Redis that works is to be rebuilt. Raises Abort for no, UsageError where nobody can answer."""
    from stillwell.counting import counted

    meant = (
        f"Redis is ready in the namespace {settings.namespace}. A rebuild makes it not ready, stops the workers, and "
        f"puts {counted(planned.rows, 'row')} of {counted(planned.files, 'file')} again"
    )
    ask(meant, "Rebuild it?")
