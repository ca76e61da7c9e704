"""What a partition's side of Redis says of itself: how long its rows took to be servable."""

import numpy as np

from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from streams.metrics import NEWEST, SERVABLE, Metrics
from streams.online_side import OnlineSide
from streams.prepare import OnlineBatch
from streams.retry import Retry
from tests.online_support import EPOCH, VIEW, now_us, rows, stamp, value

NOW_S = 1_700_000_000.0
ID = PartitionId("departures", 1, 0)
MARK = MarkKey(ID, VIEW, 1)


async def side_of(metrics: Metrics) -> OnlineSide:
    """Of an empty store."""
    store = MemoryOnlineStore(MemoryRedis())
    await store.initialise(EPOCH)
    await store.set_marks([MarkMove(MARK, 0, 0)], EPOCH)
    return OnlineSide(ID, store, Retry("redis", metrics), [MARK], EPOCH, metrics, clock=lambda: NOW_S)


def batch_of(start: int, produced_at: list[int], newest: int | None = None) -> OnlineBatch:
    """Rows with these record timestamps, in ms."""
    now = now_us()
    put = rows(*((b"i1:%d" % at, value(stamp(now, offset=start + at))) for at in range(len(produced_at))))
    end = start + max(1, len(produced_at))
    return OnlineBatch(start, end, (put,), (np.array(produced_at, np.int64),), (newest,), 0)


async def test_the_newest_event_time_of_a_view_only_rises() -> None:
    """An older event is as good as none to whoever asks how far the view has come."""
    metrics = Metrics()
    side = await side_of(metrics)
    shown = []
    for at, newest in enumerate((5_000_000, 7_500_000, 6_000_000, None)):
        await side.write(batch_of(at, [] if newest is None else [1], newest))
        shown.append(metrics.get(NEWEST, VIEW))
    assert shown == [5.0, 7.5, 7.5, 7.5]


async def written(produced_at: list[int]) -> tuple[float, float]:
    """Sum and count of the servable times after one batch whose rows have these record timestamps, in ms."""
    metrics = Metrics()
    side = await side_of(metrics)
    await side.write(batch_of(0, produced_at))
    (family,) = [each for each in metrics.collect() if each.name == SERVABLE.name]
    found = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    return found.get("sum", 0.0), found.get("count", 0.0)


async def test_rows_are_servable_so_long_after_their_records_were_made() -> None:
    now_ms = int(NOW_S * 1000)
    assert await written([now_ms - 250, now_ms - 1750]) == (2.0, 2)


async def test_a_producers_clock_that_is_ahead_takes_nothing_off_the_sum() -> None:
    now_ms = int(NOW_S * 1000)
    assert await written([now_ms + 5000, now_ms - 250]) == (0.25, 2)


async def test_a_record_without_timestamp_is_not_half_a_century_old() -> None:
    now_ms = int(NOW_S * 1000)
    assert await written([-1, now_ms - 250]) == (0.25, 1)
    assert await written([-1, -1]) == (0.0, 0)
