"""What the page on sizes says of rows, files and memory is what they have."""

import datetime
import random
import re
from pathlib import Path

import pyarrow as pa
import pytest
from redis import Redis

from sinks.parquet import ParquetEncoder
from stillwell.definitions.loading import load_definitions
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.records import Records
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec
from tests import batches
from tests.benchmarks import load
from tests.unit.test_format_pages import table

PAGE = (Path(__file__).parent.parent.parent / "docs/howto/size.md").read_text()
AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> DefinitionsSpec:
    """Those of the benchmarks: events of 12 fields, and a view of ten features."""
    folder = tmp_path_factory.mktemp("sizes")
    load.write_definitions(folder, "events")
    return load_definitions(load.PACKAGE, folder)


def events(count: int, users: int = 20_000) -> Records:
    """Events of so many users, in one partition."""
    chance = random.Random(7)
    values = [load.body(chance.randrange(users), batches.NOW_MS * 1000 + n, n, chance) for n in range(count)]
    return batches.records(values)


def files(definitions: DefinitionsSpec, count: int) -> tuple[int, int]:
    """The bytes of the files that so many records of a window make: the view's, and the raw one."""
    (view,), (topic,) = definitions.views, definitions.topics
    made = batches.tables(compile_pipeline(topic, (view,)), events(count), AT)
    return size(made.views[0].table), size(made.raw)


def size(of: pa.Table) -> int:
    """The bytes of a table's file."""
    encoder = ParquetEncoder()
    encoder.add(of)
    return len(encoder.finish())


def test_files_of_windows_are_as_large_as_the_page_says(definitions: DefinitionsSpec) -> None:
    """Within a twentieth: the next release of a library may write them otherwise."""
    told = list(table(PAGE, "Bytes for each record"))
    assert [row[0] for row in told] == ["100", "1,000", "10,000", "100,000"]
    for records, *each in told:
        count = int(records.replace(",", ""))
        found = [size / count for size in files(definitions, count)]
        assert [float(told_size) for told_size in each] == pytest.approx(found, rel=0.05)


def test_rows_need_no_more_of_redis_than_the_page_says(definitions: DefinitionsSpec, redis_url: str) -> None:
    (view,), (topic,) = definitions.views, definitions.topics
    rows = compile_pipeline(topic, (view,)).run(events(20_000, users=10_000_000)).rows[0]
    encoded, _ = ViewEncoder(view, datetime.timedelta(hours=1)).encode(rows.frame, PartitionId(topic.topic, 1, 0))
    keys = RedisKeys("shop", "prod").rows(view.name, encoded.keys)
    key, value, kept = (int(row[2]) for row in table(PAGE, "A row of an entity"))
    assert (max(map(len, keys)), max(map(len, encoded.values))) == (key, value)
    (total,) = re.findall(r"^\((\d+) \+ (\d+) \+ (\d+)\) . 10,000,000 = (.+) GB$", PAGE, re.MULTILINE)
    assert total == (str(key), str(value), str(kept), f"{(key + value + kept) / 100:.2f}")
    with Redis.from_url(redis_url) as redis:
        before = int(redis.info("memory")["used_memory"])
        with redis.pipeline(transaction=False) as pipeline:
            for name, row in zip(keys, encoded.values, strict=True):
                pipeline.set(name, row, px=600_000)
            pipeline.execute()
        grown = int(redis.info("memory")["used_memory"]) - before
        redis.delete(*keys)
    assert sum(map(len, keys)) + sum(map(len, encoded.values)) < grown <= (key + value + kept) * len(keys)


def test_the_memory_of_a_worker_is_added_up_from_its_settings() -> None:
    defaults = Settings.model_fields
    buffer, fetch = (int(defaults[name].default) for name in ("buffer_bytes", "partition_fetch_bytes"))
    parts = (300, round(2 * buffer / 1e6), round(12 * fetch / 1e6))
    told = [row[2] for row in table(PAGE, "## A worker")]
    assert told == [
        f"{parts[0]} MB",
        f"2 busy topics: {parts[1]} MB",
        f"12 partitions: {parts[2]} MB",
        f"{sum(parts)} MB",
    ]
