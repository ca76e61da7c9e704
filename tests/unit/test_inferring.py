"""Definitions that are guessed from records: they load as they stand, and say what they are guesses of."""

import io
import itertools
import json
import random
import re
import uuid
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stillwell.cli.main import run
from stillwell.definitions.loading import load_definitions
from stillwell.inferring import infer
from stillwell.inferring.guessing import NothingToGuess
from stillwell.spec import DefinitionsSpec
from stillwell.trial import Record, Trial
from tests.full_disk import fill

NOW = 1_780_000_000_000
AT = "2026-05-28T20:26:40Z"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with settings and no definitions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stillwell.toml").write_text('project = "shop"\ndefinitions = "features"\n')
    return tmp_path


def records(values: Iterable[Any], keys: Iterable[str | None] = itertools.repeat(None)) -> list[Record]:
    """A record of now for each value, which is JSON unless it is bytes."""
    return [
        Record(
            value if isinstance(value, bytes | None) else json.dumps(value).encode(),
            None if key is None else key.encode(),
            timestamp=NOW,
            offset=offset,
        )
        for offset, (value, key) in enumerate(zip(values, keys, strict=False))
    ]


def loaded(source: str, folder: Path) -> DefinitionsSpec:
    name = f"guessed_{uuid.uuid4().hex[:10]}"
    (folder / f"{name}.py").write_text(source)
    return load_definitions(name, folder)


def guessed(given: list[Record], folder: Path, topic: str = "shop.orders") -> tuple[str, dict[str, str]]:
    """The source, and what type it gives each column."""
    source = infer(topic, given).source
    (spec,) = loaded(source, folder).topics
    return source, {each.name: f"{each.type.name}{' | None' if each.nullable else ''}" for each in spec.columns}


def test_columns_get_the_types_that_their_values_have(tmp_path: Path) -> None:
    values = [
        {
            "at": AT,
            "customer": f"c{number % 3}",
            "n": number,
            "price": number / 2 + 0.25,
            "paid": number % 2 == 0,
            "sent_ms": NOW + number,
            "epoch_s": NOW // 1_000,
            "created": NOW // 1_000,
            "seen": "2026-05-28 10:00:00.000",
        }
        for number in range(20)
    ]
    source, types = guessed(records(values), tmp_path)
    assert types == {
        "at": "Timestamp",
        "customer": "String",
        "n": "Int64",
        "price": "Float64",
        "paid": "Bool",
        "sent_ms": "Timestamp",
        "epoch_s": "Int64",
        "created": "Timestamp",
        "seen": "String",
    }
    assert 'sent_ms: Col[Timestamp] = col(unit="ms")' in source
    assert "times without a zone: nobody can tell which instant they mean" in source


def test_what_is_null_or_missing_may_be_null_and_how_often_is_told(tmp_path: Path) -> None:
    values = [
        {"at": AT, "customer": "c", **({"note": "x"} if n else {}), "vip": None if n < 3 else True} for n in range(9)
    ]
    source, types = guessed(records(values), tmp_path)
    assert (types["note"], types["vip"]) == ("String | None", "Bool | None")
    assert "# null or missing in 1 of 9\n    note: " in source
    assert "# null or missing in 3 of 9\n    vip: " in source


def test_nested_fields_become_columns_with_paths(tmp_path: Path) -> None:
    values = [
        {"at": AT, "buyer": {"id": n % 2, "a.b": {"zip": "1"}}, "from": "x", "2nd": 1, "spec": 1} for n in range(9)
    ]
    source, types = guessed(records(values), tmp_path)
    assert types.keys() == {"at", "buyer_id", "buyer_a_b_zip", "from_", "field_2nd", "spec_"}
    assert 'buyer_id: Col[Int64] = col(path="buyer.id")' in source
    assert "col(path=('buyer', 'a.b', 'zip'))" in source
    assert 'from_: Col[String] = col(path="from")' in source


