"""What `scripts/bench serve` serves, and what it asks."""

import datetime
import json
from pathlib import Path

import pytest

from stillwell.definitions.loading import load_definitions
from tests.benchmarks import serve_data
from tests.benchmarks.serve import SHAPES
from tests.benchmarks.serve_data import KEY, ONE_VIEW, TWENTY_VIEWS, USERS, Shape

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_one_view_and_twenty_have_the_same_forty_features() -> None:
    one, twenty = ([each.partition(":")[2] for each in Shape(1, views).features] for views in (ONE_VIEW, TWENTY_VIEWS))
    assert one == twenty == [f"f{column}" for column in range(40)]
    assert len(TWENTY_VIEWS) == 20


def test_a_request_asks_for_so_many_different_users_and_features_and_is_the_same_every_time(tmp_path: Path) -> None:
    assert [(shape.rows, len(shape.features)) for shape in SHAPES] == [
        (1, 10), (100, 10), (1, 50), (100, 50), (1, 250), (100, 250)
    ]  # fmt: skip
    for shape in SHAPES:
        lines = shape.write(tmp_path / "bodies").read_bytes().splitlines()
        asked = [json.loads(line)["entities"][KEY] for line in lines]
        assert all(len(set(users)) == shape.rows for users in asked)
        assert asked == list(shape.users())
    assert len({users[0] for users in serve_data.of(1, 10).users()}) > USERS / 2


def test_every_pushed_row_is_newer_than_the_one_before() -> None:
    bodies = [json.loads(body) for body in serve_data.pushes(3, 4, NOW, "at", None)]
    times = [at for body in bodies for at in body["df"]["at"]]
    assert times == sorted(set(times))
    assert datetime.datetime.fromisoformat(times[0]) == NOW
    assert {len(column) for body in bodies for column in body["df"].values()} == {3}


@pytest.mark.parametrize("column", [0, 7, 8, 9])
def test_a_value_is_of_the_type_that_its_column_has(column: int) -> None:
    kinds = {"Bool": bool, "Float64": float, "Int64": int, "String": str}
    event = next(serve_data.events(1))
    assert type(event[f"f{column}"]) is kinds[serve_data.kind(column)]


def test_the_definitions_have_every_view_that_is_asked_for(tmp_path: Path) -> None:
    serve_data.write_definitions(tmp_path)
    views = {view.name: view for view in load_definitions(serve_data.PACKAGE, tmp_path).views}
    for shape in (*SHAPES, Shape(1, ONE_VIEW), Shape(1, TWENTY_VIEWS)):
        for name in shape.views:
            assert [f"{name}:{feature.name}" for feature in views[name].features] == Shape(1, (name,)).features
    assert [feature.name for feature in views[serve_data.PUSHED].features] == [f"f{column}" for column in range(10)]
