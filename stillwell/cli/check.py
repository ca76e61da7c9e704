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
    from stillwell.pushing.topics import push_topics
    from stillwell.settings import ProjectSettings

    settings = ProjectSettings.load()
    definitions = load_definitions(settings.definitions)
    if disagreements := check_examples(definitions):
        raise DefinitionError(*disagreements)
    pushes = push_topics(settings.project, definitions)
    if as_json:
        print_json(
            {
                "definitions": settings.definitions,
                "entities": [entity.name for entity in definitions.entities],
                "topics": {topic.name: topic.topic for topic in definitions.topics},
                "views": {view.name: view.version for view in definitions.views},
                "push_topics": list(pushes),
                "examples": len(definitions.examples),
                "aliases": {alias.name: alias.view.name for alias in definitions.aliases},
                "requests": [request.name for request in definitions.requests],
                "on_demand": {view.name: view.version for view in definitions.on_demand},
                "services": {service.name: list(service.features) for service in definitions.services},
                "models": {model.name: model.version for model in definitions.models},
            }
        )
        return
    counts = {
        "entities": definitions.entities,
        "topics": definitions.topics,
        "views": definitions.views,
        "examples": definitions.examples,
    }
    others = {
        "aliases": definitions.aliases,
        "requests": definitions.requests,
        "on-demand views": definitions.on_demand,
        "services": definitions.services,
        "models": definitions.models,
    }
    counts |= {kind: defined for kind, defined in others.items() if defined}
    shown = ", ".join(f"{len(defined)} {kind}" for kind, defined in counts.items())
    click.echo(f"{settings.definitions} is right: {shown}.")
