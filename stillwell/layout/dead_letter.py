"""How a rejected record lies in the dead-letter topic.

Key, value and headers are the record's own, byte for byte; what Stillwell has to say is in headers behind them, whose
names begin with `stillwell.`. The record's timestamp is in a header too: as the dead letter's own timestamp it would
put an old record under the topic's retention at once. One dead letter is one reject, so a record that two views refuse
makes two. A crash may repeat some; coordinates and view tell which are the same.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from stillwell.records import Headers, Outcome

PREFIX = "stillwell."


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A reject with its record.

    view: the view that refused the record, or None for all. timestamp: the record's, in milliseconds. by_reference: the
    value was too large to be repeated here and is left out; the raw archive has it under the same coordinates.
    """

    topic: str
    incarnation: int
    partition: int
    offset: int
    timestamp: int
    view: str | None
    reason: str
    error: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    by_reference: bool = False


def dead_letters(outcome: Outcome, incarnation: int, largest_value: int) -> Iterator[DeadLetter]:
    """The rejects of a batch, in order. Values of more bytes than `largest_value` go by reference."""
    records = outcome.records
    place = {offset: index for index, offset in enumerate(records.offsets.tolist())} if outcome.rejects else {}
    for reject in outcome.rejects:
        at = place[reject.offset]
        value = records.values[at]
        by_reference = value is not None and len(value) > largest_value
        yield DeadLetter(
            topic=records.topic,
            incarnation=incarnation,
            partition=records.partition,
            offset=reject.offset,
            timestamp=int(records.timestamps[at]),
            view=reject.view,
            reason=reject.reason,
            error=reject.error,
            key=records.keys[at],
            value=None if by_reference else value,
            headers=records.headers[at],
            by_reference=by_reference,
        )


def headers_of(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: the record's own, then ours."""
    ours = {
        "topic": letter.topic,
        "incarnation": str(letter.incarnation),
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "timestamp": str(letter.timestamp),
        "view": letter.view or "",
        "reason": letter.reason,
        "error": letter.error,
        "by-reference": "1" if letter.by_reference else "",
    }
    return [*letter.headers, *((f"{PREFIX}{name}", text.encode()) for name, text in ours.items() if text)]


def read_dead_letter(key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter | None:
    """Back from a record of the dead-letter topic; None for one that is not ours."""
    ours: Mapping[str, str] = {
        name.removeprefix(PREFIX): (content or b"").decode(errors="replace")
        for name, content in headers
        if name.startswith(PREFIX)
    }
    try:
        return DeadLetter(
            topic=ours["topic"],
            incarnation=int(ours["incarnation"]),
            partition=int(ours["partition"]),
            offset=int(ours["offset"]),
            timestamp=int(ours["timestamp"]),
            view=ours.get("view"),
            reason=ours["reason"],
            error=ours["error"],
            key=key,
            value=value,
            headers=tuple((name, content) for name, content in headers if not name.startswith(PREFIX)),
            by_reference="by-reference" in ours,
        )
    except (KeyError, ValueError):
        return None
