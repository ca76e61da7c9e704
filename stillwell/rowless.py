"""Why records were consumed, and no rows came of them, or none that anybody can read."""

import datetime
from collections.abc import Mapping

from stillwell.counting import lasting
from stillwell.spec import ViewSpec


def explanation(view: str, why_without: Mapping[str, int], causes: Mapping[str, str]) -> str:
    """What became of the records of a view that got no row, how many of each, and what to look at.

    why_without: how many records gave none, by `filtered` or the reason of a reject; causes: of this view.
    """
    by_count = sorted(why_without.items(), key=lambda each: -each[1])
    lines = (
        f"  {count:>9,} {'' if why == 'filtered' else 'rejected, '}{why}: {causes.get(why, '')}"
        for why, count in by_count
    )
    return "\n".join((f"No record gave {view} a row:", *lines))


def counts_from(view: ViewSpec, now: datetime.datetime) -> datetime.datetime | None:
    """The event time from which on a row counts for readers; None where each does."""
    if not view.ttl:
        return None
    try:
        return now - view.ttl
    except OverflowError:  # a TTL of millennia, for ever in other words: it reaches beyond the years that there are
        return None


def why_too_old(view: ViewSpec) -> str:
    """What to look at where a view got rows, and each has outlived its TTL."""
    return (
        f"No row counts any more, by {view.source.event_time} and {view.name}'s ttl of {lasting(view.ttl)}: who reads "
        "finds none. Has the time the right unit?"
    )


def causes(view: ViewSpec) -> Mapping[str, str]:
    """What it mostly is, by each reason for which a record gives no row."""
    name, topic, event_time = view.name, view.source.name, view.source.event_time
    keys = " or ".join(key.name for key in view.entity.keys)
    where, function = f"{name}'s where is not true of them", f"the function of {name} made no row of them"
    if view.rows is None and view.frame is None:
        filtered = where
    else:
        filtered = function if view.where is None else f"{where}, or {function}"
    return {
        "filtered": filtered,
        "decode": f"they are not what {topic} declares; compare its columns with a record",
        "null_value": f"they have no value, which deletes for some topics, and for {topic} does not",
        "expectation": f"they break a rule of {topic}'s columns",
        "event_time": f"{event_time} lies outside the years 1684 to 2255; has it the right unit?",
        "future": f"{event_time} is more than STILLWELL_MAX_FUTURE past the record's timestamp; has it the right unit?",
        "null_key": f"{keys} came out null; map it to what never is, or leave such events out by where",
        "null_feature": "a feature came out null that is declared never to be; fill it, or add `| None`",
        "null_element": "a feature came out as a list that holds a null; leave the nulls out, or fill them",
        "too_long": "their rows have more than a mebibyte; take less of them",
        "transform": f"an expression or the function of {name} failed on them",
    }
