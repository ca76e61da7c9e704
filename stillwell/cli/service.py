"""The option that names a query service."""

from collections.abc import Callable
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

URL_VARIABLE = "STILLWELL_URL"


def url_option(command: Command) -> Command:
    """Give a command the option --url, as its argument `url`: None where none is named."""
    return click.option(
        "--url",
        metavar="URL",
        envvar=URL_VARIABLE,
        help=f"Ask this query service, as http://host:6566; or set {URL_VARIABLE}.",
    )(command)
