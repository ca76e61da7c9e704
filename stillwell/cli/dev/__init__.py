"""`stillwell dev`: a worker over definitions that are being written.

command     the command: what it needs, in the order in which it starts, and ends in the reverse
stage       the servers, and a namespace that nobody misses
child       the worker, a process of its own, and what it tells
watching    whether a file of the project has changed
tally       what became of records so far, and why no rows came of them
showing     all of that for a person, on a terminal or in a log
exports     the settings that lead another terminal here
"""

from stillwell.cli.dev.command import dev

__all__ = ["dev"]
