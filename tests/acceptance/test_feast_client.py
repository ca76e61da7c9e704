"""Feast's own remote client, unchanged and in an environment of its own, against the query service."""

import datetime
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stillwell.local import LocalStack
from stillwell.predictions.hint import refresh_topic
from stillwell.pushing.record import push_topic
from tests.feast.process import FeastClient, FeastRaisedError
from tests.integration import orders
from tests.waiting import eventually
from tests.worker import WorkerProcess

DEFINITIONS = '''
from datetime import timedelta
from typing import Annotated

import polars as pl

from stillwell import AS_OF, Bool, Bytes, Col, Entity, Feature, FeatureService, Float64, Int64, Key, Model
from stillwell import OnDemandView, Output, Request, Size, String, Timestamp, Topic, View, feature


class Coded(Entity, owner="tests"):
    code: Key[String]


class Numbered(Entity, owner="tests"):
    number: Key[Int64]


class Spelled(Entity, owner="tests"):
    number: Key[String]


class Both(Entity, owner="tests"):
    code: Key[String]
    number: Key[Int64]


class Reading(Topic, name="{topic}", event_time="at", start="earliest"):
    at: Col[Timestamp]
    code: Col[String]
    number: Col[Int64]
    amount: Col[Float64 | None]
    label: Col[String]
    raw: Col[Bytes]
    tags: Col[list[String] | None]
    pair: Col[Annotated[list[Float64], Size(2)] | None]


class ListsNow(View, source=Reading, entity=Coded, keys={{"code": Reading.code}}, ttl=timedelta(hours=1)):
    """Lists and vectors."""

    tags: Feature[list[String] | None] = feature(Reading.tags)
    numbers: Feature[list[Int64] | None] = feature(Reading.tags.list.eval(pl.element().str.len_chars().cast(pl.Int64)))
    pair: Feature[Annotated[list[Float64], Size(2)] | None] = feature(Reading.pair)


class CodeNow(View, source=Reading, entity=Coded, keys={{"code": Reading.code}}, ttl=timedelta(hours=1)):
    """What is past its TTL is in the store still, for an hour."""

    amount: Feature[Float64 | None] = feature(Reading.amount)
    number: Feature[Int64] = feature(Reading.number)
    label: Feature[String] = feature(Reading.label)
    large: Feature[Bool] = feature((Reading.amount > 100).fill_null(False))
    seen: Feature[Timestamp] = feature(Reading.at)
    raw: Feature[Bytes] = feature(Reading.raw)


class NumberNow(View, source=Reading, entity=Numbered, keys={{"number": Reading.number}}, ttl=timedelta(0)):
    """By a number."""

    label: Feature[String] = feature(Reading.label)


class SpelledNow(View, source=Reading, entity=Spelled, keys={{"number": Reading.code}}, ttl=timedelta(0)):
    """By a text in a column that the numbers' is called as well."""

    label: Feature[String] = feature(Reading.label)


class BothNow(View, source=Reading, entity=Both, keys={{"code": Reading.code, "number": Reading.number}},
              ttl=timedelta(0)):
    """By both."""

    label: Feature[String] = feature(Reading.label)


class Labels(FeatureService, features=(BothNow.label, CodeNow.amount, CodeNow.label)):
    """What several views call by one name."""


class Trade(Entity, owner="tests"):
    payer: Key[String]
    payee: Key[String]


Payer = CodeNow.at(code=Trade.payer)
Payee = CodeNow.at(code=Trade.payee)


class Bid(Request):
    """What comes with a request."""

    offer: Col[Float64]
    note: Col[String | None]


class Offer(OnDemandView, inputs=(Payer, CodeNow, Bid)):
    """Of what is stored under two keys, and of what the request brings."""

    more: Feature[Float64 | None] = feature(Bid.offer - CodeNow.amount)
    apart: Feature[Float64 | None] = feature(CodeNow.amount - Payer.amount)
    noted: Feature[Bool] = feature(Bid.note.is_not_null())
    minutes: Feature[Int64 | None] = feature((AS_OF - CodeNow.seen).dt.total_minutes())


def twice(columns):
    return {{"twice": [amount and 2 * amount for amount in columns["amount"]]}}


class Worth(Model, entity=Coded, version="1", policy="wait", max_staleness=timedelta(hours=1),
            inputs={{"amount": CodeNow.amount}}, server=twice):
    """A model whose prediction is waited for. It has none of what has no amount."""

    twice: Output[Float64]


class Whole(FeatureService, features=(Payer.label, Payee, Offer.more, Worth, CodeNow.label)):
    """Of every kind."""
'''

