"""`stillwell check`."""

import click

from stillwell.cli.output import json_option, print_json


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check the definitions, without any service.

    Loads the package that STILLWELL_DEFINITIONS names, tries every view on made-up rows and on the golden examples, and
    prints each mistake with its file, class, field and fix, and each example of which something else becomes than it
    says. Exit code 1 if there is any.
    """
    from stillwell.definitions.golden import check_examples
    from stillwell.definitions.loading import load_definitions
    from stillwell.errors import DefinitionError
    from stillwell.settings import ProjectSettings

    settings = ProjectSettings.load()
    definitions = load_definitions(settings.definitions)
    if disagreements := check_examples(definitions):
        raise DefinitionError(*disagreements)
    if as_json:
        print_json(
            {
                "definitions": settings.definitions,
                "entities": [entity.name for entity in definitions.entities],
                "topics": {topic.name: topic.topic for topic in definitions.topics},
                "views": {view.name: view.version for view in definitions.views},
                "examples": len(definitions.examples),
            }
        )
        return
    click.echo(
        f"{settings.definitions} is right: {len(definitions.entities)} entities, {len(definitions.topics)} topics, "
        f"{len(definitions.views)} views, {len(definitions.examples)} examples."
    )
