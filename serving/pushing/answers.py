"""What a push is answered: tokens, and what became of each row."""

from collections.abc import Sequence
from typing import Any

from serving.answers import encode
from serving.pushing.batch import Refusal
from serving.pushing.pusher import Written


def accepted(written: Written, rows: int) -> bytes:
    """Of rows that Kafka has acknowledged."""
    return encode({"token": str(written.token) if written.token else None, "accepted": rows})


def done(written: Written) -> bytes:
    """Of rows that were written to Redis, or are the reason why not."""
    return encode(
        {
            "token": str(written.token) if written.token else None,
            "statuses": written.statuses,
            "rejects": _rejects(written.refusals),
        }
    )


def _rejects(refusals: Sequence[Refusal]) -> list[dict[str, Any]]:
    return [{"row": each.row, "reason": each.reason, "message": each.error} for each in refusals]
