"""The command `stillwell`: its commands, and what its exit codes mean.

0: done, and nothing is wrong. 1: something is wrong, and the last line says what. 2: it was called or set up wrongly.

Whatever a command needs it imports when it runs: that keeps `stillwell --help` quick, the rooms out of this package's
imports, and a command usable where the extras of the others are not installed.
"""

import contextlib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

from stillwell.cli.check import check
from stillwell.cli.dev import dev
from stillwell.cli.dev.exports import pointing_here
from stillwell.cli.dlq import dlq
from stillwell.cli.doctor import doctor
from stillwell.cli.get import get
from stillwell.cli.init import init
from stillwell.cli.local import local
from stillwell.cli.output import print_json
from stillwell.cli.predict import predict
from stillwell.cli.predictions import predictions
from stillwell.cli.produce import produce
from stillwell.cli.push import push
from stillwell.cli.rebuild import rebuild
from stillwell.cli.serve import serve
from stillwell.cli.sweep import sweep
from stillwell.cli.topics import topics
from stillwell.cli.trying import try_view
from stillwell.cli.verify import verify
from stillwell.cli.version import version
from stillwell.cli.worker import worker
from stillwell.errors import RequestError, SettingsError, SettingsMissing, StillwellError

FOUND_WRONG = 1
CALLED_WRONGLY = 2
INTERRUPTED = 130


_EXTRAS = {
    "aiokafka": "server",
    "faust": "server",
    "gcsfs": "server",
    "mode": "server",
    "prometheus_client": "server",
    "jgo": "local",
    "psutil": "local",
    "requests": "local",
}
"""The extra that carries a library, for who has installed less than a command needs."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A disk that takes no more: nobody looks for that in a traceback."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", "show_traceback", is_flag=True, help="On an error, show where in the code it arose.")
@click.pass_context
def stillwell(context: click.Context, show_traceback: bool) -> None:
    """An event-driven feature store: Kafka to Redis and Parquet.

    Exit codes: 0 nothing is wrong, 1 something is, 2 called or set up wrongly.
    """
    context.obj = show_traceback or os.environ.get("STILLWELL_LOG_LEVEL", "").lower() == "debug"
    # Libraries' warnings would stand between a command's lines; a command that wants a log sets it up itself.
    logging.getLogger().addHandler(logging.NullHandler())


for command in (
    check,
    dev,
    dlq,
    doctor,
    get,
    init,
    local,
    predict,
    predictions,
    produce,
    push,
    rebuild,
    serve,
    sweep,
    topics,
    try_view,
    verify,
    version,
    worker,
):
    stillwell.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        with stillwell.make_context("stillwell", given) as context:
            return _invoke(context, as_json)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        if as_json:
            _print_error("UsageError", None, error.format_message())
        return CALLED_WRONGLY


def _print_error(kind: str, field: str | None, message: str) -> None:
    """What went wrong, for a program: as the query service says it, and the last line of what it reads."""
    with contextlib.suppress(BrokenPipeError):
        print_json({"error": {"kind": kind, "field": field, "message": message}})


def _invoke(context: click.Context, as_json: bool) -> int:
    try:
        return int(stillwell.invoke(context) or 0)
    except StillwellError as error:
        if context.obj:
            traceback.print_exception(error)
        for message in error.args:
            click.echo(f"stillwell: {message}", err=True)
        if isinstance(error, SettingsMissing) and (pointing := pointing_here()):
            click.echo(pointing, err=True)
        if as_json:
            _print_error(type(error).__name__, error.field if isinstance(error, RequestError) else None, str(error))
        return CALLED_WRONGLY if isinstance(error, SettingsError | RequestError) else FOUND_WRONG
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        message = f"this command needs {error.name}, which is not installed. Run: pip install 'stillwell[{extra}]'"
        click.echo(f"stillwell: {message}", err=True)
        if as_json:
            _print_error("ModuleNotFoundError", None, message)
        return CALLED_WRONGLY
    except (KeyboardInterrupt, click.Abort):
        click.echo("stillwell: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if context.obj or error.errno not in _NO_ROOM:
            raise
        what = error.filename or "what this command prints"
        click.echo(f"stillwell: {what} cannot be written: {error.strerror}", err=True)
        return FOUND_WRONG


def main() -> None:
    """The entry point."""
    code = run()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Python would wait for its threads, and one that asks a store which does not answer waits for its time-out.
    os._exit(code)
