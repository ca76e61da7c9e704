"""`stillwell sweep`."""

import dataclasses

import click

from stillwell.cli.output import counting_progress, json_option, print_json

_HALF_WRITTEN_HOURS = 24  # no create takes as long; one that does finds its bytes gone, and is made anew


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def sweep(dry_run: bool, as_json: bool) -> int:
    """Remove files that belong to no link, and never will.

    Crashes and overtaken writers leave them behind; nobody reads them. Removed is only what the chain has passed, so
    that workers may run meanwhile, and zombies wake up afterwards. A chain in which something is wrong is left alone;
    exit code 1 if there is any.
    """
    import datetime

    from stillwell.counting import counted
    from stillwell.instants import now
    from stillwell.settings import Settings
    from stillwell.storage import open_store
    from stillwell.sweep import find_left_behind, remove

    store = open_store(Settings.load().offline_root)
    before = now() - datetime.timedelta(hours=_HALF_WRITTEN_HOURS)
    with counting_progress("chains") as advance:
        found = find_left_behind(store, before, advance)
    if not dry_run:
        remove(store, found)
    if as_json:
        print_json({"removed": not dry_run, **dataclasses.asdict(found), "damaged": [str(id) for id in found.damaged]})
        return 1 if found.damaged else 0
    for path in (*found.files, *found.half_written):
        click.echo(path)
    what = f"{counted(len(found.files), 'file')} in no link, {counted(len(found.half_written), 'half written one')}"
    kept = counted(len(found.kept), "file")
    click.echo(f"{'Would remove' if dry_run else 'Removed'}: {what}; kept, though in no link: {kept}")
    for id in found.damaged:
        click.echo(f"{id}: something is wrong with its chain, `stillwell verify` says what; left alone", err=True)
    return 1 if found.damaged else 0
