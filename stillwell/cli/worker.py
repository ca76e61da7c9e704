"""`stillwell worker`."""

import click


@click.command()
def worker() -> None:
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
    from streams.app import run_worker

    settings = Settings.load()
    configure(settings.log_format, settings.log_level)
    with Starting() as starting:
        starting.at(f"the definitions of {settings.definitions}, which are loaded and checked")
        run_worker(settings, load_definitions(settings.definitions), starting)
