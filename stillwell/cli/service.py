"""The option that names a query service."""

from collections.abc import Callable
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

URL_VARIABLE = "STILLWELL_URL"

DEFAULT_URL = "http://127.0.0.1:6566"
"""Where `stillwell serve` answers if nobody says otherwise."""


def service_option(command: Command) -> Command:
    """Give a command the option --url, as its argument `url`: where one is needed."""
    return click.option(
        "--url",
        metavar="URL",
        envvar=URL_VARIABLE,
        default=DEFAULT_URL,
        show_default=True,
        help=f"The query service; or set {URL_VARIABLE}.",
    )(command)


def url_option(command: Command) -> Command:
    """Give a command the option --url, as its argument `url`: None where none is named."""
    return click.option(
        "--url",
        metavar="URL",
        envvar=URL_VARIABLE,
        help=f"Ask this query service, as http://host:6566; or set {URL_VARIABLE}.",
    )(command)
