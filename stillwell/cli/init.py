"""`stillwell init`."""

import pathlib
import re

import click


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=pathlib.Path), default=pathlib.Path())
@click.option("--project", help="What the project is called. Without: as the folder is.")
def init(folder: pathlib.Path, project: str | None) -> None:
    """Write a small project into a FOLDER, this one unless given.

    Definitions with a golden example, settings, some events, a test and a compose file. Overwrites nothing: if one of
    the files is there already, none is written.
    """
    from stillwell.cli.writing import write_new
    from stillwell.instants import now
    from stillwell.starter import files

    name = _name(project or folder.resolve().name, given=project is not None)
    made = files(name, now())
    if there := [str(folder / place) for place in made if (folder / place).exists()]:
        raise click.UsageError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already; nothing was written"
        )
    write_new({folder / place: content for place, content in made.items()})
    for place in made:
        click.echo(f"{folder / place}")
    here = "" if folder.resolve() == pathlib.Path.cwd() else f"  cd {folder}\n"
    click.echo(
        f"\nNext:\n{here}  stillwell check\n  stillwell try LastOrder --from events/orders.ndjson\n  stillwell dev"
    )


def _name(wanted: str, *, given: bool) -> str:
    """A project's name: what was given must be one, a folder's is made one."""
    if given:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", wanted):
            raise click.UsageError(
                f"--project is {wanted!r}; use small letters, digits, - and _, beginning with a letter or digit, 64 at "
                "most: it becomes a part of every Redis key"
            )
        return wanted
    return re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:64] or "features"
