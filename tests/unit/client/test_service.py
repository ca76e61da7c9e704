"""What the client asks of a service, what it makes of each answer, and when it asks again."""

import asyncio
import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from stillwell.client import (
    Behind,
    Client,
    ClientError,
    NotDefined,
    NotReady,
    RequestError,
    Retries,
    TimedOut,
    Token,
    Unavailable,
    WrongAnswer,
)
from stillwell.client.service import Service
from stillwell.client.transport import NoReply, NotSent, Reply
from stillwell.errors import FormatError
from tests.fake_service import FakeTransport, feature, refusal, reply

GOOD = reply({"features": {"V:f": feature("Int64", 7)}})
AWAY = NotSent("connection refused")
CUT = NoReply("server disconnected")
BUSY = refusal(503, "StoreUnavailable", "Redis gives no answer", retry_after=0.0)
AT_ONCE = Retries(attempts=3, first=0.001, longest=0.001)


def client(transport: FakeTransport, **options: Any) -> Client:
    """A client of that transport."""
    return Client.of(Service(transport, "http://fake", options.pop("retries", AT_ONCE)), **options)


async def ask(transport: FakeTransport, **options: Any) -> object:
    """The value that a client is answered."""
    found = await client(transport, **options).features(["V:f"], {"k": "a"})
    return found.one()["V:f"].value


@pytest.mark.parametrize(
    ("entities", "columns"),
    [
        ({"k": "a", "n": 1}, {"k": ["a"], "n": [1]}),
        ({"k": ["a"], "n": (1,)}, {"k": ["a"], "n": [1]}),
        ([{"k": "a", "n": 1}], {"k": ["a"], "n": [1]}),
        ({"k": b"hi"}, {"k": ["aGk="]}),
        ([{"k": "a", "v": [0.5, math.nan]}], {"k": ["a"], "v": [[0.5, "NaN"]]}),
        ({"k": ["a"], "v": [(0.5, 1.5)]}, {"k": ["a"], "v": [[0.5, 1.5]]}),
        ([{"k": "a", "v": np.array([0.5, math.nan])}], {"k": ["a"], "v": [[0.5, "NaN"]]}),
        (pl.DataFrame({"k": ["a"], "v": [[0.5, 1.5]]}), {"k": ["a"], "v": [[0.5, 1.5]]}),
    ],
)
async def test_one_entity_lists_of_keys_and_a_list_of_entities_are_asked_for_alike(
    entities: Any, columns: object
) -> None:
    transport = FakeTransport(GOOD)
    await client(transport).features(["V:f"], entities)
    (sent,) = transport.sent
    assert (sent.method, sent.path) == ("POST", "/v1/features")
    assert sent.body == {"features": ["V:f"], "entities": columns}


@pytest.mark.parametrize(
    ("entities", "says"),
    [
        ({"k": ["a"], "n": 1}, "entities.n: must be a list, as other keys are"),
        ({"k": "a", "v": [0.5]}, "entities.k: must be a list.*where a value is itself a list, give a list of entities"),
        ([{"k": "a"}, {"n": 1}], r"entities\[1\]: has the keys n, but the first has k"),
        ({"k": object()}, "entities: holds a value that JSON has no form for"),
    ],
)
async def test_entities_that_cannot_be_meant_are_refused_before_anything_is_sent(entities: Any, says: str) -> None:
    transport = FakeTransport(GOOD)
    with pytest.raises(RequestError, match=says):
        await client(transport).features(["V:f"], entities)
    assert transport.sent == []


async def test_a_token_is_handed_on_with_the_time_that_there_is_to_wait() -> None:
    transport = FakeTransport(GOOD)
    await client(transport).features(["V:f"], {"k": "a"}, after=Token("V", 1, {0: 7}), timeout=2.0)
    assert transport.sent[0].body["after"] == "V@1:0-7"
    assert 0 < transport.sent[0].body["timeout_ms"] < 2_000
    await client(transport).features(["V:f"], {"k": "a"}, after=["V@1:0-7", Token("W", 2, {1: 8})])
    assert transport.sent[1].body["after"] == "V@1:0-7 W@2:1-8"
    with pytest.raises(RequestError, match="after: must be a token"):
        await client(transport).features(["V:f"], {"k": "a"}, after="yesterday")


@pytest.mark.parametrize("failure", [AWAY, CUT, BUSY, Reply(502, b"<html>", "text/html")])
async def test_a_read_is_asked_again_after_what_may_pass(failure: Reply | NotSent | NoReply) -> None:
    transport = FakeTransport(failure, failure, GOOD)
    assert await ask(transport) == 7
    assert len(transport.sent) == 3


