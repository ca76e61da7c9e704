"""`stillwell check`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stillwell.cli.output import json_option, print_json

if TYPE_CHECKING:
    from stillwell.spec import DefinitionSpec, DefinitionsSpec, ModelSpec


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check the definitions, without any service.

    Loads the package that STILLWELL_DEFINITIONS names, tries every view on made-up rows and on the golden examples, and
    prints each mistake with its file, class, field and fix, and each example of which something else becomes than it
    says. Exit code 1 if there is any. --json prints what is defined, of which owner, with which tags and descriptions.
    A variable of a model's server that is not set is told of, and no mistake: it may be set where the definitions run.
    """
    from stillwell.counting import counted
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
    unset = _unset(definitions.models)
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
                "about": {each.name: _about(each) for each in _all(definitions)},
                "unset_variables": unset,
            }
        )
        return
    told = [
        counted(len(definitions.entities), "entity", "entities"),
        counted(len(definitions.topics), "topic"),
        counted(len(definitions.views), "view"),
        counted(len(definitions.examples), "example"),
    ]
    others: tuple[tuple[Sequence[object], str, str], ...] = (
        (definitions.aliases, "alias", "aliases"),
        (definitions.requests, "request", "requests"),
        (definitions.on_demand, "on-demand view", "on-demand views"),
        (definitions.services, "service", "services"),
        (definitions.models, "model", "models"),
    )
    told += [counted(len(defined), one, several) for defined, one, several in others if defined]
    click.echo(f"{settings.definitions} is right: {', '.join(told)}.")
    for variable, models in unset.items():
        click.echo(
            f"{variable} is not set here. It says where the server of {' and '.join(models)} is, as http://host:port: "
            "set it wherever `stillwell serve` and `stillwell worker` run.",
            err=True,
        )


def _all(definitions: "DefinitionsSpec") -> "list[DefinitionSpec]":
    """Every definition that may have an owner: no two share a name."""
    return [
        *definitions.entities,
        *definitions.topics,
        *definitions.views,
        *definitions.requests,
        *definitions.on_demand,
        *definitions.services,
        *definitions.models,
    ]


def _about(definition: "DefinitionSpec") -> dict[str, object]:
    """What a definition says to people, and its fields by their names, where they say anything."""
    fields = [*_fields(definition, "columns"), *_fields(definition, "features"), *_fields(definition, "outputs")]
    return {
        "owner": definition.owner,
        "tags": dict(definition.tags),
        "description": definition.description,
        "fields": {each.name: each.description for each in fields if each.description},
    }


def _fields(definition: "DefinitionSpec", word: str) -> "tuple[Any, ...]":
    """Of a feature service, whose features are names of others, none."""
    return tuple(each for each in getattr(definition, word, ()) if not isinstance(each, str))


def _unset(models: "Sequence[ModelSpec]") -> dict[str, list[str]]:
    """Variables that hold where models' servers are, and that the environment does not have; and whose."""
    import os

    from stillwell.spec import OpenInferenceSpec

    unset: dict[str, list[str]] = {}
    for model in models:
        variable = model.server.variable if isinstance(model.server, OpenInferenceSpec) else None
        if variable and not os.environ.get(variable):
            unset.setdefault(variable, []).append(model.name)
    return unset
