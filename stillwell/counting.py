"""How numbers of things, and lengths of time, are told in sentences. It imports nothing heavy: the client tells too."""

import datetime


def counted(count: int, one: str, several: str = "") -> str:
    """So many things: `1 row`, `2 rows`, `12,000 rows`. several: where it is more than an s behind `one`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def lasting(span: datetime.timedelta) -> str:
    """A length of time, as people say it and exactly: `90 days`, `1 hour 30 minutes`, `41.25 seconds`."""
    left = abs(span)
    said = []
    for unit, length in _LENGTHS:
        number, left = divmod(left, length)
        if number:
            said.append(counted(number, unit))
    if left or not said:
        seconds = f"{left.total_seconds():.6f}".rstrip("0").rstrip(".")
        said.append(f"{seconds} second{'' if seconds == '1' else 's'}")
    return ("-" if span < datetime.timedelta(0) else "") + " ".join(said)


def lasting_about(span: datetime.timedelta) -> str:
    """The same to the second: how old something is, of which more digits say nothing."""
    return lasting(datetime.timedelta(seconds=round(span.total_seconds())))


_LENGTHS = (
    ("day", datetime.timedelta(days=1)),
    ("hour", datetime.timedelta(hours=1)),
    ("minute", datetime.timedelta(minutes=1)),
)
