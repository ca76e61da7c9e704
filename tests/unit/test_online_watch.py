"""A Redis whose settings change beneath a running worker is told of, once for each change."""

import pytest
from structlog.testing import capture_logs

from stillwell.testing.online import Fault, MemoryOnlineStore, MemoryRedis, Operation
from streams.online_watch import OnlineWatch


async def told(watch: OnlineWatch, looks: int = 3) -> list[tuple[str, str]]:
    """Level and reason of what so many looks log."""
    with capture_logs() as logs:
        for _ in range(looks):
            await watch.look()
    return [(line["log_level"], line.get("reason", "")) for line in logs]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [("maxmemory_policy", "allkeys-lru", "stillwell rebuild"), ("role", "slave", "STILLWELL_REDIS_URL")],
)
async def test_a_change_is_told_once_and_its_end_as_well(setting: str, value: str, says: str) -> None:
    server = MemoryRedis()
    watch = OnlineWatch(MemoryOnlineStore(server))
    right = getattr(server, setting)
    assert await told(watch) == []
    for _ in range(2):
        setattr(server, setting, value)
        ((level, reason),) = await told(watch)
        assert level == "error"
        assert says in reason
        setattr(server, setting, right)
        assert await told(watch) == [("info", "")]


async def test_a_second_fault_beside_the_first_is_told() -> None:
    server = MemoryRedis()
    watch = OnlineWatch(MemoryOnlineStore(server))
    server.maxmemory_policy = "allkeys-lru"
    await told(watch)
    server.role = "slave"
    ((_, reason),) = await told(watch)
    assert "maxmemory-policy" in reason
    assert "replica" in reason


async def test_a_redis_that_does_not_answer_changes_nothing() -> None:
    """Whoever waits for it says so; what was told of it is not told again when it is back."""
    server = MemoryRedis()
    store = MemoryOnlineStore(server)
    watch = OnlineWatch(store)
    server.maxmemory_policy = "allkeys-lru"
    assert len(await told(watch)) == 1
    faults: list[Fault] = ["refused", "lost call", "lost answer"]

    def fail(operation: Operation) -> Fault:
        return faults.pop()

    store.faults = fail
    assert await told(watch, looks=len(faults)) == []
    store.faults = lambda operation: None
    assert await told(watch) == []
