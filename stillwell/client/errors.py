"""Every error of the client, whether it reads through the service or straight from the store. The tree:

StillwellError
├── RequestError             the request is wrong: `field` names the part, the message what to do
│   └── NotDefined           it names what the definitions do not have
└── ClientError              the request may be right, but there is no answer that could be used
    ├── Unavailable          it was refused for now, and nothing was done; `retry_after` says when to ask again
    │   └── NotReady         … because the store may have lost rows, until somebody runs `stillwell rebuild`
    ├── Behind               what `after` names is not applied yet; `lag` says how many records are missing
    ├── TimedOut             no answer within the time that the caller gave; a read that may be asked again
    ├── NotWritten           a push is in Kafka, and not in Redis yet; `token` names it, for a read to wait for
    ├── Unconfirmed          a push got no answer, or none that says: the rows may have been taken, or not
    ├── PartlyPushed         a push in parts failed after some: `pushed` has what became of those, `error` the failure
    ├── PushFailed           rows that were handed to a pusher did not get through: `failures` has each with its error
    ├── RowRejected          a row was refused, and the others of its batch were not
    ├── Unsupported          this way of reading cannot do it
    ├── Closed               the client, or the pusher, was closed: make another one
    └── WrongAnswer          what answered is no query service of this version: a wrong URL, or a proxy between

`RequestError` and `NotDefined` are those of `stillwell.errors`, as is `FormatError`: a stored row is of a version that
whoever read it does not know.
"""

from collections.abc import Mapping
from typing import NamedTuple

from stillwell.client.pushed import Pushed
from stillwell.counting import counted
from stillwell.errors import StillwellError
from stillwell.pushing.token import Token


class ClientError(StillwellError):
    """The root of the client's own errors."""


class Unavailable(ClientError):
    """Nothing was done, for certain; asking again later may work. retry_after: in so many seconds, if anybody said."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(Unavailable):
    """The online store answers, but may have lost rows: nothing is read from it until `stillwell rebuild`."""


class Behind(ClientError):
    """What was pushed is not applied yet. lag: how many records are still to be taken in, as far as is known."""

    def __init__(self, message: str, lag: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.lag = lag
        self.retry_after = retry_after


class TimedOut(ClientError):
    """No answer came within the time that the caller gave, and nothing was changed by asking."""


class NotWritten(ClientError):
    """Kafka holds what was pushed, and a worker will put it into Redis; the service could not. Do not push it again."""

    def __init__(self, message: str, token: Token | None = None) -> None:
        super().__init__(message)
        self.token = token


class Unconfirmed(ClientError):
    """A push was sent, and no answer came that says what became of it: push again, with the same idempotency key if it
    had one."""


class RowRejected(ClientError):
    """A row cannot be used. reason: the word for it, as dead letters have it."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Failure(NamedTuple):
    """A row that did not get through, and why."""

    row: Mapping[str, object]
    error: StillwellError


class PartlyPushed(ClientError):
    """A push in parts failed after some of them. pushed: what became of their rows, which are the first ones; error: of
    the next part. Later ones were not sent."""

    def __init__(self, pushed: Pushed, error: StillwellError) -> None:
        super().__init__(f"the first {len(pushed.rows)} rows were pushed; then: {error}")
        self.pushed = pushed
        self.error = error


class PushFailed(ClientError):
    """Rows that were handed to a pusher did not get through."""

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        said = "; ".join(dict.fromkeys(str(failure.error) for failure in failures[:100]))
        super().__init__(f"not pushed: {counted(len(failures), 'row')}: {said}")
        self.failures = failures


class Unsupported(ClientError):
    """This way of reading cannot do what was asked."""


class Closed(ClientError):
    """What was to do it was closed, before or meanwhile."""


class WrongAnswer(ClientError):
    """What answered speaks another language: the URL leads elsewhere, or something between changes answers."""
