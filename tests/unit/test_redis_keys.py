"""The names of keys in Redis: no two things share one, and no name can pretend to be another."""

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey
from stillwell.layout.redis_keys import BUCKETS, PredictionsOf, RedisKeys

KEYS = RedisKeys("flights", "prod")


def test_the_map_is_as_it_is_drawn() -> None:
    assert KEYS.ready == b"flights:prod:ready"
    assert KEYS.rebuild == b"flights:prod:rebuild"
    assert KEYS.rows("RouteDepartures", [b"s3:LAXs3:JFK"]) == [b"flights:prod:f:{582}:s3:LAXs3:JFK:RouteDepartures"]
    mark = MarkKey(PartitionId("flights.departures", 2, 13), "RouteDepartures", 3)
    assert KEYS.mark(mark) == b"flights:prod:m:flights.departures@2:13:RouteDepartures:3"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary()), st.booleans())
def test_predictions_are_looked_at_with_the_rows_that_they_are_of(entities: list[bytes], requests: bool) -> None:
    of, digests = PredictionsOf("Delay", "3"), [b"%d" % number for number in range(len(entities))] if requests else []
    wanted = KEYS.predictions_and_rows(of, ["V", "W"], entities, digests)
    assert wanted == KEYS.predictions(of, entities, digests) + KEYS.rows("V", entities) + KEYS.rows("W", entities)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary()))
def test_a_row_is_in_the_bucket_of_its_entity(entities: list[bytes]) -> None:
    for entity, key in zip(entities, KEYS.rows("View", entities), strict=True):
        bucket = key[key.index(b"{") + 1 : key.index(b"}")]
        assert int(bucket) == crc32(entity) % BUCKETS


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.from_regex(r"\w+", fullmatch=True), st.binary()), unique=True))
def test_rows_of_different_views_or_entities_never_share_a_key(rows: list[tuple[str, bytes]]) -> None:
    keys = [KEYS.rows(view, [b"x%d:%b" % (len(entity), entity)])[0] for view, entity in rows]
    assert len(set(keys)) == len(keys)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.builds(
    MarkKey,
    st.builds(PartitionId, st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True), st.integers(0, 99), st.integers(0, 99)),
    st.from_regex(r"\w+", fullmatch=True),
    st.integers(0, 99),
), unique=True))  # fmt: skip
def test_marks_never_share_a_key(marks: list[MarkKey]) -> None:
    assert len({KEYS.mark(mark) for mark in marks}) == len(marks)


@pytest.mark.parametrize("name", ["", "Flights", "a:b", "a{b", "a b", "ä", "a\n"])
def test_a_project_or_namespace_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="project"):
        RedisKeys(name, "prod")
    with pytest.raises(ValueError, match="namespace"):
        RedisKeys("flights", name)


def test_a_view_or_topic_that_could_be_mistaken_is_refused() -> None:
    with pytest.raises(ValueError, match="view"):
        KEYS.rows("a:b", [b"i1:7"])
    with pytest.raises(ValueError, match="view"):
        KEYS.mark(MarkKey(PartitionId("departures", 1, 0), "a:b", 1))
    with pytest.raises(ValueError, match="topic"):
        KEYS.mark(MarkKey(PartitionId("a:b", 1, 0), "View", 1))


def test_loaded_batches_have_marks_too() -> None:
    mark = MarkKey(PartitionId("~load/RouteDepartures", 1, 0), "RouteDepartures", 1)
    assert KEYS.mark(mark) == b"flights:prod:m:~load/RouteDepartures@1:0:RouteDepartures:1"