VIEWS = ("CodeNow", "ListsNow", "NumberNow", "SpelledNow", "BothNow")
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
MINUTE = datetime.timedelta(minutes=1)

# What cuts a key in two, hides it from a cluster, or is not ASCII; the last two look alike, and are not the same.
STRANGE = ("}", "{", "{a}:b", ":", "a:", "\\", '"', " ", "\u0000", "a\nb", "ключ", "航班", "🛫", "\u00e9", "e\u0301")


def _reading(code: str, number: int, label: str, amount: float | None, age: datetime.timedelta) -> dict[str, object]:
    return {
        "at": (NOW - age).isoformat(),
        "code": code,
        "number": number,
        "amount": amount,
        "label": label,
        "raw": "AP8=",
        "tags": label.split(),
        "pair": None if amount is None else [amount, -amount],
    }


READINGS = (
    _reading("fresh", 7, "seven", 12.5, MINUTE),
    _reading("null", 8, "eight", None, MINUTE),
    _reading("old", 9, "nine", 90.5, 90 * MINUTE),
    _reading("large", -(2**63), "least", 1e300, MINUTE),
    _reading("1", 2, "the text 1, the number 2", 1.0, MINUTE),
    _reading("2", 1, "the text 2, the number 1", 2.0, MINUTE),
    *(_reading(code, 100 + number, f"strange {number}", float(number), MINUTE) for number, code in enumerate(STRANGE)),
)


