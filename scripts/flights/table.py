"""The live table: what was seen, for people. Redrawn in place on a terminal, a line every few seconds elsewhere."""

import dataclasses
import datetime
import itertools
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scripts.flights.model import MODEL
from scripts.flights.observe import Look

WIDTH = 96
_RATE_OVER = 3.0

STATES = ("FRESH", "STALE", "MISSING", "FAILED")
"""Of predictions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """How far the feed is: records sent and to be sent, by topic those sent, and the time of the latest event."""

    count: int
    total: int
    by_topic: Mapping[str, int]
    until: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn. before: an earlier look, to tell rates from; note: what goes on, in a few words; read: of how many
    routes a reader finds the prediction in which state, None where there is no model."""

    elapsed: float
    sent: Sent
    look: Look
    before: Look
    note: str
    read: Mapping[str, int] | None = None

    @property
    def lag(self) -> int:
        """Records sent whose rows are not in Redis yet."""
        return self.sent.count - sum(topic.served for topic in self.look.topics.values())

    @property
    def rejected(self) -> int:
        """Records refused."""
        return sum(topic.rejected for topic in self.look.topics.values())

    def rate(self, topic: str | None = None) -> float:
        """Records a second that the workers took in lately, of one topic or of all."""
        topics = [topic] if topic else list(self.look.topics)
        taken_in = sum(self.look.topics[each].taken_in - self.before.topics[each].taken_in for each in topics)
        return taken_in / max(self.look.at - self.before.at, 0.1)

    def freshness(self, part: float, view: str | None = None) -> float | None:
        """Within how many seconds that part of the latest rows became servable; None where there were none."""
        views = [view] if view else list(self.look.views)
        return quantile(part, [_latest(self, each) for each in views])

    def refreshed(self, part: float) -> float | None:
        """Within how many seconds of a hint that part of the latest predictions was there; None where none was."""
        return quantile(part, [_since(self.before.model.refreshed, self.look.model.refreshed)])


def _latest(scene: Scene, view: str) -> dict[float, float]:
    return _since(scene.before.views[view].servable, scene.look.views[view].servable)


def _since(before: Mapping[float, float], now: Mapping[float, float]) -> dict[float, float]:
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def quantile(part: float, histograms: Sequence[Mapping[float, float]]) -> float | None:
    """Below which value that part of all observations lies, as Prometheus estimates it from cumulative counts."""
    bounds = sorted({bound for histogram in histograms for bound in histogram})
    counts = [sum(histogram.get(bound, 0.0) for histogram in histograms) for bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    wanted = part * counts[-1]
    below_bound = below_count = 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if bound == float("inf"):
                return below_bound
            return below_bound + (bound - below_bound) * (wanted - below_count) / (count - below_count)
        below_bound, below_count = bound, count
    return below_bound


class History:
    """Looks of the last few seconds, so that rates do not jump with every look."""

    def __init__(self) -> None:
        self._looks: list[Look] = []

    def add(self, look: Look) -> Look:
        """Take note of a look; gives the one that rates are told from."""
        self._looks = [*(each for each in self._looks if look.at - each.at <= _RATE_OVER), look]
        return self._looks[0]


def line(scene: Scene) -> str:
    """One line, for where nothing can be redrawn."""
    entities = sum(view.entities for view in scene.look.views.values())
    rows = sum(view.rows for view in scene.look.views.values())
    return (
        f"  {clock(scene.elapsed)}  sent {scene.sent.count:,}  {scene.rate():,.0f}/s  lag {scene.lag:,}  "
        f"fresh in {seconds(scene.freshness(0.5))}  Redis {entities:,}  Parquet {rows:,}  rejected {scene.rejected:,}"
    )


def line_of_model(scene: Scene) -> str:
    """One line more: how predictions are. Only where there is a model."""
    model = scene.look.model
    read = scene.read or {}
    states = ", ".join(f"{state.lower()} {read.get(state, 0)}" for state in STATES)
    computed, p50 = model.became["computed"], seconds(scene.refreshed(0.5))
    return f"        predictions {computed:,}  calls {model.calls:,}  p50 {p50}  {states}"


def draw(scene: Scene) -> RenderableType:
    """The whole picture."""
    gap = Text()
    parts = [_headline(scene), _topics(scene), _views(scene), _workers(scene)]
    if scene.read is not None:
        parts[3:3] = [_model(scene), _read(scene.read)]
    return Group(gap, *itertools.chain.from_iterable((part, gap) for part in parts))


def _headline(scene: Scene) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(total=scene.sent.total, completed=scene.sent.count)
    grid.add_row(f"  {scene.sent.until:%d %b %Y}", bar, f"{scene.note}  {clock(scene.elapsed)}  ")
    return grid


def _topics(scene: Scene) -> RenderableType:
    table = _table("topic", "sent", "events/s", "lag", "not linked", "rejected")
    for topic, seen in scene.look.topics.items():
        sent = scene.sent.by_topic.get(topic, 0)
        table.add_row(
            f" {topic}",
            f"{sent:,}",
            f"{scene.rate(topic):,.0f}",
            f"{max(sent - seen.served, 0):,}",
            f"{max(sent - seen.linked, 0):,}",
            f"{seen.rejected:,}",
        )
    return table


def _views(scene: Scene) -> RenderableType:
    table = _table("view", "in Redis", "in Parquet", "servable p50", "p99")
    for view, seen in scene.look.views.items():
        table.add_row(
            f" {view}",
            f"{seen.entities:,}",
            f"{seen.rows:,}",
            seconds(scene.freshness(0.5, view)),
            seconds(scene.freshness(0.99, view)),
        )
    return table


def _model(scene: Scene) -> RenderableType:
    table = _table("predictions", "hints", "computed", "were fresh", "failed", "calls", "p50", "in Parquet")
    model = scene.look.model
    table.add_row(
        f" {MODEL}",
        f"{model.hints:,}",
        f"{model.became['computed']:,}",
        f"{model.became['fresh']:,}",
        f"{model.failed:,}",
        f"{model.calls:,}",
        seconds(scene.refreshed(0.5)),
        f"{model.rows:,}",
    )
    return table


def _read(read: Mapping[str, int]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    styles = {"FRESH": "green", "STALE": "yellow", "MISSING": "dim", "FAILED": "red"}
    texts = [Text(f"{read.get(state, 0)} {state}", styles[state]) for state in STATES]
    grid.add_row(f"  {sum(read.values())} routes, as readers find them:", *texts)
    return grid


def _workers(scene: Scene) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for worker in (*scene.look.workers, scene.look.service):
        if worker.pid is None:
            state = Text("killed by -9", "bold red")
        elif worker.ready:
            holds = f", {worker.partitions} partitions" if worker is not scene.look.service else ""
            state = Text(f"process {worker.pid}{holds}", "green")
        else:
            state = Text(f"process {worker.pid}, not ready", "yellow")
        grid.add_row(f"  {worker.name}", state)
    return grid


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, expand=True, padding=(0, 1), header_style="bold")
    table.add_column(f" {first}", ratio=1, min_width=19, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", min_width=8, no_wrap=True)
    return table


def clock(elapsed: float) -> str:
    """Minutes and seconds."""
    return f"{int(elapsed) // 60:d}:{int(elapsed) % 60:02d}"


def seconds(duration: float | None) -> str:
    """A duration in few characters: `85 ms`, `2.3 s`."""
    if duration is None:
        return "-"
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.1f} s"
