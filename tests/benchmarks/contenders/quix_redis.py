"""Quix Streams with its own Redis sink: JSON decoded, each event set under its Kafka key; no archive, no expiry."""

import tempfile
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.sinks.community.redis import RedisSink  # type: ignore[import-not-found]

from tests.benchmarks.contenders.stopwatch import Stopwatch, Task


class TimedRedisSink(RedisSink):  # type: ignore[misc]
    """The sink, which tells when the first event comes to it. Later ones go straight to what it inherits."""

    def __init__(self, started: Callable[[], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._started = started

    def add(self, *event: Any, **fields: Any) -> None:
        """The first event; from then on the method is the inherited one."""
        self._started()
        self.add = super().add  # type: ignore[method-assign]
        self.add(*event, **fields)


def main(task: Task) -> None:
    """Write every event to Redis; the last checkpoint is made before `run` returns."""
    redis = urlsplit(task.redis_url)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=task.bootstrap,
            consumer_group=task.group,
            auto_offset_reset="earliest",
            auto_create_topics=False,
            state_dir=state,
            loglevel="WARNING",
        )
        events = app.dataframe(app.topic(task.topic, value_deserializer="json"))
        events.sink(TimedRedisSink(watch.start, host=redis.hostname, port=redis.port, db=0))
        app.run(count=task.events, collect=False)
        watch.finish(task.events)


if __name__ == "__main__":
    main(Task.from_arguments())