@pytest.fixture(scope="module")
def served(stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """A query service beside a worker that has written what READINGS say."""
    folder = tmp_path_factory.mktemp("served")
    topic = f"readings-{folder.name}-{stack.redis.port}"
    package = folder / "readings"
    package.mkdir()
    (package / "__init__.py").write_text(DEFINITIONS.format(topic=topic))
    settings = {
        **stack.environment,
        "STILLWELL_PROJECT": "feast",
        "STILLWELL_NAMESPACE": "client",
        "STILLWELL_DEFINITIONS": "readings",
        "STILLWELL_OFFLINE_URL": str(folder / "offline"),
        "STILLWELL_DEAD_LETTER_TOPIC": f"{topic}-dead",
        "STILLWELL_WINDOW_AGE": "500ms",
    }
    pushes = (push_topic("feast", name) for name in (*VIEWS, "Worth"))
    _create(stack, topic, f"{topic}-dead", *pushes, refresh_topic("feast", "client"))
    orders.produce(stack.bootstrap, topic, READINGS)
    worker = WorkerProcess(folder, settings)
    service = WorkerProcess(folder, settings, "service", command="serve")
    try:
        worker.start().until_ready()
        service.start()
        eventually(lambda: service.page("/health")[0] == 200, within_s=90, what=f"{service.log}: health")
        # They are in one partition: with the last of them all are there.
        eventually(lambda: "strange" in _last_label(service), within_s=90, what=f"{worker.log}: the last reading")
        yield service
    finally:
        service.end()
        worker.end()


def _create(stack: LocalStack, *topics: str) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    for created in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        created.result(30)


def post(service: WorkerProcess, path: str, body: object) -> tuple[int, Any]:
    """Status and body of an answer to somebody who has no client."""
    url = f"http://127.0.0.1:{service.port}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def _last_label(service: WorkerProcess) -> str:
    body = {"features": ["CodeNow:label"], "entities": {"code": [STRANGE[-1]]}}
    _, answer = post(service, "/get-online-features", body)
    return str(answer["results"][1]["values"][0])


@pytest.fixture(scope="module")
def client(served: WorkerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeastClient]:
    """Feast's client, whose only knowledge of Stillwell is a URL."""
    client = FeastClient(tmp_path_factory.mktemp("feast") / "repository", f"http://127.0.0.1:{served.port}")
    yield client
    client.close()


Ask = Callable[..., Mapping[str, Mapping[str, Sequence[Any]]]]


@pytest.fixture
def ask(client: FeastClient) -> Ask:
    """ask(features, full_feature_names=False, **entities): names of columns, each with its values and statuses."""

    def ask(features: Sequence[str], full_feature_names: bool = False, **entities: Sequence[object]) -> Any:
        return client.call(
            "get_online_features", features=features, entities=entities, full_feature_names=full_feature_names
        )

    return ask


ALL = [f"CodeNow:{name}" for name in ("amount", "number", "label", "large", "seen", "raw")]


def test_every_status_reaches_the_client_with_the_value_that_belongs_to_it(ask: Ask) -> None:
    answer = ask(ALL, code=["fresh", "null", "nobody", "old"])
    present, absent, late = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"
    whole = [present, present, absent, late]
    seen = int((NOW - MINUTE).timestamp())
    assert answer == {
        "code": {"values": ["fresh", "null", "nobody", "old"], "statuses": [present] * 4},
        "amount": {"values": [12.5, None, None, None], "statuses": [present, "NULL_VALUE", absent, late]},
        "number": {"values": [7, 8, None, None], "statuses": whole},
        "label": {"values": ["seven", "eight", None, None], "statuses": whole},
        "large": {"values": [False, False, None, None], "statuses": whole},
        "seen": {"values": [seen, seen, None, None], "statuses": whole},
        "raw": {"values": ["AP8=", "AP8=", None, None], "statuses": whole},
    }


def test_lists_and_vectors_reach_the_client_as_lists(ask: Ask) -> None:
    answer = ask([f"ListsNow:{name}" for name in ("tags", "numbers", "pair")], code=["fresh", "1", "nobody", "old"])
    statuses = ["PRESENT", "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
    assert answer["tags"]["values"][:2] == [["seven"], ["the", "text", "1,", "the", "number", "2"]]
    assert answer["numbers"]["values"][:2] == [[5], [3, 4, 2, 3, 6, 1]]
    assert answer["pair"]["values"][:2] == [[12.5, -12.5], [1.0, -1.0]]
    assert all(not any(answer[name]["values"][2:]) for name in ("tags", "numbers", "pair"))
    assert all(answer[name]["statuses"] == statuses for name in ("tags", "numbers", "pair"))


def test_entities_come_in_the_order_of_the_request_and_as_often_as_they_are_named(ask: Ask) -> None:
    codes = ["null", "nobody", "fresh", "fresh", "null", "nobody", "fresh"]
    answer = ask(["CodeNow:label"], code=codes)
    assert answer["code"]["values"] == codes
    assert answer["label"]["values"] == ["eight", None, "seven", "seven", "eight", None, "seven"]
    many = [f"{code} {number}" if number % 3 else code for number, code in enumerate(codes * 20)]
    labels = {"fresh": "seven", "null": "eight"}
    assert ask(["CodeNow:label"], code=many)["label"]["values"] == [labels.get(code) for code in many]


def test_features_come_in_the_order_of_the_request_by_the_names_that_are_asked_for(ask: Ask) -> None:
    features = ["CodeNow:label", "BothNow:label", "CodeNow:amount"]
    answer = ask(features, full_feature_names=True, code=["fresh"], number=[7])
    assert list(answer) == ["code", "number", "CodeNow__label", "BothNow__label", "CodeNow__amount"]
    assert [column["values"] for column in answer.values()] == [["fresh"], [7], ["seven"], ["seven"], [12.5]]
    assert list(ask(["CodeNow:large", "CodeNow:amount"], code=["fresh"])) == ["code", "large", "amount"]


def test_a_key_is_found_whatever_it_is_made_of(ask: Ask) -> None:
    codes = [*STRANGE, *(code + "}" for code in STRANGE)]
    labels = [f"strange {number}" for number in range(len(STRANGE))] + [None] * len(STRANGE)
    answer = ask(["CodeNow:label"], code=codes)
    assert answer["code"]["values"] == codes
    assert answer["label"]["values"] == labels
    numbers = [100 + number for number in range(len(STRANGE))]
    assert ask(["BothNow:label"], code=STRANGE, number=numbers)["label"]["values"] == labels[: len(STRANGE)]


def test_a_key_of_two_columns_is_both_of_them(ask: Ask) -> None:
    answer = ask(["BothNow:label"], number=[7, 8, 7, -(2**63)], code=["fresh", "fresh", "null", "large"])
    assert list(answer) == ["number", "code", "label"]
    assert answer["label"]["values"] == ["seven", None, None, "least"]
    assert answer["label"]["statuses"] == ["PRESENT", "NOT_FOUND", "NOT_FOUND", "PRESENT"]


def test_the_number_1_and_the_text_1_are_two_entities(ask: Ask) -> None:
    assert ask(["NumberNow:label"], number=[1, 2])["label"]["values"] == [
        "the text 2, the number 1",
        "the text 1, the number 2",
    ]
    assert ask(["SpelledNow:label"], number=["1", "2"])["label"]["values"] == [
        "the text 1, the number 2",
        "the text 2, the number 1",
    ]
    for view, number in (("NumberNow", "1"), ("SpelledNow", 1)):
        with pytest.raises(FeastRaisedError, match=r"entities\.number\[0\]") as raised:
            ask([f"{view}:label"], number=[number])
        assert raised.value.kind == "FeastError"


def test_an_alias_is_a_view_of_its_own_name_by_the_keys_that_lead_to_it(ask: Ask) -> None:
    trades = {"payee": ["null", "nobody", "fresh"], "payer": ["fresh", "old", "fresh"]}
    answer = ask(["Payer:label", "Payee:label", "Payee:amount"], full_feature_names=True, **trades)
    present = "PRESENT"
    assert answer == {
        "payee": {"values": ["null", "nobody", "fresh"], "statuses": [present] * 3},
        "payer": {"values": ["fresh", "old", "fresh"], "statuses": [present] * 3},
        "Payer__label": {"values": ["seven", None, "seven"], "statuses": [present, "OUTSIDE_MAX_AGE", present]},
        "Payee__label": {"values": ["eight", None, "seven"], "statuses": [present, "NOT_FOUND", present]},
        "Payee__amount": {"values": [None, None, 12.5], "statuses": ["NULL_VALUE", "NOT_FOUND", present]},
    }
    with pytest.raises(FeastRaisedError, match=r"entities\.payee"):
        ask(["Payer:label", "Payee:label"], full_feature_names=True, payer=["fresh"], code=["fresh"])


def test_features_are_computed_of_what_is_stored_and_of_what_the_request_brings(ask: Ask) -> None:
    asked = {"code": ["fresh", "null", "nobody", "old"], "payer": ["large"] * 4, "offer": [20, 20.5, 1.0, 1.0]}
    features = [f"Offer:{name}" for name in ("more", "apart", "noted", "minutes")]
    answer = ask(features, **asked, note=["n", None, "", None])
    # Keys and request values alike are shown as they were sent; what is read for it is not.
    assert list(answer) == ["code", "payer", "offer", "note", "more", "apart", "noted", "minutes"]
    assert answer["offer"] == {"values": [20.0, 20.5, 1.0, 1.0], "statuses": ["PRESENT"] * 4}
    assert answer["more"]["values"] == [7.5, None, None, None]
    assert answer["more"]["statuses"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
    assert answer["apart"] == {
        "values": [12.5 - 1e300, None, None, None],
        "statuses": ["PRESENT", "NULL_VALUE", "NULL_VALUE", "OUTSIDE_MAX_AGE"],
    }
    assert answer["noted"]["values"] == [True, False, True, False]
    *there, nobody, old = answer["minutes"]["values"]
    assert all(1 <= minutes < 60 for minutes in there)
    assert (nobody, old) == (None, None)
    # A column that may be null can be left out.
    assert ask(["Offer:noted"], code=["fresh"], payer=["fresh"], offer=[0.0])["noted"]["values"] == [False]
    for offer, said in ((None, r"entities\.offer\[0\].*not null"), ("20", r"entities\.offer\[0\].*Float64")):
        with pytest.raises(FeastRaisedError, match=said):
            ask(["Offer:more"], code=["fresh"], payer=["fresh"], offer=[offer])
    with pytest.raises(FeastRaisedError, match=r"entities\.offer"):
        ask(["Offer:more"], code=["fresh"], payer=["fresh"])


def test_what_a_model_says_stands_beside_the_features_that_it_says_it_of(ask: Ask) -> None:
    codes = ["fresh", "large", "nobody", "fresh"]
    answer = ask(["Worth:twice", "CodeNow:amount", "CodeNow:label"], code=codes)
    assert list(answer) == ["code", "twice", "amount", "label"]
    assert answer["amount"]["values"] == [12.5, 1e300, None, 12.5]
    assert answer["twice"]["values"] == [25.0, 2e300, None, 25.0]
    assert answer["twice"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND", "PRESENT"]
    assert list(ask(["Worth:twice"], full_feature_names=True, code=["fresh"])) == ["code", "Worth__twice"]


def test_a_bad_key_among_good_ones_has_the_whole_request_refused_and_is_named(ask: Ask) -> None:
    for codes, said in (
        (["fresh", "null", 7, "old"], r"entities\.code\[2\]"),
        (["fresh", None], r"entities\.code\[1\]"),
        (["fresh", True, 7], r"entities\.code\[1\]"),
        (["fresh", ["null"]], r"entities\.code\[1\]"),
    ):
        with pytest.raises(FeastRaisedError, match=said) as raised:
            ask(["CodeNow:label"], code=codes)
        assert raised.value.kind == "FeastError"
    for numbers, said in (([7, 2**63], r"entities\.number\[1\]"), ([7.5, 7], r"entities\.number\[0\]")):
        with pytest.raises(FeastRaisedError, match=said):
            ask(["BothNow:label"], number=numbers, code=["fresh", "fresh"])


@pytest.mark.parametrize("by", ["retrieve_online_documents", "retrieve_online_documents_v2"])
def test_a_search_by_vectors_is_refused_and_says_what_there_is_not(client: FeastClient, by: str) -> None:
    client.call("apply_searched", view="Searched", keys={"code": "String"})
    with pytest.raises(FeastRaisedError, match="looks vectors up by their keys alone") as raised:
        client.call("search", view="Searched", by=by)
    assert raised.value.kind == "FeastError"


@pytest.mark.parametrize("path", ["/materialize", "/materialize-incremental"])
def test_materializing_is_refused_and_says_why_nobody_needs_it(served: WorkerProcess, path: str) -> None:
    status, told = post(served, path, {"start_ts": "2026-01-01T00:00:00", "end_ts": "2026-01-02T00:00:00"})
    assert status == 422
    assert "workers write" in json.loads(told)["message"]


@pytest.mark.parametrize(
    ("features", "entities", "kind", "said"),
    [
        (["CodeNoe:label"], {"code": ["fresh"]}, "FeatureViewNotFoundException", "did you mean 'CodeNow'"),
        (["CodeNow:lable"], {"code": ["fresh"]}, "FeatureViewNotFoundException", "did you mean 'label'"),
        (["CodeNow:label"], {"number": [1]}, "FeastError", "entities.code"),
        (["CodeNow:label", "NumberNow:label"], {"code": ["fresh"], "number": [7]}, "FeastError", "full_feature_names"),
    ],
)
def test_a_mistake_is_raised_as_what_the_client_knows_and_says_what_to_do(
    ask: Ask, features: Sequence[str], entities: Mapping[str, Sequence[object]], kind: str, said: str
) -> None:
    with pytest.raises(FeastRaisedError) as raised:
        ask(features, **entities)
    assert raised.value.kind == kind
    assert said in raised.value.message


def test_a_feature_service_is_asked_for_by_its_name_which_the_server_alone_knows(client: FeastClient) -> None:
    asked = {"code": ["fresh", "nobody"], "number": [7, 7]}
    answer = client.call("get_online_features", service="Labels", entities=asked, full_feature_names=True)
    assert list(answer) == ["code", "number", "BothNow__label", "CodeNow__amount", "CodeNow__label"]
    assert answer["BothNow__label"]["values"] == answer["CodeNow__label"]["values"] == ["seven", None]
    assert answer["CodeNow__amount"]["statuses"] == ["PRESENT", "NOT_FOUND"]
    with pytest.raises(FeastRaisedError, match="'Labels'"):
        client.call("get_online_features", service="Lables", entities=asked)


def test_a_feature_service_may_have_features_of_every_kind(client: FeastClient) -> None:
    asked = {"offer": [13.0, 1.0], "payee": ["nobody", "null"], "code": ["fresh", "nobody"], "payer": ["old", "fresh"]}
    answer = client.call("get_online_features", service="Whole", entities=asked, full_feature_names=True)
    features = [f"Payee__{name}" for name in ("amount", "number", "label", "large", "seen", "raw")]
    features = ["Payer__label", *features, "Offer__more", "Worth__twice", "CodeNow__label"]
    assert list(answer) == [*asked, *features]
    assert answer["Payer__label"] == {"values": [None, "seven"], "statuses": ["OUTSIDE_MAX_AGE", "PRESENT"]}
    assert answer["Payee__label"] == {"values": [None, "eight"], "statuses": ["NOT_FOUND", "PRESENT"]}
    assert answer["Offer__more"] == {"values": [0.5, None], "statuses": ["PRESENT", "NOT_FOUND"]}
    assert answer["Worth__twice"] == {"values": [25.0, None], "statuses": ["PRESENT", "NOT_FOUND"]}
    assert answer["CodeNow__label"] == {"values": ["seven", None], "statuses": ["PRESENT", "NOT_FOUND"]}


OF_CODE_NOW = {
    "amount": "Float64",
    "number": "Int64",
    "label": "String",
    "large": "Bool",
    "seen": "UnixTimestamp",
    "raw": "String",
}
"""Feast's client cannot send bytes, which JSON has no word for; as base64 they are texts to it."""


@pytest.mark.parametrize("call", ["push", "write_to_online_store"])
def test_what_the_client_pushes_it_reads_back_at_once(client: FeastClient, ask: Ask, call: str) -> None:
    """Every type and a null, and of two rows of one entity the newer one, in whichever order they come."""
    client.call("apply", view="CodeNow", keys={"code": "String"}, features=OF_CODE_NOW)
    a, b = f"{call} }}:", f"{call} 航"
    at = int(NOW.timestamp())
    columns = {
        "code": [a, b, a],
        "amount": [1.5, None, 2.5],
        "number": [1, 2**62, 3],
        "label": ["newer", "ключ", "older"],
        "large": [True, False, True],
        "raw": ["AP8=", "", "AP8="],
    }
    times = {"seen": [at - 5, at - 6, at - 7], "event_timestamp": [at, at, at - 60]}
    client.call(call, view="CodeNow", columns=columns, times=times)
    answer = ask(ALL, code=[a, b])
    assert {name: column["values"] for name, column in answer.items()} == {
        "code": [a, b],
        "amount": [1.5, None],
        "number": [1, 2**62],
        "label": ["newer", "ключ"],
        "large": [True, False],
        "seen": [at - 5, at - 6],
        "raw": ["AP8=", ""],
    }
    assert answer["amount"]["statuses"] == ["PRESENT", "NULL_VALUE"]


def test_what_the_client_pushes_is_older_than_what_is_there_and_changes_nothing(client: FeastClient, ask: Ask) -> None:
    client.call("apply", view="BothNow", keys={"code": "String", "number": "Int64"}, features={"label": "String"})
    old, new = (int((NOW - age).timestamp()) for age in (2 * MINUTE, MINUTE / 2))
    columns = {"code": ["fresh", "pair"], "number": [7, 7], "label": ["late", "pushed"]}
    client.call("push", view="BothNow", columns=columns, times={"event_timestamp": [old, new]})
    assert ask(["BothNow:label"], code=["fresh", "pair"], number=[7, 7])["label"]["values"] == ["seven", "pushed"]


def test_a_row_that_cannot_be_is_raised_to_who_pushed_it(client: FeastClient, ask: Ask) -> None:
    client.call("apply", view="NumberNow", keys={"number": "Int64"}, features={"label": "Int64"})
    columns = {"number": [900, 901], "label": [1, 2]}
    with pytest.raises(FeastRaisedError, match="label") as raised:
        client.call("push", view="NumberNow", columns=columns, times={"event_timestamp": [0, 0]})
    assert raised.value.kind == "FeastError"
    assert ask(["NumberNow:label"], number=[900, 901])["label"]["statuses"] == ["NOT_FOUND"] * 2


def test_what_the_client_has_computed_itself_it_sends_with_every_key_twice_and_is_told_so(
    client: FeastClient, ask: Ask
) -> None:
    """A mistake of Feast's client, of which Feast's own server makes a 500."""
    client.call("apply_computed", view="SpelledNow", keys={"number": "String"})
    columns = {"number": ["computed 1", "computed 2"], "amount": [1.5, 2.5]}
    with pytest.raises(FeastRaisedError, match="number has 4, label has 2") as raised:
        client.call("write_to_online_store", view="SpelledNow", columns=columns, times={})
    assert raised.value.kind == "FeastError"
    assert ask(["SpelledNow:label"], number=columns["number"])["label"]["statuses"] == ["NOT_FOUND"] * 2


@pytest.mark.parametrize("transform", [True, False])
@pytest.mark.parametrize("to", ["online", "offline", "online_and_offline"])
def test_what_the_client_pushes_offline_it_keeps_and_what_it_pushes_online_is_read(
    client: FeastClient, ask: Ask, to: str, transform: bool
) -> None:
    """Its own offline store is another affair: nothing of that comes to the service."""
    client.call("apply", view="BothNow", keys={"code": "String", "number": "Int64"}, features={"label": "String"})
    code, at = f"to {to} {transform}", [int(NOW.timestamp())]
    rows = {"columns": {"code": [code], "number": [1], "label": ["sent"]}, "times": {"event_timestamp": at}}
    client.call("keep", view="BothNow", **rows)
    client.call("push", view="BothNow", **rows, to=to, transform_on_write=transform)
    kept = pl.read_parquet(client.folder / "BothNow.parquet")
    assert kept["code"].to_list() == [code] * (1 if to == "online" else 2)
    answer = ask(["BothNow:label"], code=[code], number=[1])
    assert answer["label"]["values"] == ([None] if to == "offline" else ["sent"])


@pytest.mark.parametrize("to", ["online", "offline", "online_and_offline"])
@pytest.mark.parametrize("kind", ["an event", "a row", "a row, whatever is said"])
def test_rows_that_are_posted_to_push_go_where_they_say(served: WorkerProcess, ask: Ask, kind: str, to: str) -> None:
    """As Feast's documentation posts them: times without a zone, and all words of its own."""
    code, at = f"{kind} to {to}", NOW.strftime("%Y-%m-%d %H:%M:%S")
    columns = {"code": [code], "number": [5], "amount": [150.0], "label": ["posted"], "raw": ["AP8="]}
    if kind == "an event":
        columns |= {"at": [at]}
    else:
        columns |= {"event_timestamp": [at], "created": [at], "seen": [at], "large": [False]}
    transform = kind != "a row"
    words = {"allow_registry_cache": True, "to": to, "transform_on_write": transform}
    status, told = post(served, "/push", {"push_source_name": "CodeNow", "df": columns, **words})
    assert (status, told["rejects"]) == (200, [])
    assert told["statuses"] == ["offline" if to == "offline" else "applied"]
    answer = ask(["CodeNow:label", "CodeNow:large", "CodeNow:seen"], code=[code])
    values = [column["values"][0] for column in answer.values()][1:]
    # What of an event is computed, of a row is taken.
    large = kind == "an event"
    assert values == ([None] * 3 if to == "offline" else ["posted", large, int(NOW.timestamp())])


def test_of_rows_that_are_posted_one_bad_one_has_all_refused(served: WorkerProcess, ask: Ask) -> None:
    columns = {"code": ["posted a", "posted b"], "number": [1, "one"], "label": ["a", "b"]}
    columns["event_timestamp"] = [NOW.isoformat()] * 2
    for path, name in (("/push", "push_source_name"), ("/write-to-online-store", "feature_view_name")):
        status, told = post(served, path, {name: "BothNow", "df": columns})
        assert status == 422
        assert "rows[1]" in json.loads(told)["message"]
    assert ask(["BothNow:label"], code=["posted a"], number=[1])["label"]["statuses"] == ["NOT_FOUND"]


def test_a_store_that_may_have_lost_data_is_an_error_to_the_client_and_nobody_not_found(
    served: WorkerProcess, tmp_path: Path
) -> None:
    forgetful = WorkerProcess(
        served.folder, {**served.environment, "STILLWELL_NAMESPACE": "never-written"}, "forgetful", command="serve"
    )
    client = FeastClient(tmp_path / "repository", f"http://127.0.0.1:{forgetful.port}")
    try:
        forgetful.start()
        eventually(lambda: forgetful.page("/health")[0] == 503, within_s=90, what=f"{forgetful.log}: an answer")
        # It asks three times more, as Retry-After says, and gives up.
        with pytest.raises(FeastRaisedError, match="503") as raised:
            client.call("get_online_features", features=["CodeNow:label"], entities={"code": ["fresh"]})
        assert raised.value.kind == "RetryError"
    finally:
        client.close()
        forgetful.end()
