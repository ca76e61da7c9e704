"""`stillwell try` over files: what a view makes of events, told to a person or a program, and nothing written."""

import io
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from stillwell.cli.main import run
from stillwell.cli.trying import _print_reject, _Source
from stillwell.records import Reject, TopicReason, ViewReason
from stillwell.rowless import causes, explanation
from stillwell.trial import Record
from tests.computed import STORED

DEFINITIONS = """
from datetime import timedelta

from stillwell import Col, Entity, Feature, Float64, Key, OnDemandView, Request, Rows, String, Timestamp, Topic, View
from stillwell import col, feature, rows, rule


class Customer(Entity):
    customer: Key[String]


class Order(Topic, name="shop.orders", event_time="at"):
    at: Col[Timestamp]
    customer: Col[String]
    amount: Col[Float64] = col(gt=0, warn=rule(le=1_000), stop=rule(le=1_000_000))
    shard: Col[String | None] = col(key=True)


class Large(
    View,
    source=Order,
    entity=Customer,
    keys={"customer": Order.customer},
    where=Order.amount > 100,
    ttl=timedelta(days=1),
):
    amount: Feature[Float64] = feature(Order.amount)
    shard: Feature[String | None] = feature(Order.shard)


class Nobody(View, source=Order, entity=Customer, ttl=timedelta(days=1)):
    amount: Feature[Float64]

    @rows
    @staticmethod
    def none(event: Order) -> Rows:
        return []


class Basket(Request):
    total: Col[Float64]


class Twice(OnDemandView, inputs=(Basket,)):
    twice: Feature[Float64] = feature(Basket.total * 2)


class TwiceThen(View, source=Twice, entity=Customer, ttl=timedelta(days=1)):
    twice: Feature[Float64] = feature(Twice.twice)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = f"shop_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{package}.py").write_text(DEFINITIONS)
    (tmp_path / "stillwell.toml").write_text(f'project = "shop"\ndefinitions = "{package}"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def order(customer: str | None, amount: object, at: str = "2026-01-01T00:00:00Z") -> str:
    return json.dumps({"at": at, "customer": customer, "amount": amount})


def tried(
    folder: Path, capsys: pytest.CaptureFixture[str], lines: list[str], *arguments: str, view: str = "Large"
) -> str:
    """What the command prints of a file of these lines."""
    (folder / "events.ndjson").write_text("\n".join(lines) + "\n")
    assert run(["try", view, "--from", "events.ndjson", *arguments]) == 0
    return capsys.readouterr().out


def test_rows_rejects_and_what_was_filtered_are_told_by_their_lines(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [order("ada", 120.0), "", order("ada", 7.0), order("bob", -1), "no JSON"]
    said = tried(folder, capsys, lines)
    assert said.splitlines()[0] == 'line 1      customer="ada" → amount=120.0, shard=null  (2026-01-01T00:00:00Z)'
    assert "line 4      rejected, expectation: amount: expected > 0, got -1.0 (at $.amount)" in said
    assert "line 5      rejected, decode: " in said
    assert "line 3      filtered: " in said
    assert said.splitlines()[-1] == (
        "4 records of events.ndjson: 1 row of 1 entity, 1 filtered, 2 rejected. Nothing was written"
    )


def test_a_program_gets_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [order("ada", 120.0), order("ada", 7.0), order("bob", -1)]
    said: dict[str, Any] = json.loads(tried(folder, capsys, lines, "--json"))
    assert said["rows"] == [
        {"at": "line 1", "customer": "ada", "event_timestamp": "2026-01-01T00:00:00Z", "amount": 120.0, "shard": None}
    ]
    assert said["filtered"] == ["line 2"]
    assert [(each["at"], each["view"], each["reason"]) for each in said["rejects"]] == [("line 3", None, "expectation")]
    assert said["records"] == 3


def test_where_no_row_comes_of_any_record_it_says_why_and_of_how_many(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*[order("ada", 7.0)] * 3, order("bob", -1), order("bob", "much"), order("bob", "more"), order(None, 500.0)]
    told = tried(folder, capsys, lines).partition("No record gave Large a row:\n")[2].splitlines()
    assert [line.split(":")[0].split() for line in told] == [
        ["3", "filtered"],
        ["3", "rejected,", "decode"],
        ["1", "rejected,", "expectation"],
    ]
    assert "Large's where is not true of them" in told[0]


def test_every_reason_of_a_reject_is_explained() -> None:
    reasons = [*get_args(TopicReason), *get_args(ViewReason)]
    told = explanation(STORED.name, dict.fromkeys(reasons, 2), causes(STORED)).splitlines()[1:]
    assert [line.split(":")[0].split()[-1] for line in told] == reasons
    assert all(len(line.partition(": ")[2]) > 20 for line in told)


def test_a_function_that_makes_no_rows_is_said_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(folder, capsys, [order("ada", 7.0)], view="Nobody")
    assert "1 filtered: the function of Nobody made no row of them" in said


def test_rules_that_warn_or_stop_are_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [order("ada", 120.0), order("ada", 2_000.0), order("ada", 3_000.0), order("ada", 1e9)]
    said = tried(folder, capsys, lines)
    assert "line 2      warn: amount is not <= 1000, got 2000.0, which is kept, counted and told; so 3 records" in said
    assert "line 4      stop: amount is not <= 1000000, got 1000000000.0, which stops a worker; so 1 record" in said
    assert "4 records of events.ndjson: 3 rows of 1 entity, 0 filtered, 1 rejected." in said
    broken = json.loads(tried(folder, capsys, lines, "--json"))["broken"]
    assert [(each["rule"], each["action"], each["count"], each["first"]) for each in broken] == [
        ("<= 1000", "warn", 3, "line 2"),
        ("<= 1000000", "stop", 1, "line 4"),
    ]


def test_rows_by_themselves_need_no_explanation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No record gave" not in tried(folder, capsys, [order("ada", 120.0), order("ada", 7.0)])


def test_rows_of_which_none_counts_any_more_are_said_to_be_old(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = [order("ada", 120.0), order("bob", 130.0)]
    said = "No row counts any more, by at and Large's ttl of 1 day: who reads finds none. Has the time the right unit?"
    assert said in tried(folder, capsys, old)
    assert "counts" not in tried(folder, capsys, [*old, order("ada", 140.0, f"{datetime.now(UTC):%FT%TZ}")])
    assert "counts" not in tried(folder, capsys, [order("ada", -1)])


def test_a_ttl_of_more_years_than_there_are_makes_no_row_old(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (definitions,) = folder.glob("shop_*.py")
    definitions.write_text(definitions.read_text().replace("ttl=timedelta(days=1)", "ttl=timedelta(days=999_999)"))
    assert "1 row of 1 entity" in tried(folder, capsys, [order("ada", 120.0)])


def test_the_limit_is_of_records(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(folder, capsys, [order("ada", 101.0 + number) for number in range(30)], "--limit", "3")
    assert "3 records of events.ndjson: 3 rows of 1 entity" in said


def test_a_field_gives_the_records_their_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(folder, capsys, [order("ada", 120.0)], "--key", "customer")
    assert 'shard="ada"' in said


@pytest.mark.parametrize("beside", [{"a.b": {"c.d": "x"}}, {"a": {"b": {"c.d": "x"}}}, {"a.b": 1, "a": {"b.c.d": "x"}}])
def test_a_dot_in_the_name_of_a_key_may_be_one_of_the_fields(
    folder: Path, capsys: pytest.CaptureFixture[str], beside: dict[str, Any]
) -> None:
    said = tried(folder, capsys, [json.dumps(json.loads(order("ada", 120.0)) | beside)], "--key", "a.b.c.d")
    assert 'shard="x"' in said


def test_an_empty_value_is_told_from_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = _Source("shop.orders", (Record(None), Record(b"", offset=1)), ("0/0", "0/1"))
    printed: list[str] = []
    monkeypatch.setattr("click.echo", printed.append)
    for offset in (0, 1):
        _print_reject(taken, Reject(offset, "", "decode", "why"))
    assert [line.strip() for line in printed[1::2]] == ["no value", "an empty value"]


def test_what_is_pushed_is_tried_from_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pushed = json.dumps({"customer": "ada", "event_timestamp": "2026-01-01T00:00:00Z", "total": 21.0})
    assert 'customer="ada" → twice=42.0' in tried(folder, capsys, [pushed], view="TwiceThen")
    assert run(["try", "TwiceThen"]) == 2
    assert "TwiceThen reads no topic: what it stores is pushed. Name a file of events" in capsys.readouterr().err


def test_standard_input_is_a_file_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = io.TextIOWrapper(io.BytesIO(order("ada", 120.0).encode()))
    monkeypatch.setattr("sys.stdin", typed)
    assert run(["try", "Large", "--from", "-"]) == 0
    assert "1 record of standard input: 1 row" in capsys.readouterr().out


def test_an_empty_file_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "events.ndjson holds no record" in tried(folder, capsys, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Larg"], "did you mean 'Large'?"),
        (["Order"], "Order is a topic: try Large or Nobody"),
        (["Basket"], "Basket is what a request brings, and is not stored: no view is computed from it"),
        (["Large", "--from", "orders.ndjson"], "there is no file 'orders.ndjson'"),
        (["Large", "--from", "array.json"], "the file holds a JSON array, and one object a line is needed: `jq -c .[]"),
        (["Large", "--key", "customer"], "--key is for the events of a file: records of a topic have keys"),
        (["Large"], "STILLWELL_KAFKA_BOOTSTRAP is missing"),
    ],
)
def test_mistakes_say_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (folder / "array.json").write_text(f"[{order('ada', 1.0)}]")
    assert run(["try", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_a_terminal_would_obey_is_not_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tried(folder, capsys, [json.dumps({"at": "\u001b[2J", "customer": "a", "amount": 1})])
    assert "\u001b" not in said
    assert "line 1      rejected, decode" in said
