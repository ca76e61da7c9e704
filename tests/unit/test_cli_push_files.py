"""`stillwell push` of CSV and Parquet files, under a key of the caller's, and of long ones."""

import datetime
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwell.cli.main import run
from stillwell.cli.rows import format_of
from stillwell.cli.told import Told
from stillwell.client import PushedRow, PushStatus
from tests.unit.test_cli_push_predict import Service

DEFINITIONS = """
from datetime import timedelta

from stillwell import Bool, Bytes, Col, Entity, Feature, Float64, Int64, Key, String, Timestamp, Topic, View
from stillwell import col, feature


class Customer(Entity):
    customer: Key[String]


class Order(Topic, name="shop.orders", event_time="at"):
    at: Col[Timestamp] = col(unit="ms")
    customer: Col[String]
    n: Col[Int64]
    weight: Col[Float64 | None]
    gift: Col[Bool]
    note: Col[String | None]
    raw: Col[Bytes | None]
    tags: Col[list[String] | None]


class Orders(View, source=Order, entity=Customer, keys={"customer": Order.customer}, ttl=timedelta(days=90)):
    n: Feature[Int64] = feature(Order.n)
    weight: Feature[Float64 | None] = feature(Order.weight)
"""


@pytest.fixture
def service() -> Iterator[Service]:
    """One for each test."""
    made = Service()
    yield made
    made.stop()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs; settings that name definitions, and nothing else."""
    package = f"shop_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{package}.py").write_text(DEFINITIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STILLWELL_PROJECT", "shop")
    monkeypatch.setenv("STILLWELL_DEFINITIONS", package)
    return tmp_path


def pushed(service: Service) -> list[dict[str, Any]]:
    return [row for each in service.pushes for row in each["rows"]]


HEAD = "at,customer,n,weight,gift,note,raw"


def test_the_cells_of_csv_are_read_by_the_types_of_their_columns(
    folder: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"\ufeff{HEAD}",
        '1767225600000,007,7,2.5,true,"two\nlines, and a ""quote""",AAE=',
        "1767225600001,ä,8,,false,,",
        "",
        "1767225600002,c,7.5,1,true,,",
        "1767225600003,c,9",
        "1767225600004,c,-1,NaN,true,x,",
    ]
    (folder / "orders.csv").write_text("\n".join(lines))
    assert run(["push", "Orders", "orders.csv", "--url", service.url]) == 1
    first, second, third = pushed(service)
    assert first == {
        "at": 1767225600000,
        "customer": "007",
        "n": 7,
        "weight": 2.5,
        "gift": True,
        "note": 'two\nlines, and a "quote"',
        "raw": "AAE=",
    }
    assert (second["customer"], second["weight"], second["note"], second["raw"]) == ("ä", None, None, None)
    assert third["weight"] == "NaN"
    said = capsys.readouterr().out
    assert "orders.csv:6: rejected (malformed): n must be a whole number that fits Int64, got '7.5'" in said
    assert "orders.csv:7: rejected (malformed): the line has 3 cells, the first one names 7 columns" in said
    assert "orders.csv:8: rejected (expectation)" in said


def test_final_rows_of_csv_have_keys_event_timestamp_and_features(folder: Path, service: Service) -> None:
    (folder / "rows").write_text("customer,event_timestamp,n\na,2026-01-31T12:00:00Z,1\n")
    assert run(["push", "Orders", "rows", "--format", "csv", "--final", "--url", service.url]) == 0
    assert pushed(service) == [{"customer": "a", "event_timestamp": "2026-01-31T12:00:00Z", "n": 1}]


@pytest.mark.parametrize(
    ("head", "view", "says"),
    [
        ("at,custmer", "Orders", "a column 'custmer'; did you mean 'customer'?"),
        ("at,at", "Orders", "names a column twice"),
        ('at,"cust', "Orders", "line 2 is not CSV in UTF-8"),
        (
            "at,tags",
            "Orders",
            "the column 'tags' is List[String], and a cell of CSV holds a single value; push JSON lines",
        ),
        (HEAD, "Order", "Order is a topic: push to Orders"),
    ],
)
def test_a_csv_file_that_cannot_be_right_is_refused(
    head: str, view: str, says: str, folder: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "orders.csv").write_text(head + "\n")
    assert run(["push", view, "orders.csv", "--url", service.url]) == 2
    assert says in capsys.readouterr().err
    assert service.pushes == []


def test_parquet_brings_its_own_types(folder: Path, service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    columns = {
        "at": [at] * 1_200,
        "n": [*range(1_199), -1],
        "raw": [b"\x00\x01"] * 1_200,
        "tags": [["a", "b"], None, []] * 400,
    }
    pq.write_table(pa.table(columns), folder / "orders.parquet", row_group_size=100)
    assert run(["push", "Orders", "orders.parquet", "--url", service.url]) == 1
    rows = pushed(service)
    assert [row["n"] for row in rows] == columns["n"]
    assert (rows[0]["at"], rows[0]["raw"]) == ("2026-01-31T12:00:00Z", "AAE=")
    assert [row["tags"] for row in rows[:3]] == [["a", "b"], None, []]
    assert "orders.parquet:row 1200: rejected (expectation)" in capsys.readouterr().out
    (folder / "orders.parquet").write_bytes(b"PAR1 and no more")
    assert run(["push", "Orders", "orders.parquet", "--url", service.url]) == 2
    assert "cannot be read as Parquet" in capsys.readouterr().err


def test_the_ending_of_a_name_says_what_a_file_is() -> None:
    names = ("a.csv", "a.b/C.CSV", "a.parquet", "a.pq", "a.ndjson", "a.json", "-", "<stdin>", "csv.txt")
    assert [format_of(name) for name in names] == ["csv", "csv", "parquet", "parquet", *["json"] * 5]


def test_the_same_file_under_the_same_key_makes_the_same_batches(
    folder: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rows").write_text("\n".join(json.dumps({"n": number}) for number in range(1_700)))
    for _ in range(2):
        assert run(["push", "Orders", "rows", "--idempotency-key", "night 7", "--url", service.url]) == 0
    made = {each["idempotency_key"]: [row["n"] for row in each["rows"]] for each in service.pushes}
    assert sorted(made) == ["night 7/0/0", "night 7/1/0", "night 7/2/0", "night 7/3/0"]
    assert len(service.pushes) == 8
    assert [made[f"night 7/{number}/0"] for number in range(4)] == [
        [*range(500)],
        [*range(500, 1_000)],
        [*range(1_000, 1_500)],
        [*range(1_500, 1_700)],
    ]
    assert run(["push", "Orders", "rows", "--idempotency-key", "x" * 201, "--url", service.url]) == 2
    assert "idempotency_key: must have 1 to 200 characters" in capsys.readouterr().err


def test_of_long_work_it_is_told_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    told = Told("Orders", as_json=True, numbered="line", clock=lambda: now)
    for number in range(1, 4):
        now += 6.0
        told.row(number, PushedRow(PushStatus.APPLIED))
    said = capsys.readouterr()
    assert said.err == "2 rows so far\n"
    assert [json.loads(line)["line"] for line in said.out.splitlines()] == [1, 2, 3]


def test_standard_input_takes_csv_and_no_parquet(
    folder: Path, service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for format, code in (("csv", 0), ("parquet", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Pipe(b"n\n1\n")))
        assert run(["push", "Orders", "-", "--format", format, "--url", service.url]) == code
    assert pushed(service) == [{"n": 1}]
    assert "push it as a file, not by standard input" in capsys.readouterr().err
