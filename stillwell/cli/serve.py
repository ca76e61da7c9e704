"""`stillwell serve`."""

import click


@click.command()
def serve() -> None:
    """Answer requests for features over HTTP, until SIGTERM or Ctrl-C.

    Feast's clients find here what they look for in its feature server. It logs to standard error.
    """
    from serving.app import serve as answer
    from stillwell.definitions.loading import load_definitions
    from stillwell.logs import configure
    from stillwell.settings import Settings

    settings = Settings.load()
    configure(settings.log_format, settings.log_level)
    answer(settings, load_definitions(settings.definitions))
