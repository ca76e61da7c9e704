"""Questions before what is not undone by doing it again."""

import sys

import click


def ask(meant: str, question: str) -> None:
    """Ask on the terminal whether what the sentence `meant` says is to be done.

    Raises Abort for no, and UsageError, which names --yes, where no terminal is there to answer.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{meant}. Say --yes if that is meant")
    click.confirm(f"{meant}.\n{question}", abort=True, err=True)
