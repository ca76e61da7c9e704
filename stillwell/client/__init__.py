"""The client: features read back, through the query service or straight from the store.

    from stillwell import Client

    async with Client("http://127.0.0.1:6566") as client:
        found = await client.features(["AirportDepartures:late"], {"airport": ["JFK", "LGA"]})

What is promised is in `__all__`; the modules are private. Importing it loads neither an HTTP library nor Arrow: that is
done when they are first used.
"""

from stillwell.client.client import Client
from stillwell.client.errors import (
    Behind,
    ClientError,
    Closed,
    Failure,
    NotReady,
    NotWritten,
    PartlyPushed,
    PushFailed,
    RowRejected,
    TimedOut,
    Unavailable,
    Unconfirmed,
    Unsupported,
    WrongAnswer,
)
from stillwell.client.predictions import Input, Prediction, Predictions, PredictionState, Refresh
from stillwell.client.pushed import Pushed, PushedRow
from stillwell.client.pusher import Pusher, Receipt
from stillwell.client.results import Column, Features, Provenance, Row, Value
from stillwell.client.retrying import Retries
from stillwell.client.sync import SyncClient, SyncPusher, SyncReceipt
from stillwell.errors import NotDefined, RequestError
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token
from stillwell.reading.status import Freshness, Status

__all__ = [
    "Behind",
    "Client",
    "ClientError",
    "Closed",
    "Column",
    "Failure",
    "Features",
    "Freshness",
    "Input",
    "NotDefined",
    "NotReady",
    "NotWritten",
    "PartlyPushed",
    "Prediction",
    "PredictionState",
    "Predictions",
    "Provenance",
    "PushFailed",
    "PushStatus",
    "Pushed",
    "PushedRow",
    "Pusher",
    "Receipt",
    "Refresh",
    "RequestError",
    "Retries",
    "Row",
    "RowRejected",
    "Status",
    "SyncClient",
    "SyncPusher",
    "SyncReceipt",
    "TimedOut",
    "Token",
    "Unavailable",
    "Unconfirmed",
    "Unsupported",
    "Value",
    "WrongAnswer",
]