@pytest.mark.parametrize(("failure", "says"), [(AWAY, "refused"), (CUT, "disconnected"), (BUSY, "Redis")])
async def test_it_is_not_asked_for_ever(failure: Reply | NotSent | NoReply, says: str) -> None:
    transport = FakeTransport(failure)
    with pytest.raises(Unavailable, match=says):
        await ask(transport)
    assert len(transport.sent) == AT_ONCE.attempts


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (refusal(422, "RequestError", "entities.k[0]: must be Int64", "entities.k[0]"), RequestError, "must be Int64"),
        (refusal(404, "NotDefined", "features[0]: V has no feature", "features[0]"), NotDefined, "V has no feature"),
        (refusal(413, "RequestError", "body: has more than 9 bytes", "body"), RequestError, "body: has more than"),
        (refusal(503, "StoreNotReady", "Redis is not ready", retry_after=1.0), NotReady, "not ready"),
        (Reply(200, b"<html>", "text/html"), WrongAnswer, "root of a query service"),
        (Reply(404, b"nothing here", "text/plain"), WrongAnswer, "root of a query service"),
        (Reply(302, b"", "text/html"), WrongAnswer, "302"),
        (refusal(500, "UnknownLayout", "a row has the unknown layout"), FormatError, "unknown layout"),
        (refusal(500, "ChainError", "what no client has heard of"), WrongAnswer, "no client has heard"),
        (reply({"features": {"V:f": feature("Int64", 7, 8)}}), WrongAnswer, "does not have 1 values"),
        (reply({"features": {"V:f": feature("Decimal", 7)}}), WrongAnswer, "upgrade the client"),
        (reply({"features": {"V:f": feature("Bytes", "?")}}), WrongAnswer, "root of a query service"),
        (reply({"features": {"V:f": feature("Float32", "one")}}), WrongAnswer, "'one' is no number"),
    ],
)
async def test_what_no_waiting_mends_is_told_at_once(answer: Reply, error: type[Exception], says: str) -> None:
    transport = FakeTransport(answer)
    with pytest.raises(error, match=says):
        await ask(transport)
    assert len(transport.sent) == 1


async def test_the_field_of_a_wrong_request_is_named_once() -> None:
    with pytest.raises(RequestError) as refused:
        await ask(FakeTransport(refusal(422, "RequestError", "entities.k: is missing", "entities.k")))
    assert refused.value.field == "entities.k"
    assert str(refused.value) == "entities.k: is missing"


async def test_a_caller_gets_an_answer_or_an_error_within_its_time() -> None:
    transport = FakeTransport(CUT, None)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimedOut, match=r"no answer within 0.05 s; before that: .* disconnected"):
        await ask(transport, timeout=0.05)
    assert asyncio.get_running_loop().time() - began < 1.0


async def test_a_pause_that_the_service_asks_for_is_kept_or_not_begun() -> None:
    patient = Retries(attempts=3, first=0.1, longest=0.4)
    assert patient.pause(1, None, 10, lambda: 0.5) == pytest.approx(0.05)
    assert patient.pause(2, None, 10, lambda: 1.0) == pytest.approx(0.2)
    assert Retries(attempts=9, first=0.1, longest=0.4).pause(8, None, 10, lambda: 1.0) == pytest.approx(0.4)
    assert patient.pause(1, 1.0, 10, lambda: 0.0) == pytest.approx(1.0)
    assert patient.pause(1, 1.0, 0.9, lambda: 0.0) is None
    assert patient.pause(3, None, 10, lambda: 0.0) is None
    transport = FakeTransport(refusal(503, "StoreUnavailable", "Redis is away", retry_after=30.0))
    with pytest.raises(Unavailable) as refused:
        await ask(transport)
    assert refused.value.retry_after == 30.0
    assert len(transport.sent) == 1


async def test_who_is_behind_says_how_far() -> None:
    body = {"error": {"kind": "Behind", "field": "after", "message": "3 records are not applied yet", "lag": 3}}
    with pytest.raises(Behind, match="3 records") as behind:
        await ask(FakeTransport(Reply(504, json.dumps(body).encode(), retry_after=1.0)))
    assert behind.value.lag == 3


@pytest.mark.parametrize("url", ["fake:1", "ftp://fake", "http://", "http://h:0", "http://h:x", "http://h/?q=1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="url: must be http"):
        Client(url)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("inf")}, {"connections": 0}])
def test_what_would_wait_for_ever_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="must be more than nothing"):
        Client("http://fake", **options)


def test_no_password_of_a_url_is_in_an_error() -> None:
    with pytest.raises(RequestError) as refused:
        Client("http://user:hunter2@host:0")
    assert "hunter2" not in str(refused.value)


def test_every_error_of_the_client_is_drawn() -> None:
    from stillwell import errors
    from stillwell.client import errors as own

    drawn = {
        word
        for line in (own.__doc__ or "").splitlines()
        for word in line.replace("│", " ").split()[1:2]
        if "──" in line
    }
    defined = {
        name
        for name, each in vars(own).items()
        if isinstance(each, type) and issubclass(each, ClientError) and each.__module__ == own.__name__
    }
    assert drawn == defined | {"RequestError", "NotDefined"}
    assert issubclass(ClientError, errors.StillwellError)
