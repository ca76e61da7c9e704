"""The page on push records is true: every example on it is pushed through, and gives what the page says."""

import datetime
import json
import pathlib
from typing import Any

import pytest

from stillwell.definitions.loading import load_definitions
from stillwell.pushing import record
from stillwell.pushing.pipeline import PushPipeline
from stillwell.types import FIELD_TYPES
from tests.batches import records
from tests.unit.test_format_pages import blocks, first_column, table

PAGE = (pathlib.Path(__file__).parent.parent.parent / "docs" / "reference" / "push-records.md").read_text()
EXAMPLES: list[dict[str, Any]] = [json.loads(block) for block in blocks(PAGE, "json")]

(ROUTES,) = (view for view in load_definitions("schemas").views if view.name == "RouteDepartures")
PIPELINE = PushPipeline("flights", ROUTES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_gives_a_row_or_is_refused_as_the_page_says(example: dict[str, Any]) -> None:
    headers = tuple((name, text.encode()) for name, text in example["headers"].items())
    outcome = PIPELINE.run(records([json.dumps(example["value"]).encode()], headers=[headers]))
    if "refused" in example:
        assert [reject.error for reject in outcome.rejects] == [example["refused"]]
        return
    assert outcome.rejects == ()
    (row,) = outcome.rows[0].frame.to_dicts()
    value = example["value"]
    assert row["event_timestamp"] == datetime.datetime.fromisoformat(value.get("event_timestamp") or value["at"])
    assert (row["origin"], row["dest"], row["miles"]) == ("EWR", "IAH", 1400)
    assert (row["cancelled"], row["delay"]) == (value["cancelled"], value.get("delay"))
    assert (row["_sequence"], row["_to"]) == (
        value.get("_sequence"),
        example["headers"].get("to", "online_and_offline"),
    )


def test_there_are_examples_of_every_kind() -> None:
    assert {(each["headers"].get("transform_on_write"), "refused" in each) for each in EXAMPLES} == {
        (None, False), ("true", False), (None, True)
    }  # fmt: skip


def test_the_page_names_every_header_and_every_word_of_to() -> None:
    shown = first_column(PAGE, "mean nothing.")
    assert shown == [record.TRANSFORM, record.TO, record.VERSION, record.RAW, record.IDEMPOTENCY_KEY]
    (words,) = (row[1] for row in table(PAGE, "mean nothing.") if row[0] == "`to`")
    assert (
        words
        == "`online`, `offline` or `online_and_offline`"
        == ", ".join(f"`{to}`" for to in record.To).replace(", `online_and", " or `online_and")
    )


def test_the_page_names_every_type_and_the_topic() -> None:
    shown = {name.strip("` ") for row in table(PAGE, "A view whose function gives") for name in row[0].split(",")}
    assert shown == FIELD_TYPES.keys()
    assert f"`{record.push_topic('<project>', '<view>')}`" in PAGE
