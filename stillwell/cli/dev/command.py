"""The command: servers, then topics, then the worker, then whatever files and records do; and all of it back again."""

import contextlib
import pathlib
import queue
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from stillwell.cli.dev.child import Child
    from stillwell.cli.dev.showing import Screen
    from stillwell.cli.dev.stage import Loaded, Stage
    from stillwell.cli.dev.tally import Tally
    from stillwell.cli.dev.watching import State
    from stillwell.settings import ProjectSettings

_TICK_S = 0.25
_WAITING_S = 1.0
"""Seconds between two looks whether a topic that was missing is there."""


@click.command()
@click.option(
    "--newest",
    type=click.IntRange(min=0),
    default=1_000,
    show_default=True,
    help="In a Kafka of your own: so many records before the end of each partition to begin at.",
)
@click.option("--from-start", is_flag=True, help="In a Kafka of your own: begin at the beginning of each partition.")
@click.option("--exports", is_flag=True, help="Print the lines that point this shell at the one that runs.")
def dev(newest: int, from_start: bool, exports: bool) -> None:
    """Run a worker over definitions that are being written, and show what comes of records.

    Real Kafka, Redis and a folder of its own, and a worker in a namespace that is thrown away; where the settings name
    a Kafka, it reads from that one. Rows, rejects and rates are shown as they come, and why records give no rows. When
    a file of the definitions changes, all is checked and begun anew. Ctrl-C ends everything, and leaves nothing.

    In another terminal: eval "$(stillwell dev --exports)"
    """
    from stillwell.cli.dev.exports import Exports
    from stillwell.settings import KafkaSettings, ProjectSettings, is_given

    settings = ProjectSettings.load()
    kept = Exports(settings.project)
    if exports:
        for name, value in kept.read().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        return
    kept.refuse_second()
    kafka = KafkaSettings.load().kafka_bootstrap if is_given("kafka_bootstrap") else None
    with _ended_by_signals() as is_ending:
        _run(settings, kept, kafka, None if from_start else newest, is_ending)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[Callable[[], bool]]:
    """SIGTERM ends everything in order, as Ctrl-C does; gives whether one of them has come.

    asyncio would answer Ctrl-C by cancelling what runs, and a Kafka client that is cancelled while it is closed
    swallows that: the command went on as if nobody had pressed it. It leaves a signal alone that somebody answers.
    """
    came: list[int] = []

    def end(number: int, _: "FrameType | None") -> None:
        came.append(number)
        raise KeyboardInterrupt

    # Who has it ignored, as a shell does for what runs behind it, is left alone.
    answered = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])]
    before = {each: signal.signal(each, end) for each in answered}
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _run(
    settings: "ProjectSettings", kept: Any, kafka: str | None, newest: int | None, is_ending: Callable[[], bool]
) -> None:
    from stillwell.cli.dev.showing import Screen
    from stillwell.cli.dev.stage import Stage

    with contextlib.ExitStack() as ending:
        screen = Screen()
        where = "Redis here; it reads from" if kafka else "Kafka and Redis here"
        screen.say(
            f"Starting {where}{f' Kafka at {kafka}, and writes nothing but dead letters there' if kafka else ''}"
        )
        stage = ending.enter_context(Stage(kafka, newest))
        ending.callback(kept.remove)
        kept.write(stage.environment)
        session = _Session(settings, stage, ending.enter_context(screen), is_ending)
        ending.callback(session.end)
        with contextlib.suppress(KeyboardInterrupt):
            session.go_on()


