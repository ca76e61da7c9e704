"""What `stillwell dev` shows: lines that scroll by, and on a terminal a few at the bottom that stay."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stillwell.cli.values import printable, shown

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_LINES_A_SECOND = 20
"""Rows and rejects that are shown; nobody reads more."""

_STATUS_S = 2.0
"""Seconds between two status lines where they cannot stay in their place."""


class Screen:
    """For a `with` block."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._room = float(_LINES_A_SECOND)
        self._room_at = time.monotonic()
        self._skipped = 0
        self._status: list[str] = []
        self._status_at = 0.0

    def __enter__(self) -> "Self":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", traceback: "TracebackType | None"
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line, or several."""
        self._console.print(Text(printable(text), style=style))

    def told(self, told: Mapping[str, Any]) -> None:
        """Some of the rows and rejects of a round of batches, as far as there is room."""
        for name, view in told["views"].items():
            for row in view["sample"]:
                self._show(_row(name, row), "")
            self._skipped += max(0, view["rows"] - len(view["sample"]))
        for reject in told["rejects"]:
            self._show(_reject(told["topic"], reject), "yellow")

    def status(self, lines: Sequence[str]) -> None:
        """How things stand."""
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.update(Text("\n".join([*lines, "Ctrl-C ends"]), style="dim"))
        elif lines != self._status and now - self._status_at > _STATUS_S:
            self._status, self._status_at = list(lines), now
            self.say("\n".join(lines))

    def _show(self, text: str, style: str) -> None:
        now = time.monotonic()
        self._room = min(_LINES_A_SECOND, self._room + (now - self._room_at) * _LINES_A_SECOND)
        self._room_at = now
        if self._room < 1:
            self._skipped += 1
            return
        self._room -= 1
        if self._skipped:
            self.say(f"… and {self._skipped:,} more", "dim")
            self._skipped = 0
        self.say(text, style)


def _row(view: str, row: Mapping[str, Any]) -> str:
    values = {name: value for name, value in row.items() if not name.startswith("_")}
    said = ", ".join(f"{name}={shown(value)}" for name, value in values.items())
    return f"{view}  {said}  ({row['_partition']}/{row['_offset']})"


def _reject(topic: str, reject: Mapping[str, Any]) -> str:
    whom = f" for {reject['view']}" if reject["view"] else ""
    place = f"{topic} {reject['partition']}/{reject['offset']}"
    return f"rejected{whom}, {reject['reason']}: {reject['error']}\n    {place}  {reject['excerpt']}"
