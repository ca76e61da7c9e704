"""FastStream, one event at a time: JSON decoded, no types applied, no log, no work. For information alone."""

import logging

import uvloop
from faststream import FastStream  # type: ignore[import-not-found]
from faststream.kafka import KafkaBroker  # type: ignore[import-not-found]

from tests.benchmarks.contenders.stopwatch import Stopwatch, Task


def main(task: Task) -> None:
    """Count the events in a subscriber."""
    broker = KafkaBroker(task.bootstrap, apply_types=False, logger=None)
    watch, seen = Stopwatch(), 0

    @broker.subscriber(task.topic, group_id=task.group, auto_offset_reset="earliest")  # type: ignore[untyped-decorator]
    async def count(body: object) -> None:
        nonlocal seen
        if not watch.running:
            watch.start()
        seen += 1
        if seen == task.events:
            watch.finish(seen)

    uvloop.run(FastStream(broker, logger=None).run(log_level=logging.WARNING))


if __name__ == "__main__":
    main(Task.from_arguments())