def test_some_bad_records_do_not_spoil_a_column_and_are_told_of(tmp_path: Path) -> None:
    good = [{"at": AT, "customer": f"c{n % 3}", "amount": n + 0.5} for n in range(50)]
    bad = [{"at": AT, "customer": "c", "amount": "much"}, {"at": "soon", "customer": "c", "amount": 1.5}]
    given = records([*good, *bad, b"no JSON", b"[1]", None])
    source, types = guessed(given, tmp_path)
    assert types == {"at": "Timestamp", "customer": "String", "amount": "Float64"}
    assert "1 record of 52 had something else: rejected" in source
    assert "from 52 records" in source
    assert "3 records beside them" in source.replace("\n# ", " ")
    (view,) = loaded(source, tmp_path).views
    tried = Trial(view, timedelta(hours=1)).run(given)
    assert (len(tried.rows), len(tried.rejects)) == (50, 5)


def test_some_numbers_that_are_no_times_of_this_century_do_not_cost_the_event_its_time(tmp_path: Path) -> None:
    good = [{"ts": NOW + n, "device": f"d{n % 3}"} for n in range(50)]
    source, types = guessed(
        records([{"ts": -5, "device": "d0"}, {"ts": 9_000_000_000_000, "device": "d1"}, *good]), tmp_path
    )
    assert types["ts"] == "Timestamp"
    assert 'event_time="ts"' in source
    assert f"as numbers, {NOW} is 2026-05-28 20:26:40 UTC; 2 of 52 are before 2000 or after 2100" in source


def test_texts_that_are_mostly_numbers_are_said_to_be(tmp_path: Path) -> None:
    values = [
        {"at": AT, "customer": "c", "price": "free" if n == 7 else f"{n}.50", "zip": f"{n:05}"} for n in range(20)
    ]
    source, types = guessed(records(values), tmp_path)
    assert (types["price"], types["zip"]) == ("String", "String")
    assert "# numbers as texts: a feature of the number is .cast(pl.Float64, strict=False)" in source
    assert source.count("numbers as texts") == 1


def test_numbers_that_no_whole_number_holds_cost_digits_and_that_is_said(tmp_path: Path) -> None:
    values = [{"at": AT, "customer": "c", "n": 2**63 - (n > 0), "price": 0.5} for n in range(20)]
    source, types = guessed(records(values), tmp_path)
    assert types["n"] == "Float64"
    assert "# 1 of 20 are beyond Int64; of a Float64 15 digits are sure\n    n: Col[Float64]" in source
    assert source.count("beyond Int64") == 1


def test_lists_that_are_mostly_of_one_length_may_be_vectors(tmp_path: Path) -> None:
    values = [{"at": AT, "customer": "c", "where": [0.5] * (2 if n == 7 else 64)} for n in range(20)]
    source, types = guessed(records(values), tmp_path)
    assert types["where"] == "List[Float64]"
    told = " ".join(source.replace("#", " ").split())
    assert "64 elements in 19 of 20: a vector, Annotated[list[Float32], Size(64)]? It would reject 1 record" in told


