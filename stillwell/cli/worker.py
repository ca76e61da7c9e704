"""`stillwell worker`."""

import contextlib
import sys

import click


@click.command()
@click.option("--tell", is_flag=True, help="Say on standard output what becomes of records, in lines of JSON.")
def worker(tell: bool) -> None:
    """Consume the topics of the definitions into Redis and Parquet, until SIGTERM or Ctrl-C.

    Any number of workers share the partitions. One that is killed loses nothing: another goes on where its last link
    ends. It logs to standard error and shows /metrics, /healthz and /readyz on STILLWELL_WEB_PORT.
    """
    from streams.tuning import tune

    tune()

    from stillwell.definitions.loading import load_definitions
    from stillwell.logs import configure
    from stillwell.settings import Settings
    from stillwell.starting import Starting
    from streams.app import run_worker, topics_of
    from streams.ingest import Told, unseen
    from streams.telling import Telling

    settings = Settings.load()
    configure(settings.log_format, settings.log_level)
    with Starting() as starting, contextlib.ExitStack() as ending:
        starting.at(f"the definitions of {settings.definitions}, which are loaded and checked")
        definitions = load_definitions(settings.definitions)
        told: Told = unseen
        if tell:
            out = ending.enter_context(open(sys.stdout.fileno(), "wb", buffering=0, closefd=False))
            told = ending.enter_context(Telling(out, topics_of(settings, definitions)))
        run_worker(settings, definitions, starting, told)
