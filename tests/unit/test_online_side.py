"""What a partition's side of Redis says of itself: how long its rows took to be servable."""

import numpy as np

from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey, MarkMove
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from streams.metrics import SERVABLE, Metrics
from streams.online_side import OnlineSide
from streams.prepare import OnlineBatch
from streams.retry import Retry
from tests.online_support import EPOCH, VIEW, now_us, rows, stamp, value

NOW_S = 1_700_000_000.0
ID = PartitionId("departures", 1, 0)
MARK = MarkKey(ID, VIEW, 1)


async def written(produced_at: list[int]) -> tuple[float, float]:
    """Sum and count of the servable times after one batch whose rows have these record timestamps, in ms."""
    store, metrics = MemoryOnlineStore(MemoryRedis()), Metrics()
    await store.initialise(EPOCH)
    await store.set_marks([MarkMove(MARK, 0, 0)], EPOCH)
    side = OnlineSide(ID, store, Retry("redis", metrics), [MARK], EPOCH, metrics, clock=lambda: NOW_S)
    now = now_us()
    put = rows(*((b"i1:%d" % at, value(stamp(now, offset=at))) for at in range(len(produced_at))))
    await side.write(OnlineBatch(0, len(produced_at), (put,), (np.array(produced_at, np.int64),), 0))
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
