"""What becomes of orders, without any service: `pytest` runs this, and every golden example."""

from datetime import UTC, datetime, timedelta
from typing import Any

from features.orders import LastOrder

from stillwell.testing import run

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def order(minutes: int = 0, **changed: object) -> dict[str, Any]:
    """An order, so many minutes behind noon."""
    placed_at = NOON + timedelta(minutes=minutes)
    return {"placed_at": placed_at, "buyer": {"id": "ada"}, "amount": 20.0, "items": 2} | changed


def test_features_are_computed_from_the_order():
    (row,) = run(LastOrder, [order(amount=120.0, items=4)], at=NOON).rows
    assert row["large"]
    assert row["per_item"] == 30.0
    assert row["country"] == "unknown"


def test_an_older_order_that_comes_late_changes_nothing():
    ran = run(LastOrder, [order(minutes=5, amount=30.0), order(minutes=0, amount=7.0)], at=NOON)
    assert [row["amount"] for row in ran.newest] == [30.0]


def test_an_order_of_nothing_is_rejected():
    (rejected,) = run(LastOrder, [order(amount=0)], at=NOON).rejected
    assert rejected.reason == "expectation"
    assert "amount: expected > 0" in rejected.error


def test_golden_examples_hold(stillwell_example):
    stillwell_example.check()
