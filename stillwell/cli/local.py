"""`stillwell local`: real Kafka, real Redis and a folder, on this machine."""

import dataclasses
import shlex

import click

from stillwell.cli.output import download_progress, json_option, print_json


@click.group()
def local() -> None:
    """Run real Kafka, real Redis and a folder on this machine.

    They go on until `stillwell local down`. Nothing but Python is needed; Kafka (44 MB) is fetched the first time.
    """


@local.command()
@json_option
def up(as_json: bool) -> None:
    """Start what does not run, and print the lines that point Stillwell at it.

    In a shell: eval "$(stillwell local up)"
    """
    from stillwell.local import DetachedStack

    stack = DetachedStack()
    with download_progress("Fetching Apache Kafka") as progress:
        environment = stack.up(progress=progress)
    if as_json:
        print_json(environment)
        return
    for name, value in environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(f"Running; data and logs are in {stack.folder}. `stillwell local down` ends it.", err=True)


@local.command()
@click.option("--wipe", is_flag=True, help="Remove the data too.")
@json_option
def down(wipe: bool, as_json: bool) -> None:
    """End what runs. The data stay, unless --wipe is given."""
    from stillwell.local import DetachedStack

    stack = DetachedStack()
    stack.down(wipe=wipe)
    if as_json:
        print_json({"folder": str(stack.folder), "wiped": wipe})
    else:
        click.echo(f"Ended. {'The data are gone.' if wipe else f'The data stay in {stack.folder}.'}")


@local.command()
@json_option
def status(as_json: bool) -> int:
    """Show what runs; exit code 1 unless all of it does."""
    from stillwell.local import DetachedStack

    stack = DetachedStack()
    parts = stack.status()
    if as_json:
        print_json({"parts": [dataclasses.asdict(part) for part in parts], "environment": stack.environment()})
    else:
        for part in parts:
            state = "answers" if part.answers else "runs but does not answer" if part.running else "does not run"
            place = f" on port {part.port}, process {part.pid}, log {part.log}" if part.running else ""
            click.echo(f"{part.name} {state}{place}")
    return 0 if all(part.answers for part in parts) else 1