class _Session:
    """From one state of the definitions to the next."""

    def __init__(
        self, settings: "ProjectSettings", stage: "Stage", screen: "Screen", is_ending: Callable[[], bool]
    ) -> None:
        """is_ending: whether a signal has come, also where its exception was lost on the way."""
        self._definitions = settings.definitions
        self._folder = pathlib.Path.cwd()
        self._stage = stage
        self._screen = screen
        self._is_ending = is_ending
        self._child: Child | None = None
        self._waiting: Loaded | None = None
        self._used = False
        """Whether a worker has stored anything: one that ended by itself has too."""
        self._tally: Tally | None = None

    def go_on(self) -> None:
        """Until Ctrl-C, which mostly raises."""
        from stillwell.cli.dev.watching import changed

        state = self._state()
        self._begin()
        while not self._is_ending():
            self._look()
            now = self._state()
            if files := changed(state, now):
                state = now
                self._screen.say(f"\n{', '.join(self._named(file) for file in files)} changed", "bold")
                self._begin()

    def end(self) -> None:
        """The worker first, then what it has made."""
        from stillwell.errors import StoreUnavailable

        self._screen.say("\nEnding", "bold")
        with _not_interrupted():
            self._stop()
            try:
                self._stage.take_away()
            except StoreUnavailable as error:
                self._screen.say(f"The dead-letter topic and the group stay there: {error}", "red")
            if self._tally:
                self._screen.say("\n".join(self._tally.lines(time.monotonic())))

    def _begin(self) -> None:
        """With the definitions as they are now, from the beginning; what is wrong is told, and a change waited for."""
        from stillwell.cli.dev.stage import NotReady

        self._waiting = None
        try:
            loaded = self._stage.load()
        except NotReady as error:
            going_on = " The worker goes on with what was there before." if self._child else ""
            self._screen.say(f"{error}\nWaiting for a change.{going_on}", "red")
            return
        if loaded.caution:
            self._screen.say(loaded.caution, "yellow")
        self._stop()
        if self._used:
            self._stage.wipe()
        self._start(loaded)

    def _start(self, loaded: "Loaded") -> None:
        """The worker, if there is all that it needs; otherwise that is told once, and looked for again and again."""
        from stillwell.cli.dev.child import Child
        from stillwell.cli.dev.stage import NotReady

        try:
            self._stage.set_up(loaded)
        except NotReady as error:
            if self._waiting is None:
                self._screen.say(f"{error}\nWaiting for it, or for a change.", "red")
            self._waiting = loaded
            return
        self._waiting = self._tally = None
        self._used = True
        self._child = Child(self._stage.of_the_worker, self._stage.folder / "worker.log")

    def _stop(self) -> None:
        """End the worker; what it has told and logged last is shown: mostly why it ended."""
        if child := self._child:
            child.stop()
            self._child = None
            while not child.told.empty():
                self._take(child.told.get())
            for line in child.new_log():
                self._screen.say(line, "yellow")

    def _look(self) -> None:
        """For a moment: what the worker tells and logs, and how things stand."""
        if self._child is None:
            time.sleep(_TICK_S if self._waiting is None else _WAITING_S)
            if self._waiting:
                self._start(self._waiting)
            return
        with contextlib.suppress(queue.Empty):
            self._take(self._child.told.get(timeout=_TICK_S))
            while True:
                self._take(self._child.told.get_nowait())
        for line in self._child.new_log():
            self._screen.say(line, "yellow")
        if self._tally:
            now = time.monotonic()
            for text in self._tally.explanations(now):
                self._screen.say(text, "yellow")
            self._screen.status(self._tally.lines(now))
        if not self._child.running:
            self._stop()  # which tells why
            self._screen.say("The worker has ended. Waiting for a change.", "red")

    def _take(self, told: dict[str, Any]) -> None:
        from stillwell.cli.dev.tally import Tally

        if self._tally is None:
            self._tally = Tally(told["views"])
            self._welcome()
            return
        self._tally.take(told, time.monotonic())
        self._screen.told(told)

    def _welcome(self) -> None:
        assert self._tally is not None
        views = ", ".join(f"{name} of {view.topic}" for name, view in self._tally.views.items())
        self._screen.say(f"A worker runs: {views}", "bold green")
        self._screen.say(
            'In another terminal: eval "$(stillwell dev --exports)", then for example `stillwell produce`, `get`, '
            "`dlq list`, `serve`"
        )

    def _state(self) -> "State":
        from stillwell.cli.dev.watching import state_of

        return state_of(self._definitions, self._folder)

    def _named(self, file: pathlib.Path) -> str:
        return str(file.relative_to(self._folder))


@contextlib.contextmanager
def _not_interrupted() -> Iterator[None]:
    """A second Ctrl-C, or the SIGTERM of who has no patience, would leave half of it behind."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
