"""What happens, in order: train, start, feed, kill, start again, wait, verify, compute again, compare, ask, end."""

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import redis.asyncio
from rich.status import Status

from scripts.flights import model, predicted, replay, scene, source, table
from scripts.flights.asking import Asking, Route
from scripts.flights.ending import AGREED, FAILED, INTERRUPTED, DemoFailed, interrupt_on_sigterm
from scripts.flights.examples import examples
from scripts.flights.feed import Feed, Pace
from scripts.flights.keeper import HandOver
from scripts.flights.lines import lines, run
from scripts.flights.model import DelayModel
from scripts.flights.observe import Look, Observer
from scripts.flights.oracle import Oracle
from scripts.flights.predicted import Foretold, Pushed
from scripts.flights.proof import Proof, compare_all, verify, wrong_at_rest
from scripts.flights.scene import Command
from scripts.flights.summary import Outage, summary
from scripts.flights.voice import Voice
from sinks.redis import RedisOnlineStore
from stillwell.counting import counted
from stillwell.definitions.loading import load_definitions
from stillwell.errors import StillwellError
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import KAFKA_VERSION, LocalStack, Progress
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec
from stillwell.storage import open_store

_PATIENCE = 60.0
"""Seconds without progress after which the demo gives up."""

_LOOK_EVERY = 0.5
_POLL = 0.05

_SOON = 5.0
"""Seconds within which the model server's environment is found, where it is there."""
_GONE_FOR = 2.0
"""Seconds after which the killed worker is started again, as a supervisor would."""

_AHEAD = 12_000
"""Records that the feed is ahead of Redis: fewer starve the workers' batches, more only make rows wait."""

_OUTAGE_AHEAD = 150_000


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """events: how many of the year's, None for all. seed: of what goes wrong on purpose. summary: a file for it.
    with_model: whether there is a model server."""

    events: int | None
    seed: int
    summary: Path | None
    with_model: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """The records to be sent, and what the oracle needs to know of them."""

    source: source.Source
    shift: datetime.timedelta
    plan: replay.Plan
    routes: pl.DataFrame
    """`origin`, `dest`, in the order of their first departures, and `sequence`, how many records go before it; `count`,
    how many departures."""


@dataclasses.dataclass(slots=True)
class _Cast:
    """All that was started: to be ended in the end, whatever there is of it by then."""

    stack: LocalStack | None = None
    model: DelayModel | None = None
    workers: Sequence[Command] = ()
    service: Command | None = None

    def commands(self) -> list[Command]:
        """The service first: who asks is turned away before what is asked goes."""
        return [*([self.service] if self.service else []), *self.workers]

    def end(self, *, in_order: bool, remove: bool) -> None:
        """End all, by a kill where what they hold does not matter. remove: the data and logs too."""
        for command in self.commands():
            if in_order:
                command.stop()
            elif command.process is not None:
                command.kill()
        if self.model is not None:
            self.model.end(in_order=in_order)
        if self.stack is not None:
            if remove:
                self.stack.stop()
            else:
                self.stack.kafka.stop()
                self.stack.redis.stop()


def tell(options: Options, hand_over: HandOver | None = None) -> int:
    """The whole demo; gives the exit code. hand_over: called when all is well and everything is to go on."""
    interrupt_on_sigterm()
    voice = Voice()
    began = time.monotonic()
    cast = _Cast()
    voice.say("[bold]Stillwell[/]: a year of flights out of New York, through real Kafka into real Redis and Parquet\n")
    try:
        python = _model_environment(voice) if options.with_model else None
        if python is None:
            voice.without_model()
        with voice.working("Starting Kafka and Redis, reading the flights") as status:
            cast.stack = LocalStack(progress=_shown_on(status))
            prepared = _start(cast, python, options, voice)
        story = _Story(options, voice, cast, prepared, began)
        agrees = asyncio.run(_cancelled_by_signals(story.run(hand_over)))
        with voice.working("Ending all that was started"):
            cast.end(in_order=True, remove=agrees)
        if not agrees:
            _say_what_stays(cast.stack, voice)
        return AGREED if agrees else FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        voice.say("\nInterrupted; ending everything that was started.")
        cast.end(in_order=False, remove=True)
        voice.say("Ended: no process of the demo is left, and none of its data.")
        return INTERRUPTED
    except (DemoFailed, StillwellError) as failure:
        voice.failure(str(failure))
        cast.end(in_order=False, remove=False)
        _say_what_stays(cast.stack, voice)
        return FAILED


