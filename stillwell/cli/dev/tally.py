"""What became of records since the worker started. Pure: told lines come in, and the time."""

import collections
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from stillwell.rowless import explanation

_RATE_S = 5.0
"""Seconds over which a rate is taken."""

_QUIET_S = 2.0
"""Seconds without a record after which it is explained why a view has no row: what is on its way may give one."""

_MANY = 1_000
"""Records after which that is explained though more keep coming."""


@dataclasses.dataclass(slots=True)
class ViewTally:
    """What a view made of its topic's records."""

    topic: str
    causes: Mapping[str, str]
    why_too_old: str
    rows: int = 0
    too_old: int = 0
    filtered: int = 0
    rejected: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    explained: bool = False


class Tally:
    """Counts by topic and view."""

    def __init__(self, views: Mapping[str, Mapping[str, Any]]) -> None:
        """views: the worker's first line."""
        self.views = {name: ViewTally(view["topic"], view["causes"], view["too_old"]) for name, view in views.items()}
        self.records: Counter[str] = Counter({view.topic: 0 for view in self.views.values()})
        self._recent: collections.deque[tuple[float, int]] = collections.deque()
        self._last: dict[str, float] = {}

    def take(self, told: Mapping[str, Any], now: float) -> None:
        """A round of batches. now: seconds by a clock that does not go back."""
        self.records[told["topic"]] += told["records"]
        self._recent.append((now, told["records"]))
        self._last[told["topic"]] = now
        for_all: Mapping[str, int] = told["reasons"].get("*", {})
        for name, counts in told["views"].items():
            view = self.views[name]
            view.rows += counts["rows"]
            view.too_old += counts["too_old"]
            view.filtered += counts["filtered"]
            view.rejected += counts["rejected"]
            view.reasons.update(for_all)
            view.reasons.update(told["reasons"].get(name, {}))

    def rate(self, now: float) -> float:
        """Records a second, of late."""
        while self._recent and self._recent[0][0] < now - _RATE_S:
            self._recent.popleft()
        return sum(count for _, count in self._recent) / _RATE_S

    def explanations(self, now: float) -> list[str]:
        """Of each view whose topic has had records and that has no row, or none that counts: why. Once for each."""
        told = []
        for name, view in self.views.items():
            seen = view.rows + view.filtered + view.rejected
            settled = now - self._last.get(view.topic, now) > _QUIET_S or seen > _MANY
            if seen and view.rows == view.too_old and settled and not view.explained:
                view.explained = True
                told.append(_why_nothing_is_read(name, view))
        return told

    def lines(self, now: float) -> list[str]:
        """All of it, a line for each topic and view."""
        rate = self.rate(now)
        told = []
        for topic, count in self.records.items():
            views = {name: view for name, view in self.views.items() if view.topic == topic}
            if not views and not count:
                continue
            told.append(f"{topic}: {count:,} records" + (f", {rate:,.0f}/s in all" if rate else ""))
            told += [f"  {name}: {_counted(view)}" for name, view in views.items()]
        return told


def _why_nothing_is_read(name: str, view: ViewTally) -> str:
    if view.rows:
        return view.why_too_old
    filtered = {"filtered": view.filtered} if view.filtered else {}
    return explanation(name, {**filtered, **view.reasons}, view.causes)


def _counted(view: ViewTally) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in view.reasons.most_common())
    why = f" ({reasons})" if reasons else ""
    return f"{view.rows:,} rows, {view.filtered:,} filtered, {view.rejected:,} rejected{why}"
