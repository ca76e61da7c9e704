"""A push, and what becomes of it. `stillwell.pushing.status` says what may have become of a row."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token

Mode = Literal["sync", "async"]
"""sync: answered once the rows are in Redis. async: answered once Kafka holds them."""

To = Literal["online", "offline", "online_and_offline"]

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class PushedRow:
    """What became of one row. reason, message: why it was rejected; the reason is the word that dead letters have."""

    status: PushStatus
    reason: str | None = None
    message: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What became of the rows of a push, in their order. token: hand it to a read, as `after`, that must see them; None
    where all were rejected."""

    token: Token | None
    rows: tuple[PushedRow, ...]

    @property
    def rejected(self) -> tuple[int, ...]:
        """The rows, by their number, that cannot be used."""
        return tuple(number for number, row in enumerate(self.rows) if row.status is PushStatus.REJECTED)


@dataclasses.dataclass(frozen=True, slots=True)
class Pushing:
    """A request to push. rows: each as JSON."""

    view: str
    rows: tuple[msgspec.Raw, ...]
    mode: Mode
    to: To
    transform_on_write: bool
    idempotency_key: str | None


def together(one: Token | None, other: Token | None) -> Token | None:
    """The token of two pushes to one view."""
    if one is None or other is None:
        return one or other
    if one.incarnation != other.incarnation:
        # The topic was made anew: what the older one had cannot be waited for any more.
        return max(one, other, key=lambda token: token.incarnation)
    places = (*one.offsets.items(), *other.offsets.items())
    joined = Token.of_places(one.view, one.incarnation, places)
    return joined.applied(one.epoch) if one.epoch is not None and one.epoch == other.epoch else joined
