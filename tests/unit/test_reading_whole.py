"""What is read the short way, because all of it is there, is answered as it is the long way, byte for byte."""

import datetime
import itertools
import json
import math
import random

import polars as pl
import pytest

from serving import feast, v1
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.reading.catalog import Catalog
from stillwell.reading.entities import typed
from stillwell.reading.features import FeatureReader, Found, columns_of_rows
from stillwell.spec import AliasSpec, DefinitionsSpec, EntitySpec, KeySpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import BOOL, BYTES, FLOAT64, INT32, INT64, STRING, list_of, vector_of
from tests.batches import NOW_MS, column, event, feature, records, topic, view

NOW_US = NOW_MS * 1_000
HOUR = datetime.timedelta(hours=1)
T = topic(
    column("id", INT64),
    column("name", STRING),
    column("amount", FLOAT64, nullable=True),
    column("count", INT32),
    column("raw", BYTES),
    column("yes", BOOL),
)
COUNT = feature("count", INT32, pl.col("T.count"))
AMOUNT = feature("amount", FLOAT64, pl.col("T.amount") * 1e10 - pl.col("T.amount") * 1e9, nullable=True)
NAME = feature("name", STRING, pl.col("T.name"))
RAW = feature("raw", BYTES, pl.col("T.raw"))
YES = feature("yes", BOOL, pl.col("T.yes"))
VECTOR = feature(
    "vector",
    vector_of(FLOAT64, 2),
    pl.concat_arr(pl.col("T.amount").fill_null(0.5), pl.col("T.count").cast(pl.Float64)),
)
PARTS = feature("parts", list_of(STRING), pl.col("T.name").str.split("a"))
KEYS = {"id": (INT64, pl.col("T.id"))}
VIEWS = [
    view(T, KEYS, *features, name=name).model_copy(update={"ttl": ttl, "freshness": freshness})
    for name, features, ttl, freshness in (
        ("Fixed", (COUNT, AMOUNT, YES), HOUR, None),
        ("Texts", (NAME, COUNT, RAW, AMOUNT), datetime.timedelta(0), HOUR / 2),
        ("One", (NAME,), HOUR, None),
        ("Even", (YES, AMOUNT), datetime.timedelta(0), None),
        ("Lasting", (COUNT,), datetime.timedelta(0), None),
        ("Vectors", (VECTOR, COUNT), HOUR, None),
        ("Lists", (PARTS, VECTOR, YES), HOUR, None),
    )
]
OTHER = AliasSpec(
    name="Other",
    view=VIEWS[1],
    entity=EntitySpec(name="Pair", keys=(KeySpec(name="other", type=INT64),)),
    keys={"id": "other"},
)
FEATURES = [
    *(f"{each.name}:{its.name}" for each in VIEWS for its in each.features),
    *(f"Other:{its.name}" for its in VIEWS[1].features),
]
USERS = 30


@pytest.fixture
async def reader() -> FeatureReader:
    """Over rows of which most are whole; some have nulls, floats that JSON lacks (two that overflow, and their
    difference), texts like null, or an older time."""
    store = MemoryOnlineStore(MemoryRedis(clock=lambda: NOW_MS))
    epoch = await store.initialise("epoch")
    chance = random.Random("rows")
    amounts: list[object] = [None, 1e300, -1e299, -0.0, 1e16]
    for each in VIEWS:
        made = []
        for user in range(USERS - 2):
            odd = chance.random() < 0.2
            amount = chance.choice(amounts) if odd else chance.random()
            ago = datetime.timedelta(minutes=chance.choice([0, 40, 200]) if odd else 0, microseconds=user % 3)
            made.append(
                event(
                    id=user,
                    name=chance.choice(["null", "é", "", "a,b", 'a"b']) if odd else f"abc{user}",
                    amount=amount,
                    count=user,
                    raw="bnVsbA==" if odd else "AAEC",
                    yes=user % 2 == 0,
                    at=(datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC) - ago).isoformat(),
                )
            )
        outcome = compile_pipeline(T, [each]).run(records(made))
        assert outcome.rejects == ()
        encoded, _ = ViewEncoder(each, 100 * HOUR).encode(outcome.rows[0].frame, PartitionId("t", 1, 0))
        await store.put(encoded, epoch)
    return FeatureReader(store, RedisKeys("test", "test"), lambda: NOW_US)


async def test_the_short_way_says_what_the_long_way_says(reader: FeatureReader) -> None:
    catalog = Catalog(DefinitionsSpec(entities=(), topics=(T,), views=tuple(VIEWS), aliases=(OTHER,)))
    chance = random.Random("requests")
    short = 0
    for number, count in itertools.product(range(150), (1, 3)):
        references = chance.sample(FEATURES, chance.randint(1, len(FEATURES)))
        plan = catalog.plan(references)
        asked = {name: [chance.randrange(USERS) for _ in range(count)] for name in plan.join_keys}
        if number % 2:
            asked = {name: [1 + chance.randrange(2)] * count for name in asked}
        columns = typed(plan, asked, catalog.keys)
        found = await reader.read(plan, columns)
        long = Found(
            plan, found._stored, count, NOW_US, found.under, columns_of_rows(plan, found.rows, columns, NOW_US)
        )
        short += found.whole is not None
        names = b"[]"
        assert feast.answer(names, asked, found) == feast.answer(names, asked, long)
        assert v1.answer(asked, found) == v1.answer(asked, long)
        assert [len(each["values"]) for each in json.loads(feast.answer(names, asked, found))["results"]] == [count] * (
            len(asked) + len(references)
        )
        for mine, its in zip(found.columns, long.columns, strict=True):
            assert (mine.output, list(mine.statuses), list(mine.event_times)) == (
                its.output,
                list(its.statuses),
                list(its.event_times),
            )
            assert [_plain(value) for value in mine.values] == [_plain(value) for value in its.values]
            assert [*(mine.freshness or ())] == [*(its.freshness or ())]
    assert 60 < short < 250


def _plain(value: object) -> object:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
