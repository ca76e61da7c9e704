"""`stillwell topics infer`."""

import pathlib
import re
import sys
import tempfile
import uuid
from typing import TYPE_CHECKING

import click

from stillwell.cli.events import first_of, key_option, name_of, newest_of, refuse_key
from stillwell.cli.new_files import write_new_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillwell.inferring import Inferred
    from stillwell.settings import ProjectSettings
    from stillwell.trial import Record, Tried


@click.command()
@click.argument("topic")
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Look at the JSON lines of a file instead, - for standard input, as if they were the topic's.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="Look at so many records: the newest of a topic, the first of a file.",
)
@key_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="The file to write, which must not be there yet. Without: standard output.",
)
def infer(topic: str, file: str | None, limit: int, key: str | None, output: pathlib.Path | None) -> None:
    """Write definitions for a TOPIC from what is in it, to begin with.

    An entity, the topic and a view of the latest event: a module that passes `stillwell check` as it stands, with a
    comment at everything that was guessed, and at what some of the records are rejected for.
    """
    from stillwell.definitions.names import kafka_name_problem
    from stillwell.inferring import infer as inferred_from
    from stillwell.settings import KafkaSettings, ProjectSettings

    if output is not None and not (output.suffix == ".py" and output.stem.isidentifier()):
        name = re.sub(r"\W", "_", output.name.removesuffix(".py"), flags=re.ASCII)
        name = name if name.isidentifier() else f"topic_{name}"
        raise click.UsageError(
            f"{output} is no name of a module, and would not be loaded; write {output.with_name(name)}.py"
        )
    if output is not None and output.exists():
        raise click.UsageError(f"{output} is there already; name another file, or remove it")
    if problem := kafka_name_problem(topic):
        raise click.UsageError(f"the topic {problem}")
    if file is None:
        refuse_key(key)
        records, _ = newest_of(KafkaSettings.load(), topic, limit)
    else:
        records, _ = first_of(file, limit, key)
    inferred = inferred_from(topic, records, "" if file is None else name_of(file))
    tried = _tried(ProjectSettings.load(), inferred, records)
    if output is None:
        click.echo(inferred.source, nl=False)
    else:
        write_new_files({output: inferred.source})
        click.echo(f"{output} written")
    _sum_up(inferred.view, topic if file is None else name_of(file), tried)


def _tried(settings: "ProjectSettings", inferred: "Inferred", records: "Sequence[Record]") -> "Tried":
    """What the view makes of the records that it was guessed from. Loads the module, so that what is wrong with it
    would be told before anybody has it."""
    from stillwell.definitions.loading import load_definitions
    from stillwell.trial import Trial

    name = f"inferred_{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        write_new_files({pathlib.Path(folder) / f"{name}.py": inferred.source})
        try:
            definitions = load_definitions(name, pathlib.Path(folder))
        finally:
            sys.path.remove(folder)
    (view,) = definitions.views
    return Trial(view, settings.max_future).run(records)


def _sum_up(view: str, topic: str, tried: "Tried") -> None:
    from collections import Counter

    from stillwell.counting import counted

    reasons = ", ".join(
        f"{reason} {count:,}" for reason, count in Counter(each.reason for each in tried.rejects).items()
    )
    click.echo(
        f"{counted(tried.records, 'record')} of {topic} looked at: {counted(len(tried.rows), 'row')} of {view}, "
        f"{len(tried.rejects):,} rejected{f' ({reasons})' if reasons else ''}",
        err=True,
    )
