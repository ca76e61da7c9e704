"""Feast's own remote client, unchanged and in an environment of its own, against the query service."""

import datetime
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stillwell.local import LocalStack
from stillwell.pushing.record import push_topic
from tests.feast.process import FeastClient, FeastRaisedError
from tests.integration import orders
from tests.waiting import eventually
from tests.worker import WorkerProcess

DEFINITIONS = '''
from datetime import timedelta

from stillwell import Bool, Bytes, Col, Entity, Feature, FeatureService, Float64, Int64, Key, String, Timestamp, Topic
from stillwell import View, feature


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
'''

VIEWS = ("CodeNow", "NumberNow", "SpelledNow", "BothNow")
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
    _create(stack, topic, f"{topic}-dead", *(push_topic("feast", view) for view in VIEWS))
    orders.produce(stack.bootstrap, topic, READINGS)
    worker = WorkerProcess(folder, settings)
    service = WorkerProcess(folder, settings, "service", command="serve")
    try:
        worker.start().until_ready()
        service.start()
        eventually(lambda: service.page("/health")[0] == 200, within_s=30, what=f"{service.log}: health")
        # They are in one partition: with the last of them all are there.
        eventually(lambda: "strange" in _last_label(service), within_s=30, what=f"{worker.log}: the last reading")
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


def _last_label(service: WorkerProcess) -> str:
    body = {"features": ["CodeNow:label"], "entities": {"code": [STRANGE[-1]]}}
    url = f"http://127.0.0.1:{service.port}/get-online-features"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=5) as answer:
        return str(json.load(answer)["results"][1]["values"][0])


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


def test_a_store_that_may_have_lost_data_is_an_error_to_the_client_and_nobody_not_found(
    served: WorkerProcess, tmp_path: Path
) -> None:
    forgetful = WorkerProcess(
        served.folder, {**served.environment, "STILLWELL_NAMESPACE": "never-written"}, "forgetful", command="serve"
    )
    client = FeastClient(tmp_path / "repository", f"http://127.0.0.1:{forgetful.port}")
    try:
        forgetful.start()
        eventually(lambda: forgetful.page("/health")[0] == 503, within_s=30, what=f"{forgetful.log}: an answer")
        # It asks three times more, as Retry-After says, and gives up.
        with pytest.raises(FeastRaisedError, match="503") as raised:
            client.call("get_online_features", features=["CodeNow:label"], entities={"code": ["fresh"]})
        assert raised.value.kind == "RetryError"
    finally:
        client.close()
        forgetful.end()