def test_fields_that_no_column_can_be_are_left_out_with_the_reason(tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [
        {"at": AT, "customer": "c", "odd": n if n % 2 else "x", "no": {}, "never": None, 'q"': 1} for n in range(8)
    ]
    source, types = guessed(records(values), tmp_path)
    assert types.keys() == {"at", "customer"}
    for said in (
        "left out: odd, of several kinds: 4 texts, 4 whole numbers",
        "left out: no, an object without fields",
        "left out: never, always null",
        'left out: q", its name holds a quotation mark',
    ):
        assert said in source


def test_lists_of_one_type_become_lists(tmp_path: Path) -> None:
    values = [
        {
            "at": AT,
            "customer": "c",
            "tags": ["new"] * (n % 3),
            "sizes": [n, 2],
            "where": [n / 3, 0.5, 1.25],
            "seen": [AT],
            "odd": [1, "a"],
            "deep": [[1]],
            "parts": [{"name": "a", "n": n}, {}],
            "holes": [1, None],
            "never": [],
        }
        for n in range(12)
    ]
    source, types = guessed(records(values), tmp_path)
    assert {name: types[name] for name in ("tags", "sizes", "where", "seen")} == {
        "tags": "List[String]",
        "sizes": "List[Int64]",
        "where": "List[Float64]",
        "seen": "List[Timestamp]",
    }
    assert "# always 3 elements: a vector, Annotated[list[Float32], Size(3)]?\n    where: " in source
    for said in (
        "left out: odd, a list of elements of several kinds: 12 whole numbers, 12 texts",
        "left out: deep, a list of lists",
        "left out: parts, a list of objects: lists that a column holds are of single values; the raw archive",
        "left out: holes, a list with nulls in it",
        "left out: never, a list that is always empty",
    ):
        assert said in source


@pytest.mark.parametrize(
    ("usual", "odd", "columns", "said"),
    [
        (5, {"value": 5}, {"amount"}, "left out: amount.…, an object in 1 record, where most have a value"),
        ({"value": 5, "in": "EUR"}, 5, {"amount_value", "amount_in"}, "left out: amount, no object in 1 record"),
        ({"value": 5}, None, {"amount_value"}, ""),
    ],
)
def test_what_is_an_object_in_some_records_alone_is_what_it_is_in_most(
    tmp_path: Path, usual: Any, odd: Any, columns: set[str], said: str
) -> None:
    values = [{"at": AT, "customer": "c", "amount": usual} for _ in range(19)]
    source, types = guessed(records([*values, {"at": AT, "customer": "c", "amount": odd}]), tmp_path)
    assert types.keys() - {"at", "customer"} == columns
    assert said in source
    assert "always null" not in source


def test_a_map_is_left_out_as_a_whole(tmp_path: Path) -> None:
    values = [{"at": AT, "customer": "c", "by_user": {f"u{n}-{each}": 1 for each in range(40)}} for n in range(20)]
    source, types = guessed(records(values), tmp_path)
    assert types.keys() == {"at", "customer"}
    assert "left out: by_user, a map: its fields are data" in source


def test_a_map_of_objects_is_left_out_as_one(tmp_path: Path) -> None:
    prices = {f"C{n}": {"bid": 1, "ask": 2} for n in range(300)}
    source, types = guessed(records([{"at": AT, "customer": "c", "prices": prices}] * 5), tmp_path)
    assert types.keys() == {"at", "customer"}
    assert source.count("left out") == 1
    assert "left out: prices, a map: its fields are data" in source


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"updated_at": AT, "created_at": AT}, "created_at"),
        ({"due": "2027-01-01T00:00:00Z", "when": AT}, "when"),
        ({"born": "1990-01-01T00:00:00Z", "logged": AT}, "logged"),
        ({"amount": 1}, "received_at"),
    ],
)
def test_the_event_time_is_the_time_that_is_most_likely_one(
    tmp_path: Path, value: dict[str, Any], expected: str
) -> None:
    """By its name, or else by its distance from the records' timestamps; never one that lies ahead of them."""
    given = records([{"customer": "c", **value}] * 5)
    (spec,) = loaded(infer("shop.orders", given).source, tmp_path).topics
    assert spec.event_time == expected


def test_the_event_time_is_never_null_though_some_records_lack_it(tmp_path: Path) -> None:
    values = [{"at": AT, "customer": "c"}] * 19 + [{"customer": "c"}]
    source, types = guessed(records(values), tmp_path)
    assert types["at"] == "Timestamp"
    assert "# null or missing in 1 of 20: rejected\n    at: " in source