def _model_environment(voice: Voice) -> Path:
    """The interpreter that trains and serves the model."""
    began, is_told = time.monotonic(), False
    with voice.working("Looking for the model server") as status:

        def waiting(seconds: float) -> None:
            nonlocal is_told
            if seconds < _SOON:
                return
            if not is_told:
                is_told = True
                voice.more("MLServer and scikit-learn get an environment of their own, this once: half a gigabyte")
            status.update(f"Installing MLServer and scikit-learn: {table.clock(seconds)}")

        python = model.environment(waiting)
    if is_told:
        voice.good("MLServer and scikit-learn are installed", began)
    return python


def _say_what_stays(stack: LocalStack | None, voice: Voice) -> None:
    if stack is not None:
        voice.say(f"\nEverything was ended. Logs and data stay in {stack.folder} until the next run.")


def _shown_on(status: Status) -> Progress:
    """Show how far the download of Kafka is, if there is one."""

    def show(done: int, total: int) -> None:
        status.update(f"Fetching Kafka, this once: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return show


def _start(cast: _Cast, python: Path | None, options: Options, voice: Voice) -> _Prepared:
    """Start the stack, and read the files and train the model meanwhile; then its server, and the commands' turn."""
    stack = cast.stack
    assert stack is not None
    began = time.monotonic()
    if python is not None:
        cast.model = DelayModel(stack.folder / "model", python)
    with ThreadPoolExecutor(1) as threads:
        preparing = threads.submit(_prepare, stack.folder, cast.model, options)
        stack.start()
        scene.enter(stack)
        scene.create_topics(stack.bootstrap)
        voice.good(f"Kafka {KAFKA_VERSION} and Redis run on this machine", began)
        prepared = preparing.result()
    _tell(prepared, voice)
    if cast.model is not None:
        _serve(cast.model, voice)
    cast.workers = [Command(name, stack.folder / f"{name.replace(' ', '-')}.log") for name in scene.WORKERS]
    cast.service = Command("query service", stack.folder / "service.log", "serve")
    return prepared


def _tell(prepared: _Prepared, voice: Voice) -> None:
    """What is to be sent."""
    plan, counts = prepared.plan, dict(prepared.plan.records.group_by("topic").len().iter_rows())
    voice.good(
        f"{counts.get(replay.DEPARTURES, 0):,} departures, {counts.get(replay.ARRIVALS, 0):,} arrivals, "
        f"{counts.get(replay.WEATHER, 0):,} observations of the weather"
    )
    voice.more(f"their times are shifted by {prepared.shift}, so that the year ends now")
    voice.more(
        f"on purpose {plan.late:,} come hours late, {plan.out_of_order:,} out of order, {plan.twice:,} twice, "
        f"{plan.cut_short:,} cut short"
    )


def _serve(delays: DelayModel, voice: Voice) -> None:
    """Have the model served as soon as it is trained, and say where to those who ask it."""
    began = time.monotonic()
    with voice.working("Training a model of delays, and starting MLServer"):
        trained = delays.trained()
        delays.serve()
    os.environ[model.URL_VARIABLE] = delays.url
    voice.good(f"MLServer serves a model of delays, trained on {trained.examples:,} departures", began)
    voice.more(
        f"off by {trained.off_by:.1f} minutes on average over flights it has not seen; always saying the mean, "
        f"{trained.mean_off_by:.1f}"
    )


def _prepare(folder: Path, delays: DelayModel | None, options: Options) -> _Prepared:
    files = source.unpack(folder)
    year = replay.read(files)
    if delays is not None:
        delays.begin_training(examples(year, model.EXAMPLES, options.seed))
    shift = replay.shift_to(datetime.datetime.now(datetime.UTC), year)
    plan = replay.plan(replay.events(year, shift), options.events, options.seed, replay.Disorder())
    return _Prepared(files, shift, plan, replay.routes(year, plan))


def _ahead(records: int) -> int:
    """How far to run ahead with so many records: a short feed must not be over before anybody was killed."""
    return min(_AHEAD, records // 8)


async def _cancelled_by_signals(work: Coroutine[Any, Any, bool]) -> bool:
    """Do the work; Ctrl-C and SIGTERM cancel it, so that everything it has open is closed."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


class _Story:
    """From the start of the workers on."""

    def __init__(
        self,
        options: Options,
        voice: Voice,
        cast: _Cast,
        prepared: _Prepared,
        began: float,
    ) -> None:
        assert cast.stack is not None
        assert cast.service is not None
        self._options = options
        self._voice = voice
        self._stack = cast.stack
        self._model = cast.model
        self._workers = cast.workers
        self._service = cast.service
        self._commands = cast.commands()
        self._prepared = prepared
        self._began = began
        self._note = ""
        self._is_over = asyncio.Event()
        self._seen = predicted.Watch()

    async def run(self, hand_over: HandOver | None) -> bool:
        """Whether all agreed. With hand_over, if so, everything goes on until it is cancelled."""
        settings, definitions = Settings.load(), load_definitions(scene.DEFINITIONS)
        async with contextlib.AsyncExitStack() as closing:
            online = await RedisOnlineStore.open(settings)
            closing.push_async_callback(online.close)
            client = redis.asyncio.from_url(self._stack.redis_url)
            closing.push_async_callback(client.aclose)
            keys, objects = RedisKeys(settings.project, settings.namespace), open_store(settings.offline_root)
            observer = Observer(self._workers, self._service, definitions, online, client, keys, objects)
            closing.push_async_callback(observer.close)
            asking = Asking(self._service.url)
            closing.push_async_callback(asking.close)
            await self._start_commands(observer)
            feed, outage = await self._stream(observer, asking)
            last = await observer.look()
            proof = await self._prove(feed, last, online, definitions, asking)
            if hand_over is None:
                await self._ask()
            took = time.monotonic() - self._began
            if self._options.summary is not None:
                found = summary(self._prepared.plan, feed, outage, last, self._seen.seen, proof)
                found = {**found, **self._circumstances(took)}
                self._options.summary.write_text(json.dumps(found, indent=2) + "\n")
            if proof.wrong:
                self._voice.disagreement(proof.wrong, took)
                return False
            self._voice.agreement(took)
            if hand_over is None:
                self._voice.how_to_look_further()
                return True
            environment = {**scene.PROJECT, **self._stack.environment}
            if self._model is not None:
                environment[model.URL_VARIABLE] = self._model.url
            self._voice.how_to_look_around(environment, scene.STILLWELL.parent, self._lines(), os.getpid())
            hand_over()
            await asyncio.Event().wait()
            return True

    def _circumstances(self, took: float) -> dict[str, object]:
        shift = int(self._prepared.shift.total_seconds())
        return {"seed": self._options.seed, "shift_s": shift, "total_s": round(took, 1)}

    # ---- the stream ----

    async def _start_commands(self, observer: Observer) -> None:
        began = time.monotonic()
        with self._voice.working("Starting two workers and the query service"):
            for command in self._commands:
                command.start()
            await self._until_all_flow(observer)
        self._voice.good(
            f"{len(self._workers)} workers share {sum(scene.consumed_partitions().values())} partitions; a query "
            "service beside them",
            began,
        )

    async def _stream(self, observer: Observer, asking: Asking) -> tuple[Feed, Outage]:
        """Feed everything, with a kill in the middle, and wait until it is linked."""
        records = self._prepared.plan.records
        pace = Pace(ahead=_ahead(records.height), outage_ahead=min(_OUTAGE_AHEAD, records.height // 3))
        bootstrap = self._stack.bootstrap
        feed = Feed(bootstrap, records, pace, observer.served, lambda: time.time_ns() // 1_000_000)
        self._note = "both workers run"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(feed, observer, asking))
                feeding = tasks.create_task(feed.run())
                outage = await self._kill_one(feed, pace, observer)
                await feeding
                self._voice.good(f"{feed.sent:,} events sent, {feed.rate:,.0f} a second", feed.began)
                self._note = "the rest is being linked"
                await self._until_linked(feed, observer)
                if self._model is not None:
                    self._tell_what_was_seen()
                    self._note = "predictions catch up"
                    await predicted.until_fresh(asking, self._routes(), _PATIENCE)
                self._note = "all is linked"
                self._is_over.set()
        except* Exception as group:
            raise group.exceptions[0] from None
        return feed, outage

    def _tell_what_was_seen(self) -> None:
        """That predictions were refreshed while flights came into Redis, as a reader saw it."""
        seen = self._seen.seen
        self._voice.more(
            f"while they came in, predictions were seen computed anew {seen.refreshed:,} times, fresh again "
            f"{seen.fresh_again:,} times"
        )

    async def _kill_one(self, feed: Feed, pace: Pace, observer: Observer) -> Outage:
        """Kill a worker in the middle of the stream, start it again, and wait until all partitions flow."""
        await feed.is_halfway.wait()
        victim = self._workers[-1]
        after, began = feed.sent, time.monotonic()
        pace.begin_outage(began, after, feed.rate)
        process = victim.kill()
        self._note = f"{victim.name} is gone"
        self._voice.bad(f"{victim.name} (process {process}) killed with -9 after {after:,} events")
        await asyncio.sleep(_GONE_FOR)
        victim.start()
        self._note = f"{victim.name} starts again"
        await self._until_all_flow(observer)
        outage = Outage(after, time.monotonic() - began, feed.sent - await observer.served())
        pace.end_outage()
        self._note = "both workers run"
        self._voice.good(f"{victim.name} is back, and all partitions flow; {outage.lag:,} events behind", began)
        return outage

    async def _until_all_flow(self, observer: Observer) -> None:
        partitions = sum(scene.consumed_partitions().values())
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._check()
            look = await observer.look()
            workers, ready = look.workers, [each.ready for each in (*look.workers, look.service)]
            if all(ready) and sum(worker.partitions for worker in workers) == partitions:
                return
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{_PATIENCE:g} s after their start the workers do not share all partitions, or the service is not "
                    "ready: "
                    + ", ".join(f"{worker.name} holds {worker.partitions}" for worker in workers)
                    + f", the service is {'' if look.service.ready else 'not '}ready. Their logs: "
                    + ", ".join(str(command.log) for command in self._commands)
                )
            await asyncio.sleep(_POLL)

    async def _until_linked(self, feed: Feed, observer: Observer) -> None:
        linked, since = -1, time.monotonic()
        while linked < feed.sent:
            look = await observer.look()
            if look.linked > linked:
                linked, since = look.linked, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                behind = ", ".join(
                    f"{topic.linked:,} of {feed.sent_by_topic[name]:,} of {name}" for name, topic in look.topics.items()
                )
                raise DemoFailed(
                    f"Not everything is at rest: the chains cover {behind}, and for {_PATIENCE:g} s no link was "
                    f"added. The workers' logs say why: {', '.join(str(worker.log) for worker in self._workers)}"
                )
            await asyncio.sleep(_POLL)

    def _check(self) -> None:
        for command in self._commands:
            command.check()
        if self._model is not None:
            self._model.check()

    # ---- the picture ----

    async def _watch(self, feed: Feed, observer: Observer, asking: Asking) -> None:
        """Draw what is seen, until all is over and was drawn."""
        history, is_last = table.History(), False
        read: Counter[str] | None = None if self._model is None else Counter()
        with self._voice.picture() as picture:
            while not is_last:
                is_last = self._is_over.is_set()
                self._check()
                look = await observer.look()
                if read is not None:
                    read = await self._read(feed, look, asking, read)
                elapsed, before = time.monotonic() - feed.began, history.add(look)
                seen = table.Scene(elapsed, feed.progress(), look, before, self._note, read)
                picture.show(seen, is_last=is_last)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), _LOOK_EVERY)

    async def _read(self, feed: Feed, look: Look, asking: Asking, before: Counter[str]) -> Counter[str]:
        """Read the predictions of all routes that have been in Redis for a while, as readers would all the time."""
        served = sum(topic.served for topic in look.topics.values())
        everything = served >= feed.total
        try:
            # A partition may be so far ahead of another: only then the first row of a route is surely there.
            routes = self._routes(None if everything else served - _ahead(feed.total))
            predictions = await asking.predictions(routes)
        except DemoFailed:  # as any reader, ask again; what lasts is told when all predictions are to be fresh
            return before
        if not everything:
            self._seen.look(routes, predictions)
        return Counter(each["state"] for each in predictions)

    def _routes(self, served: int | None = None) -> list[Route]:
        """All routes, or those whose first departure is among so many records."""
        routes = self._prepared.routes
        chosen = routes if served is None else routes.filter(pl.col("sequence") < served)
        return list(chosen.select("origin", "dest").iter_rows())

    # ---- the proof ----

    def _lines(self) -> tuple[str, str, str]:
        busiest = self._prepared.routes.sort("count", "sequence", descending=[True, False])
        origin, dest = busiest.select("origin", "dest").row(0)
        now = datetime.datetime.now(datetime.UTC)
        return lines(self._service.url, (origin, dest), now, with_model=self._model is not None)

    async def _ask(self) -> None:
        """Run the lines that are offered to whoever keeps it running."""
        if shutil.which("curl") is None:
            self._voice.bad("curl is not installed: these lines were not run")
            self._voice.answered(self._lines(), ["not run"] * 3)
            return
        asked = self._lines()
        self._voice.answered(asked, [await run(line) for line in asked])

    async def _prove(
        self, feed: Feed, last: Look, online: RedisOnlineStore, definitions: DefinitionsSpec, asking: Asking
    ) -> Proof:
        began = time.monotonic()
        with self._voice.working("stillwell verify"):
            verified = await verify()
        say = self._voice.good if verified.good else self._voice.bad
        say(
            f"stillwell verify: {verified.records:,} records in {verified.partitions} chains and {verified.files:,} "
            f"files, {counted(len(verified.findings), 'finding')}",
            began,
        )
        if verified.unlinked:
            self._voice.more(
                f"In no link: {counted(verified.unlinked, 'file')} that the killed worker had begun; nobody sees them"
            )
        began = time.monotonic()
        with self._voice.working("Computing three views again, from the CSV files"):
            ledger = self._stack.folder / "sent.parquet"
            feed.ledger().write_parquet(ledger)
            oracle = await asyncio.to_thread(Oracle, self._prepared.source, ledger, self._prepared.shift)
            wrong = list(wrong_at_rest(verified, feed.sent_by_topic, oracle, definitions))
            entities = {view: seen.entities for view, seen in last.views.items()}
            agreements = await compare_all(oracle, online, definitions, entities)
        say = self._voice.bad if any(each.differing for each in agreements) else self._voice.good
        say("DuckDB computes three views again from the CSV files; beside Redis, value by value:", began)
        for each in agreements:
            outcome = f"[red]{each.differing:,} differ[/]" if each.differing else "[green]all equal[/]"
            self._voice.more(f"{each.view:<17} {each.entities:>6,} entities {each.values:>8,} values   {outcome}")
            wrong += each.differences
        pushed, foretold = await self._prove_served(asking)
        wrong += [*pushed.wrong, *(foretold.wrong if foretold else ())]
        return Proof(verified, agreements, pushed, foretold, wrong)

    async def _prove_served(self, asking: Asking) -> tuple[Pushed, Foretold | None]:
        """Last, since pushes change what was compared before."""
        routes = self._routes()
        began = time.monotonic()
        with self._voice.working("Pushing departures, and reading them back"):
            pushed = await predicted.push_and_read(asking, routes, datetime.datetime.now(datetime.UTC))
        say = self._voice.bad if pushed.wrong else self._voice.good
        say(f"{pushed.count} departures pushed over HTTP, each read back by its token", began)
        if self._model is None:
            self._voice.bad("predictions are not proven: there is no model (--no-model)")
            return pushed, None
        began = time.monotonic()
        with self._voice.working("Comparing predictions with the model"):
            await predicted.until_fresh(asking, routes, _PATIENCE)
            foretold = await predicted.compare_with_model(asking, self._model.url, routes)
        say = self._voice.bad if foretold.differing else self._voice.good
        say("MLServer is asked about the features that are served; beside the predictions served:", began)
        outcome = f"[red]{foretold.differing:,} differ[/]" if foretold.differing else "[green]all equal[/]"
        self._voice.more(
            f"{model.MODEL:<17} {foretold.routes:>6,} routes   {foretold.fresh:>8,} FRESH    {outcome}, from "
            f"{foretold.least:.1f} to {foretold.most:.1f} minutes"
        )
        return pushed, foretold
