"""What a query service offers, for who asks by names alone: as its own document says it."""

import pytest

from serving import described, v1
from serving.as_json import encode
from serving.limits import Limits
from serving.messages import Request
from serving.openapi import Names, document
from serving.web import Page
from stillwell.client.offered import Offered
from stillwell.errors import NotDefined, RequestError
from stillwell.types import STRING

FEATURES = ("LastOrder:amount", "LastOrder:large", "Risk:score", "LastOrders:count")


async def nothing(request: Request) -> bytes:
    """What a page answers that nobody asks."""
    return b""


def offered(services: tuple[str, ...] = ("Daily",)) -> Offered:
    """Of a service with these features."""
    names = Names(FEATURES, services, {"customer": STRING}, (), Limits(10, 10, 10))
    page = Page("GET", "/v1/features", nothing, v1.error_body, described=described.features_of_one(names))
    return Offered(encode(document([page], {})))


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


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"paths": []}', b'"text"'])
def test_what_is_no_document_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="does not say which features there are"):
        Offered(body)