@pytest.mark.parametrize(
    ("key_of", "expected"),
    [
        (lambda value: value["shop"], "shop"),
        (lambda value: str(value["number"]), "number"),
        (lambda value: "x" + value["shop"], "key"),
        (lambda value: None, "customer_id"),
    ],
)
def test_the_key_is_that_of_the_records_or_what_looks_like_one_and_comes_again(
    tmp_path: Path, key_of: Any, expected: str
) -> None:
    values = [
        {"at": AT, "order_id": f"o{n}", "shop": f"s{n % 4}", "number": n % 7, "customer_id": f"c{n % 5}"}
        for n in range(40)
    ]
    given = records(values, map(key_of, values))
    definitions = loaded(infer("shop.orders", given).source, tmp_path)
    (view,) = definitions.views
    assert [key.name for key in view.entity.keys] == [expected]
    assert len(Trial(view, timedelta(hours=1)).run(given).rows) == 40


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "shop.orders holds no record that could be looked at. `stillwell produce shop.orders FILE` sends it some"),
        (
            [b"no JSON", b"[]", None],
            "holds 3 records that could be looked at, and none that is a JSON object, and nothing else is read. The "
            "newest is b'[]'",
        ),
        ([b"\0\0\0\0\x01\x02"], "x02'; a zero byte in front is mostly that of a schema registry, before Avro or"),
        ([None], "holds 1 record that could be looked at, and none that is a JSON object: all are without a value"),
        ([{"at": AT, "on": True}], "nothing tells whom an event is about"),
        (
            [{"at": AT, "user": {"id": 2**63 + n}} for n in range(3)],
            "whom an event is about; user.id beyond Int64 can be no key: have it sent as a text",
        ),
    ],
)
def test_where_nothing_can_be_guessed_it_says_why(given: list[Any], said: str) -> None:
    with pytest.raises(NothingToGuess, match=re.escape(said)):
        infer("shop.orders", records(given))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("20", "20 records of orders.ndjson looked at: 20 rows of LatestOrder, 0 rejected\n"),
        ("1000", "21 records of orders.ndjson looked at: 20 rows of LatestOrder, 1 rejected (decode 1)\n"),
    ],
)
def test_the_events_of_a_file_are_enough(
    project: Path, capsys: pytest.CaptureFixture[str], limit: str, said: str
) -> None:
    lines = [json.dumps({"at": AT, "customer": f"c{n}", "amount": 1.5}) for n in range(20)]
    (project / "orders.ndjson").write_text("\n".join([*lines, '{"at": "later", "customer": "c0"}']))
    words = ["topics", "infer", "shop.orders", "--from", "orders.ndjson", "--key", "customer", "--limit", limit]
    assert run(words) == 0
    printed = capsys.readouterr()
    assert 'class Order(Topic, name="shop.orders", event_time="at"' in printed.out
    assert printed.err == said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ('{"at": "2026-01-01T00:00:00Z", "customer": "a"}', "1 record of standard input looked at: 1 row of Latest"),
        ("no JSON", "standard input holds 1 record that could be looked at, and none that is a JSON object"),
        ("", "stillwell: standard input holds no record\n"),
    ],
)
def test_of_events_that_are_typed_it_is_not_said_that_the_topic_holds_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
    run(["topics", "infer", "shop.orders", "--from", "-"])
    assert said in capsys.readouterr().err


def test_a_key_is_not_asked_for_of_a_topics_records(capsys: pytest.CaptureFixture[str]) -> None:
    """It might be meant as that of the entity."""
    assert run(["topics", "infer", "shop.orders", "--key", "customer"]) == 2
    assert "--key is for the events of a file: records of a topic have keys" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("topic", "classes"),
    [
        ("shop.orders", {"Customer", "Order", "LatestOrder"}),
        ("customers", {"Customer", "CustomerEvent", "LatestCustomerEvent"}),
        ("orders.v2", {"Customer", "Order", "LatestOrder"}),
        ("page_views", {"Customer", "ViewEvent", "LatestViewEvent"}),
        ("2024-clicks.9x", {"Customer", "The9x", "LatestThe9x"}),
        ("address", {"Customer", "Address", "LatestAddress"}),
    ],
)
def test_classes_are_named_after_topic_and_key(tmp_path: Path, topic: str, classes: set[str]) -> None:
    definitions = loaded(infer(topic, records([{"at": AT, "customer_id": "c", "n": 1}] * 3)).source, tmp_path)
    found = [*(each.name for each in definitions.entities), *(each.name for each in definitions.topics)]
    assert {*found, *(each.name for each in definitions.views)} == classes


