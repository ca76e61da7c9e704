"""`stillwell serve`."""

import click


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), help="Processes on the port, in STILLWELL_SERVE_WORKERS' place.")
@click.option("--json", "as_json", is_flag=True, help="Log JSON, for programs, in STILLWELL_LOG_FORMAT's place.")
@click.option("--seat", hidden=True, help="What a process of several is handed by the one that starts it.")
def serve(workers: int | None, as_json: bool, seat: str | None) -> int:
    """Answer requests for features over HTTP, until SIGTERM or Ctrl-C.

    Feast's clients find here what they look for in its feature server. It logs to standard error, and shows /metrics,
    /healthz and /readyz beside the features. With several workers, one that dies is started anew.
    """
    import os

    # Before Polars is imported, which reads it then: what is pushed at one moment is a small frame, and handing it to
    # a pool of threads costs a fifth more than it saves, of cores that answer reads.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    if as_json:
        os.environ["STILLWELL_LOG_FORMAT"] = "json"  # for the processes that it starts, too

    from stillwell.logs import configure
    from stillwell.settings import Settings

    settings = Settings.load()
    configure(settings.log_format, settings.log_level)
    processes = workers or settings.serve_workers
    if processes > 1 and seat is None:
        from serving.processes.parent import serve_by_many

        return serve_by_many(settings, processes)

    from serving.app import serve as answer
    from serving.processes.seat import Seat
    from stillwell.definitions.loading import load_definitions
    from stillwell.starting import Starting

    with Starting() as starting:
        starting.at(f"the definitions of {settings.definitions}, which are loaded and checked")
        definitions = load_definitions(settings.definitions)
        starting.at("the transformations, which are made ready for pushes")
        answer(settings, definitions, Seat.read(seat) if seat else None, started=starting.end)
    return 0
