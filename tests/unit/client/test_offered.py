"""What a query service offers, for who asks by names alone: as its own document says it."""

import re

import pytest

from serving import described, v1
from serving.as_json import encode
from serving.limits import Limits
from serving.messages import Request
from serving.openapi import Names, document
from serving.web import Page
from stillwell.client import Retries, TimedOut
from stillwell.client.offered import Offered
from stillwell.client.service import Service
from stillwell.client.transport import Reply
from stillwell.errors import NotDefined, RequestError
from stillwell.types import STRING
from tests.fake_service import FakeTransport, refusal

FEATURES = ("LastOrder:amount", "LastOrder:large", "Risk:score", "LastOrders:count")


async def nothing(request: Request) -> bytes:
    """What a page answers that nobody asks."""
    return b""


def its_document(services: tuple[str, ...] = ("Daily",)) -> bytes:
    """Of a service with these features."""
    names = Names(FEATURES, services, {"customer": STRING}, (), Limits(10, 10, 10))
    page = Page("GET", "/v1/features", nothing, v1.error_body, described=described.features_of_one(names))
    return encode(document([page], {}))


def offered(services: tuple[str, ...] = ("Daily",)) -> Offered:
    """Of a service with these features."""
    return Offered(its_document(services))


def test_a_name_stands_for_all_that_it_has() -> None:
    assert offered().asked(["LastOrder"]) == (["LastOrder:amount", "LastOrder:large"], None)
    assert offered().asked(["Risk", "LastOrder:large", "LastOrder"]) == (
        ["Risk:score", "LastOrder:large", "LastOrder:amount"],
        None,
    )
    assert offered().asked(["Daily"]) == ((), "Daily")


def test_what_is_not_there_is_told_with_what_is_near() -> None:
    with pytest.raises(NotDefined, match=r"there is no view 'LastOrdr'; did you mean 'LastOrder'\?"):
        offered().asked(["LastOrdr"])
    with pytest.raises(NotDefined, match="there is no view 'Daily'; there is LastOrder, LastOrders, Risk"):
        offered(services=()).asked(["Daily"])
    with pytest.raises(RequestError, match="customer: has no value; write customer=…"):
        offered().asked(["Risk", "customer"])
    with pytest.raises(RequestError, match="feature_service: Daily is asked for alone, without features beside it"):
        offered().asked(["Daily", "Risk:score"])


async def test_to_find_out_and_to_ask_is_one_call_with_one_deadline() -> None:
    """What is offered comes a tenth of a second late, and features never."""
    late = refusal(503, "StoreUnavailable", "Redis is away", retry_after=0.1)
    transport = FakeTransport(late, Reply(200, its_document()), None)
    service = Service(transport, "http://fake", Retries(attempts=3, first=0.001, longest=0.001))
    with pytest.raises(TimedOut) as refused:
        await service.features_of_text(["LastOrder"], {"customer": "a"}, (), 0.5)
    left = re.search(r"no answer within ([0-9.]+) s", str(refused.value))
    assert left
    assert 0 < float(left[1]) <= 0.4
    assert [each.path.partition("?")[0] for each in transport.sent] == ["/openapi.json"] * 2 + ["/v1/features"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"paths": []}', b'"text"'])
def test_what_is_no_document_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="does not say which features there are"):
        Offered(body)
