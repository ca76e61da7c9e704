"""Faust as it comes: its own consumer and event loop, an agent over a topic, values as raw bytes, no work at all."""

import tempfile

import faust

from tests.benchmarks.contenders.stopwatch import Stopwatch, Task


def main(task: Task) -> None:
    """Count the events in an agent."""
    with tempfile.TemporaryDirectory() as folder:
        _count(task, folder)


def _count(task: Task, folder: str) -> None:
    """folder: for Faust's data, which it would otherwise leave in the working directory."""
    app = faust.App(
        task.group,
        datadir=folder,
        broker=f"kafka://{task.bootstrap}",
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
    )
    topic = app.topic(task.topic, key_serializer="raw", value_serializer="raw")
    watch = Stopwatch()

    @app.agent(topic)
    async def count(events: faust.StreamT[bytes]) -> None:
        seen = 0
        async for _ in events:
            if not watch.running:
                watch.start()
            seen += 1
            if seen == task.events:
                watch.finish(seen)

    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main(Task.from_arguments())
