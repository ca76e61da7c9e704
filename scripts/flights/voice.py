"""What the demo says, line by line."""

import contextlib
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.status import Status

from scripts.flights import table

_GOOD = "[bold green]✓[/]"
_BAD = "[bold red]✗[/]"

_LINE_EVERY = 5.0

LOOK_FURTHER = (
    "stillwell get AirportDepartures airport=JFK",
    "stillwell get RouteDepartures origin=JFK dest=SFO",
    "stillwell dlq list --limit 3",
    "stillwell verify",
    "stillwell doctor",
)


class Voice:
    """Speaks to a terminal, or to whatever standard output is."""

    def __init__(self) -> None:
        terminal = Console(highlight=False)
        width = min(terminal.width, table.WIDTH) if terminal.is_terminal else table.WIDTH
        self._out = Console(highlight=False, width=width)
        self._redraws = terminal.is_terminal and not terminal.is_dumb_terminal

    def say(self, text: str) -> None:
        """A paragraph, in rich's markup; what is longer than a line goes on in the next."""
        self._out.print(text, soft_wrap=True)

    def good(self, what: str, since: float | None = None) -> None:
        """Something is done; since: when it was begun."""
        self._with_sign(_GOOD, what, since)

    def bad(self, what: str, since: float | None = None) -> None:
        """Something went wrong."""
        self._with_sign(_BAD, what, since)

    def more(self, what: str) -> None:
        """More on what was said before."""
        self._out.print(f"    [dim]{what}[/]")

    def working(self, what: str) -> Status:
        """Shows that something is under way, where that can be shown, within a `with`."""
        return self._out.status(what)

    @contextlib.contextmanager
    def picture(self) -> Iterator["Picture"]:
        """The live table, within a `with`. What is said meanwhile stands above it."""
        if self._redraws:
            with Live(console=self._out, auto_refresh=False) as live:
                yield Picture(self._out, live)
        else:
            yield Picture(self._out, None)

    def failure(self, words: str) -> None:
        """Why the demo ends before its time."""
        self.say(f"\n  {_BAD} {escape(words)}\n")

    def disagreement(self, wrong: Sequence[str], took: float) -> None:
        """The verdict where something is wrong."""
        self.say(f"\n[bold red]Not all agree[/], after {took:.0f} s:")
        for each in wrong:
            self.say(f"  {escape(each)}")

    def agreement(self, took: float) -> None:
        """The verdict where nothing is."""
        self.say(f"\n[bold green]All agree[/], after {took:.0f} s: nothing was lost, and nothing counted twice.\n")

    def how_to_look_further(self) -> None:
        """What to do to see more than this."""
        self.say("To look around in it, leave it running by `scripts/demo --keep`. It then says how to try:\n")
        self._commands(LOOK_FURTHER)

    def answered(self, lines: Sequence[str], answers: Sequence[str]) -> None:
        """Lines for a shell that were run, and what they printed."""
        self.say("\nSo can anybody ask, while it runs:\n")
        for line, answer in zip(lines, answers, strict=True):
            self._out.print(f"    {line}", soft_wrap=True, markup=False)
            self._out.print(textwrap.indent(answer, "      "), style="dim", soft_wrap=True, markup=False)

    def without_model(self) -> None:
        """That half of it is left out."""
        self.say(
            "[bold yellow]WITHOUT A MODEL[/], as --no-model says: no model is trained and no model server runs. No "
            "prediction is computed,\nshown or proven; all else is as always.\n"
        )

    def how_to_look_around(
        self, environment: Mapping[str, str], commands: Path, lines: Sequence[str], keeper: int
    ) -> None:
        """What can be done with all that goes on. commands: the folder where `stillwell` is; lines: for curl; keeper:
        who ends it."""
        self.say("Everything goes on. In another terminal:\n")
        self._commands(
            [f"export PATH={commands}:$PATH", *(f"export {name}={environment[name]}" for name in environment)]
        )
        self._commands(LOOK_FURTHER)
        self.say("Or without any of it, from anywhere on this machine:\n")
        self._commands(lines)
        self.say(f"To end it and remove its data: kill {keeper}")

    def _commands(self, lines: Sequence[str]) -> None:
        self._out.print("".join(f"    {line}\n" for line in lines), soft_wrap=True, markup=False)

    def _with_sign(self, sign: str, what: str, since: float | None) -> None:
        room = max(self._out.width - len(what) - 5, 8)
        took = "" if since is None else f"{table.seconds(time.monotonic() - since):>{room}}"
        self._out.print(f"  {sign} {what}{took}")


class Picture:
    """Redraws in place on a terminal; prints a line now and then elsewhere."""

    def __init__(self, out: Console, live: Live | None) -> None:
        self._out = out
        self._live = live
        self._printed_at = -_LINE_EVERY

    def show(self, scene: table.Scene, *, is_last: bool) -> None:
        """Show what is seen now."""
        if self._live is not None:
            self._live.update(table.draw(scene), refresh=True)
        elif is_last or scene.look.at - self._printed_at >= _LINE_EVERY:
            self._printed_at = scene.look.at
            self._out.print(table.line(scene), soft_wrap=True)
            if scene.read is not None:
                self._out.print(table.line_of_model(scene), soft_wrap=True)
