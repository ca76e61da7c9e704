"""The options that say which query service is asked, and how long it has."""

from collections.abc import Callable
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

URL_VARIABLE = "STILLWELL_URL"

DEFAULT_URL = "http://127.0.0.1:6566"
"""Where `stillwell serve` answers if nobody says otherwise."""


PATIENCE = 10.0
"""Seconds for an answer: of a person, not of a program."""


def timeout_option(command: Command) -> Command:
    """Give a command the option --timeout, as its argument `timeout`."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=60),
        default=PATIENCE,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for an answer, at most 60.",
    )(command)


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
