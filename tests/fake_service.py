"""A network for the client that fits on a page: it keeps what was sent, and gives each reply or failure in its turn."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from stillwell.client.transport import JSON, NoReply, NotSent, Reply


class Sent(NamedTuple):
    """One request."""

    method: str
    path: str
    body: Any


class FakeTransport:
    """Gives `replies` one after the other; the last again and again. An exception is raised, and None never answers."""

    def __init__(self, *replies: Reply | NotSent | NoReply | None) -> None:
        self._replies = list(replies)
        self.sent: list[Sent] = []
        self.closed = False

    async def send(self, method: str, path: str, body: bytes | None, accept: str = JSON) -> Reply:
        """See `stillwell.client.transport.Transport`."""
        self.sent.append(Sent(method, path, json.loads(body) if body else None))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if reply is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(reply, Exception):
            raise reply
        assert reply is not None
        return reply

    async def close(self) -> None:
        """See `stillwell.client.transport.Transport`."""
        self.closed = True


def reply(body: object, status: int = 200, retry_after: float | None = None) -> Reply:
    """A reply in JSON."""
    return Reply(status, json.dumps(body).encode(), retry_after=retry_after)


def refusal(status: int, kind: str, message: str, field: str | None = None, retry_after: float | None = None) -> Reply:
    """A reply that words an error."""
    return reply({"error": {"kind": kind, "field": field, "message": message}}, status, retry_after)


def feature(kind: str, *values: object, **more: object) -> Mapping[str, object]:
    """One feature of an answer, all PRESENT unless said otherwise."""
    return {
        "type": kind,
        "values": values,
        "statuses": ["PRESENT"] * len(values),
        "event_times": ["2026-01-01T00:00:00Z"] * len(values),
        "ages_s": [1.5] * len(values),
        "freshness": [None] * len(values),
        **more,
    }
