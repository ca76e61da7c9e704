"""`stillwell rebuild`."""

import dataclasses
import secrets
from typing import TYPE_CHECKING

import click

from stillwell.cli.output import counting_progress, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillwell.rebuild import Rebuilt
    from stillwell.settings import Settings


@click.command()
@json_option
def rebuild(as_json: bool) -> None:
    """Fill Redis again from all linked files, after it has lost data.

    While it runs Redis is not ready: workers stop, and go on by themselves afterwards. If it fails or is interrupted,
    run it again. Rows that are in Redis already stay if they are the newer ones.
    """
    import asyncio

    from stillwell.settings import Settings

    settings = Settings.load()
    with counting_progress("files") as advance:
        rebuilt = asyncio.run(_rebuild(settings, advance))
    left_out = {str(version): files for version, files in rebuilt.plan.left_out.items()}
    if as_json:
        print_json(
            {
                "epoch": rebuilt.epoch,
                "chains": rebuilt.plan.chains,
                "links": rebuilt.plan.links,
                "files": rebuilt.plan.files,
                "rows": rebuilt.rows,
                "left_out": left_out,
                **dataclasses.asdict(rebuilt.counts),
            }
        )
        return
    for version, files in left_out.items():
        click.echo(f"{files} files of {version} were left out: it never ran in the namespace {settings.namespace}")
    counts = rebuilt.counts
    click.echo(
        f"Redis is ready again: {rebuilt.rows:,} rows in {rebuilt.plan.files:,} files of {rebuilt.plan.chains} chains; "
        f"{counts.applied:,} written, {counts.stale + counts.duplicate:,} no newer than what was there, "
        f"{counts.expired:,} past their TTL"
    )


async def _rebuild(settings: "Settings", advance: "Callable[[int, int], None]") -> "Rebuilt":
    from sinks.redis import RedisOnlineStore
    from stillwell.cli.patience import pause
    from stillwell.definitions.loading import load_definitions
    from stillwell.known_views import known_views
    from stillwell.rebuild import FILES_AT_A_TIME, rebuild
    from stillwell.storage import open_store
    from stillwell.threads import ThreadPool

    definitions = load_definitions(settings.definitions)
    store = open_store(settings.offline_url)
    views = known_views(store, settings.project, settings.namespace, definitions)
    online = await RedisOnlineStore.open(settings)
    threads = ThreadPool("rebuild", FILES_AT_A_TIME)
    try:
        epoch = secrets.token_hex(8)
        return await rebuild(store, online, views, settings.redis_grace, epoch, threads, pause, advance)
    finally:
        threads.close()
        await online.close()
