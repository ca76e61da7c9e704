"""Rows as a push's body has them, as columns: each becomes the object that it would be by itself."""

import json
from typing import Any

import msgspec
import polars as pl
import pytest

from serving.pushing import bodies
from serving.pushing.bodies import own, push_request
from stillwell.types import INT64, TIMESTAMP, list_of
from tests.batches import column, feature, topic, view


@pytest.mark.parametrize(
    "columns",
    [
        {"id": [1, 2, 3], "name": ["a", None, "é"]},
        {"id": [1]},
        {"": [1, 2], "a b": [[1], {"x": 1}], "ü": [1.5, "x,y"], "self": [1, 2], "f1": [3, 4], "__class__": [5, 6]},
        {'"': [1, 2], "\\": [3, 4]},
        {"\n": [1, 2], "\x00": [3, 4], "a": ["\n", "\\n"]},
        {f"c{number}": [number, None] for number in range(300)},
        {f"c{number}": [number, None] for number in range(3_000)},
    ],
)
def test_columns_become_the_objects_of_their_rows(columns: dict[str, list[Any]]) -> None:
    body = json.dumps({"view": "V", "rows": columns}).encode()
    values = own(push_request.decode(body), 10).values
    count = len(next(iter(columns.values())))
    assert list(map(json.loads, values)) == [
        {name: column[at] for name, column in columns.items()} for at in range(count)
    ]
    assert [list(json.loads(value)) for value in values] == [list(columns)] * count


def test_values_with_line_breaks_between_their_parts_stay_as_they_came() -> None:
    body = b'{"view": "V", "rows": {"id": [{"a":\n1}, [\n2]], "b": [1.10, 1e2]}}'
    assert own(push_request.decode(body), 10).values == [b'{"id":{"a":\n1},"b":1.10}', b'{"id":[\n2],"b":1e2}']
    assert msgspec.json.decode(body)["rows"]["id"] == [{"a": 1}, [2]]


def test_many_columns_are_not_remembered() -> None:
    """Nor made into a struct, which takes longer than to answer."""
    kept = bodies._row_of.cache_info().currsize
    for first in range(3):
        body = json.dumps({"view": "V", "rows": {f"n{first}{number}": [1] for number in range(2_000)}}).encode()
        assert len(own(push_request.decode(body), 10).values) == 1
    assert bodies._row_of.cache_info().currsize == kept


def test_times_of_feasts_clients_get_a_zone_in_lists_too() -> None:
    of = view(
        topic(column("id", INT64), column("times", list_of(TIMESTAMP))),
        {"id": (INT64, pl.col("T.id"))},
        feature("times", list_of(TIMESTAMP), pl.col("T.times")),
    )
    df: dict[str, list[Any]] = {
        "id": [1],
        "event_timestamp": [0],
        "times": [["2026-01-01 00:00:00", 60, "2026-01-01T00:00:00Z"]],
    }
    asked = bodies.FeastWriteRequest(feature_view_name="V", df=df)
    (value,) = bodies.written_by_feast(asked, bodies.RowColumns.of(of), 10).values
    times = ["2026-01-01T00:00:00Z", "1970-01-01T00:01:00+00:00", "2026-01-01T00:00:00Z"]
    assert json.loads(value) == {"id": 1, "event_timestamp": "1970-01-01T00:00:00+00:00", "times": times}
