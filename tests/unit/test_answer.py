"""What a stored row is worth, feature by feature, at an instant."""

import datetime

import polars as pl
import pytest

from stillwell.answer import Answer, Answers
from stillwell.errors import DefinitionError, FormatError
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.value import RowLayout
from stillwell.pipeline import compile_pipeline
from stillwell.reading.status import Status
from stillwell.spec import ViewSpec
from stillwell.types import FLOAT64, INT64, STRING
from tests.batches import NOW_MS, column, event, feature, records, topic, view

EVENT = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
HOUR = datetime.timedelta(hours=1)
MICROSECOND = datetime.timedelta(microseconds=1)

TOPIC = topic(column("k", STRING), column("amount", INT64), column("note", STRING, nullable=True))
AMOUNT = feature("amount", INT64, pl.col("T.amount"))
NOTE = feature("note", STRING, pl.col("T.note"), nullable=True)
FIRST = view(TOPIC, {"k": (STRING, pl.col("T.k"))}, AMOUNT, NOTE).model_copy(update={"ttl": HOUR})
TWICE = feature("twice", INT64, pl.col("T.amount") * 2)
SECOND = FIRST.model_copy(update={"version": 2, "features": (TWICE, AMOUNT)})


def stored(by: ViewSpec, **fields: object) -> bytes:
    """The row that an event gives a view."""
    rows = compile_pipeline(TOPIC, [by]).run(records([event(k="a", **fields)])).rows[0]
    (value,) = ViewEncoder(by, HOUR).encode(rows.frame, PartitionId("t", 3, 0))[0].values
    return value


def given(answer: Answer) -> dict[str, tuple[object, str]]:
    """Value and status by feature."""
    return {feature.name: (feature.value, feature.status.name) for feature in answer.features}


def test_a_value_is_present_and_a_null_is_a_null() -> None:
    answer = Answers(FIRST).of(stored(FIRST, amount=7), EVENT)
    assert given(answer) == {"amount": (7, "PRESENT"), "note": (None, "NULL_VALUE")}
    assert answer.event_time == EVENT
    assert answer.stamp is not None
    assert (answer.stamp.incarnation, answer.stamp.offset, answer.stamp.version) == (3, 100, 1)


def test_without_a_row_nothing_is_found() -> None:
    answer = Answers(FIRST).of(None, EVENT)
    assert given(answer) == {"amount": (None, "NOT_FOUND"), "note": (None, "NOT_FOUND")}
    assert (answer.event_time, answer.stamp) == (None, None)


@pytest.mark.parametrize(
    ("ttl", "age", "status"),
    [
        (HOUR, HOUR, Status.PRESENT),
        (HOUR, HOUR + MICROSECOND, Status.OUTSIDE_MAX_AGE),
        (HOUR, -HOUR, Status.PRESENT),
        (datetime.timedelta(0), 1_000_000 * HOUR, Status.PRESENT),
    ],
)
def test_the_ttl_counts_from_event_time_and_its_end_is_within(
    ttl: datetime.timedelta, age: datetime.timedelta, status: Status
) -> None:
    answer = Answers(FIRST.model_copy(update={"ttl": ttl})).of(stored(FIRST, amount=7, note="x"), EVENT + age)
    assert {feature.status for feature in answer.features} == {status}
    assert [feature.value for feature in answer.features] == [7, "x"]


def test_a_row_of_an_older_version_lacks_what_came_later() -> None:
    row = stored(FIRST, amount=7, note="gone since")
    answers = Answers(SECOND, [FIRST])
    assert given(answers.of(row, EVENT)) == {"twice": (None, "NOT_FOUND"), "amount": (7, "PRESENT")}
    late = given(answers.of(row, EVENT + 2 * HOUR))
    assert late == {"twice": (None, "NOT_FOUND"), "amount": (7, "OUTSIDE_MAX_AGE")}


def test_a_feature_of_another_type_is_another_feature() -> None:
    changed = SECOND.model_copy(update={"features": (feature("amount", FLOAT64, pl.col("T.amount")),)})
    answer = Answers(changed, [FIRST]).of(stored(FIRST, amount=7), EVENT)
    assert given(answer) == {"amount": (None, "NOT_FOUND")}


def test_a_row_of_an_unknown_layout_is_refused() -> None:
    row = stored(FIRST, amount=7)
    answers = Answers(SECOND)
    assert not answers.can_read(row)
    assert answers.can_read(None)
    assert Answers(SECOND, [FIRST]).can_read(row)
    with pytest.raises(FormatError, match="the row has the unknown layout"):
        answers.of(row, EVENT)


def test_two_versions_whose_layouts_share_an_id_by_chance_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one would be read as rows of the other."""
    of = RowLayout.of

    def of_one_id(view: ViewSpec) -> RowLayout:
        layout = of(view)
        layout.id = b"same"
        return layout

    monkeypatch.setattr(RowLayout, "of", of_one_id)
    with pytest.raises(DefinitionError, match="the same layout id"):
        Answers(SECOND, [FIRST])
