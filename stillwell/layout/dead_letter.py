"""How a rejected record lies in the dead-letter topic.

Key, value and headers are the record's own, byte for byte; what Stillwell has to say is in ten headers behind them,
always the same ones in the same order, so that a record which was a dead letter before keeps what it said then. The
record's timestamp is in a header too: as the dead letter's own timestamp it would put an old record under the topic's
retention at once. One dead letter is one reject, so a record that two views refuse makes two. A crash may repeat some;
coordinates and view tell which are the same.
"""

import dataclasses
from collections.abc import Iterator

from stillwell.records import Headers, Outcome

PREFIX = "stillwell."
FORMAT = "1"
_OURS = (
    "format",
    "topic",
    "incarnation",
    "partition",
    "offset",
    "timestamp",
    "view",
    "reason",
    "error",
    "by-reference",
)


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A reject with its record.

    view: the view that refused the record, or None for all. timestamp: the record's, in milliseconds. by_reference: the
    record was too large to be repeated here. Its value is left out, and where that is not enough, its key and headers;
    the raw archive has them under the same coordinates.
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
    """The headers of a dead letter: the record's own, then ours. Null stands for all views, or not by reference."""
    says = (
        FORMAT,
        letter.topic,
        str(letter.incarnation),
        str(letter.partition),
        str(letter.offset),
        str(letter.timestamp),
        letter.view,
        letter.reason,
        letter.error,
        "1" if letter.by_reference else None,
    )
    # An error may quote what is no text; that must not stop its record from getting through.
    ours = (None if text is None else text.encode(errors="backslashreplace") for text in says)
    return [*letter.headers, *((f"{PREFIX}{name}", content) for name, content in zip(_OURS, ours, strict=True))]


def read_dead_letter(key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter | None:
    """Back from a record of the dead-letter topic; None for one that is not ours, or of another format."""
    names = [name for name, _ in headers]
    first = max((place for place, name in enumerate(names) if name == f"{PREFIX}{_OURS[0]}"), default=len(names))
    behind = first + len(_OURS)
    if names[first:behind] != [f"{PREFIX}{name}" for name in _OURS]:
        return None
    says = [None if content is None else content.decode(errors="replace") for _, content in headers[first:behind]]
    form, topic, incarnation, partition, offset, timestamp, view, reason, error, by_reference = says
    if form != FORMAT:
        return None
    try:
        return DeadLetter(
            topic=topic or "",
            incarnation=int(incarnation or ""),
            partition=int(partition or ""),
            offset=int(offset or ""),
            timestamp=int(timestamp or ""),
            view=view,
            reason=reason or "",
            error=error or "",
            key=key,
            value=value,
            headers=(*headers[:first], *headers[behind:]),
            by_reference=by_reference is not None,
        )
    except ValueError:
        return None
