"""The ceiling: a bare aiokafka consumer that takes batches by `getmany` and does nothing with them.

Set up as the worker's own consumer is. A pass over the topic takes about a second, so that it makes several.
"""

import aiokafka
import uvloop

from tests.benchmarks.contenders.stopwatch import Stopwatch, Task

PASSES = 3
_FETCH_BYTES = 4 << 20
_BATCH = 5_000


async def read(task: Task) -> None:
    """Read the whole topic so many times."""
    consumer = aiokafka.AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.bootstrap,
        group_id=task.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    await consumer.start()
    watch, seen = Stopwatch(), 0
    for _ in range(PASSES):
        await consumer.seek_to_beginning()
        end = seen + task.events
        while seen < end:
            batches = await consumer.getmany(timeout_ms=200, max_records=_BATCH)
            if batches and not watch.running:
                watch.start()
            seen += sum(map(len, batches.values()))
    watch.finish(seen)


if __name__ == "__main__":
    uvloop.run(read(Task.from_arguments()))