def test_whatever_records_hold_the_definitions_load(tmp_path: Path, rng: random.Random) -> None:
    """And of what was guessed from, nothing is rejected but what is said to be: a time of the event that some lack."""
    for _ in range(25):
        shape = _shape(rng, 3)
        values = [{**_made(shape, rng), "at": AT, "user_id": rng.choice("abc")} for _ in range(rng.randint(10, 40))]
        given = records(values)
        topic = rng.choice(
            ["a", "a.b-c_d", "Entity", "col", "view", "feature.topic", "app.none", "app.true", "x" * 200, "timedelta"]
        )
        source = infer(topic, given).source
        (view,) = loaded(source, tmp_path).views
        tried = Trial(view, timedelta(hours=1)).run(given)
        said = re.findall(r"null or missing in (\d+) of \d+: rejected", " ".join(source.replace("#", " ").split()))
        errors = [each.error for each in tried.rejects]
        assert len(errors) <= sum(map(int, said)), errors
        assert len(tried.rows) + len(errors) == len(given)


_NAMES = [
    "list",
    "a",
    "A",
    "b c",
    "é",
    "class",
    "event_timestamp",
    "spec",
    "at",
    "_x",
    "1",
    "x" * 80,
    "a.b",
    "it's",
    "",
    "\u2028",
]


def _shape(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_NAMES, rng.randint(1, 6))
    return {name: _shape(rng, depth - 1) if depth and rng.random() < 0.3 else rng.choice(_KINDS) for name in names}


def _made(shape: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    made = {}
    for name, kind in shape.items():
        if rng.random() < 0.9:
            made[name] = _made(kind, rng) if isinstance(kind, dict) else kind(rng)
    return made


_KINDS = [
    lambda rng: rng.randint(-(10**9), 10**9),
    lambda rng: rng.uniform(-1, 1),
    lambda rng: rng.choice([True, False]),
    lambda rng: rng.choice(["", "x", 'quote"\\\n', "ü"]),
    lambda rng: None,
    lambda rng: AT,
    lambda rng: [1, "a"],
    lambda rng: NOW + rng.randint(0, 1000),
    lambda rng: 10**30,
]


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("shop.orders.py", "shop_orders.py"),
        ("2orders.py", "topic_2orders.py"),
        ("orders", "orders.py"),
        ("my orders.py", "my_orders.py"),
    ],
)
def test_a_draft_is_written_where_it_will_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, better: str
) -> None:
    """Before Kafka is asked for anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stillwell.toml").write_text('project = "shop"\ndefinitions = "features"\nkafka_bootstrap = "a:1"\n')
    assert run(["topics", "infer", "shop.orders", "--output", f"features/{name}"]) == 2
    assert (
        f"features/{name} is no name of a module, and would not be loaded; write features/{better}\n"
        in capsys.readouterr().err
    )


def test_a_name_that_kafka_refuses_is_told_before_anything_is_looked_at(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "events.ndjson").write_text(json.dumps({"at": AT, "customer": "c"}))
    assert run(["topics", "infer", "shop.größen", "--from", "events.ndjson"]) == 2
    assert "the topic has name='shop.größen', which Kafka refuses; use 1 to 249" in capsys.readouterr().err


def test_a_draft_that_a_full_disk_cuts_short_is_taken_away(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the folder that was made for it: the next try would be told that it is there already."""
    (project / "events.ndjson").write_text(json.dumps({"at": AT, "customer": "c"}))
    fill(monkeypatch, "orders.py")
    words = ["topics", "infer", "shop.orders", "--from", "events.ndjson", "--output", "features/deep/orders.py"]
    assert run(words) == 2
    said = "features/deep/orders.py cannot be written: No space left on device; nothing was left behind"
    assert said in capsys.readouterr().err
    assert not (project / "features").exists()
