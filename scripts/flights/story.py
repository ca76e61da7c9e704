"""What happens, in order: start, feed, kill, start again, wait, verify, compute again, compare, end."""

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import shlex
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis.asyncio
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from scripts.flights import replay, scene, source, table
from scripts.flights.agreement import Agreement
from scripts.flights.ending import AGREED, FAILED, INTERRUPTED, DemoFailed, interrupt_on_sigterm
from scripts.flights.feed import Feed, Pace
from scripts.flights.keeper import HandOver
from scripts.flights.observe import Look, Observer
from scripts.flights.oracle import Oracle
from scripts.flights.proof import Verified, compare_all, verify, wrong_at_rest
from scripts.flights.scene import Worker
from sinks.redis import RedisOnlineStore
from stillwell.cli.output import download_progress
from stillwell.definitions.loading import load_definitions
from stillwell.errors import StillwellError
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import KAFKA_VERSION, LocalStack
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec
from stillwell.storage import open_store

_PATIENCE = 60.0
"""Seconds without progress after which the demo gives up."""

_LOOK_EVERY = 0.5
_LINE_EVERY = 5.0
_POLL = 0.05

_GONE_FOR = 2.0
"""Seconds after which the killed worker is started again, as a supervisor would."""

_AHEAD = 12_000
"""Records that the feed is ahead of Redis: fewer starve the workers' batches, more only make rows wait."""

_OUTAGE_AHEAD = 150_000


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """events: how many of the year's, None for all. seed: of what goes wrong on purpose. summary: a file for it."""

    events: int | None
    seed: int
    summary: Path | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """The records to be sent, and what the oracle needs to know of them."""

    source: source.Source
    shift: datetime.timedelta
    plan: replay.Plan


@dataclasses.dataclass(frozen=True, slots=True)
class _Outage:
    """What the kill did: after how many records, for how many seconds, and how far the rows fell behind."""

    after: int
    seconds: float
    lag: int


def tell(options: Options, hand_over: HandOver | None = None) -> int:
    """The whole demo; gives the exit code. hand_over: called when all is well and everything is to go on."""
    interrupt_on_sigterm()
    out = table.console()
    began = time.monotonic()
    stack: LocalStack | None = None
    workers: list[Worker] = []
    out.print("[bold]Stillwell[/]: a year of flights out of New York, through real Kafka into real Redis and Parquet\n")
    try:
        with download_progress("Fetching Kafka, once") as progress:
            stack = LocalStack(progress=progress)
            prepared = _start(stack, options, out)
        workers += [Worker(name, stack.folder / f"{name.replace(' ', '-')}.log") for name in scene.WORKERS]
        story = _Story(options, out, stack, workers, prepared, began)
        agrees = asyncio.run(_cancelled_by_signals(story.run(hand_over)))
        with out.status("Ending the workers, Kafka and Redis"):
            _end(workers, in_order=True)
            stack.stop()
        return AGREED if agrees else FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        out.print("\nInterrupted; ending everything that was started.")
        _end(workers, in_order=False)
        if stack is not None:
            stack.stop()
        out.print("Ended: no process of the demo is left, and none of its data.")
        return INTERRUPTED
    except (DemoFailed, StillwellError) as failure:
        out.print(f"\n[bold red]✗[/] {escape(str(failure))}")
        _end(workers, in_order=False)
        if stack is not None:
            stack.kafka.stop()
            stack.redis.stop()
            out.print(
                f"\nEverything was ended. Logs and data stay in {stack.folder} until the next run.", soft_wrap=True
            )
        return FAILED


def _start(stack: LocalStack, options: Options, out: Console) -> _Prepared:
    """Start the stack, and read the files meanwhile."""
    began = time.monotonic()
    with ThreadPoolExecutor(1) as threads, out.status("Starting Kafka and Redis, reading the flights"):
        preparing = threads.submit(_prepare, stack.folder, options)
        stack.start()
        scene.enter(stack)
        scene.create_topics(stack.bootstrap)
        _done(out, f"Kafka {KAFKA_VERSION} and Redis run on this machine", began)
        began = time.monotonic()
        prepared = preparing.result()
    plan, counts = prepared.plan, dict(prepared.plan.records.group_by("topic").len().iter_rows())
    _done(
        out,
        f"{counts.get(replay.DEPARTURES, 0):,} departures, {counts.get(replay.ARRIVALS, 0):,} arrivals, "
        f"{counts.get(replay.WEATHER, 0):,} observations of the weather",
        began,
    )
    _more(out, f"their times are shifted by {prepared.shift}, so that the year ends now")
    _more(
        out,
        f"on purpose {plan.late:,} come hours late, {plan.out_of_order:,} out of order, {plan.twice:,} twice, "
        f"{plan.cut_short:,} cut short",
    )
    return prepared


def _prepare(folder: Path, options: Options) -> _Prepared:
    files = source.unpack(folder)
    year = replay.read(files)
    shift = replay.shift_to(datetime.datetime.now(datetime.UTC), year)
    plan = replay.plan(replay.events(year, shift), options.events, options.seed, replay.Disorder())
    return _Prepared(files, shift, plan)


def _end(workers: Sequence[Worker], *, in_order: bool) -> None:
    for worker in workers:
        if in_order:
            worker.stop()
        elif worker.process is not None:
            worker.kill()


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
        out: Console,
        stack: LocalStack,
        workers: Sequence[Worker],
        prepared: _Prepared,
        began: float,
    ) -> None:
        self._options = options
        self._out = out
        self._stack = stack
        self._workers = workers
        self._prepared = prepared
        self._began = began
        self._note = ""
        self._is_over = asyncio.Event()

    async def run(self, hand_over: HandOver | None) -> bool:
        """Whether all agreed. With hand_over, if so, everything goes on until it is cancelled."""
        settings, definitions = Settings.load(), load_definitions(scene.SETTINGS["STILLWELL_DEFINITIONS"])
        async with contextlib.AsyncExitStack() as closing:
            online = await RedisOnlineStore.open(settings)
            closing.push_async_callback(online.close)
            client = redis.asyncio.from_url(self._stack.redis_url)
            closing.push_async_callback(client.aclose)
            keys, objects = RedisKeys(settings.project, settings.namespace), open_store(settings.offline_url)
            observer = Observer(self._workers, definitions, online, client, keys, objects)
            closing.push_async_callback(observer.close)
            await self._start_workers(observer)
            feed, outage = await self._stream(observer)
            last = await observer.look()
            verified, agreements, wrong = await self._prove(feed, last, online, definitions)
            self._write_summary(feed, outage, last, verified, agreements, wrong)
            self._say_verdict(wrong, kept=hand_over is not None and not wrong)
            if hand_over is not None and not wrong:
                hand_over()
                await asyncio.Event().wait()
            return not wrong

    # ---- the stream ----

    async def _start_workers(self, observer: Observer) -> None:
        began = time.monotonic()
        with self._out.status("Starting two workers"):
            for worker in self._workers:
                worker.start()
            await self._until_all_flow(observer)
        _done(self._out, f"{len(self._workers)} workers share {sum(replay.PARTITIONS.values())} partitions", began)

    async def _stream(self, observer: Observer) -> tuple[Feed, _Outage]:
        """Feed everything, with a kill in the middle, and wait until it is linked."""
        records = self._prepared.plan.records
        # A short feed must not be over before anybody was killed.
        pace = Pace(ahead=min(_AHEAD, records.height // 8), outage_ahead=min(_OUTAGE_AHEAD, records.height // 3))
        bootstrap = self._stack.bootstrap
        feed = Feed(bootstrap, records, pace, lambda: _served(observer), lambda: time.time_ns() // 1_000_000)
        self._note = "both workers run"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(feed, observer))
                feeding = tasks.create_task(feed.run())
                outage = await self._kill_one(feed, pace, observer)
                await feeding
                _done(self._out, f"{feed.sent:,} events sent, {feed.rate:,.0f} a second", feed.began)
                self._note = "the rest is being linked"
                await self._until_linked(feed, observer)
                self._note = "all is linked"
                self._is_over.set()
        except* Exception as group:
            raise group.exceptions[0] from None
        return feed, outage

    async def _kill_one(self, feed: Feed, pace: Pace, observer: Observer) -> _Outage:
        """Kill a worker in the middle of the stream, start it again, and wait until all partitions flow."""
        await feed.is_halfway.wait()
        victim = self._workers[-1]
        after, began = feed.sent, time.monotonic()
        pace.begin_outage(began, after, feed.rate)
        process = victim.kill()
        self._note = f"{victim.name} is gone"
        _say(self._out, "[bold red]✗[/]", f"{victim.name} (process {process}) killed with -9 after {after:,} events")
        await asyncio.sleep(_GONE_FOR)
        victim.start()
        self._note = f"{victim.name} starts again"
        await self._until_all_flow(observer)
        outage = _Outage(after, time.monotonic() - began, feed.sent - await _served(observer))
        pace.end_outage()
        self._note = "both workers run"
        _done(self._out, f"{victim.name} is back, and all partitions flow; {outage.lag:,} events behind", began)
        return outage

    async def _until_all_flow(self, observer: Observer) -> None:
        partitions = sum(replay.PARTITIONS.values())
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._check_workers()
            workers = (await observer.look()).workers
            if all(worker.ready for worker in workers) and sum(worker.partitions for worker in workers) == partitions:
                return
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{_PATIENCE:g} s after their start the workers do not share all partitions: "
                    + ", ".join(f"{worker.name} holds {worker.partitions}" for worker in workers)
                    + f". Their logs: {', '.join(str(worker.log) for worker in self._workers)}"
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

    def _check_workers(self) -> None:
        for worker in self._workers:
            worker.check()

    # ---- the picture ----

    async def _watch(self, feed: Feed, observer: Observer) -> None:
        """Draw what is seen, until all is over and was drawn."""
        history, lined, is_last = table.History(), -_LINE_EVERY, False
        with self._picture() as show:
            while not is_last:
                is_last = self._is_over.is_set()
                self._check_workers()
                look = await observer.look()
                seen = table.Scene(time.monotonic() - feed.began, feed.progress(), look, history.add(look), self._note)
                if show is not None:
                    show.update(table.draw(seen), refresh=True)
                elif is_last or look.at - lined >= _LINE_EVERY:
                    lined = look.at
                    self._out.print(table.line(seen), soft_wrap=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), _LOOK_EVERY)

    @contextlib.contextmanager
    def _picture(self) -> Iterator[Live | None]:
        if not self._out.is_terminal or self._out.is_dumb_terminal:
            yield None
            return
        with Live(console=self._out, auto_refresh=False) as live:
            yield live

    # ---- the proof ----

    async def _prove(
        self, feed: Feed, last: Look, online: RedisOnlineStore, definitions: DefinitionsSpec
    ) -> tuple[Verified, list[Agreement], list[str]]:
        """What was found, and in words what is wrong."""
        began = time.monotonic()
        with self._out.status("stillwell verify"):
            verified = await verify()
        say = _done if verified.good else _failed
        say(
            self._out,
            f"stillwell verify: {verified.records:,} records in {verified.partitions} chains and {verified.files:,} "
            f"files, {len(verified.findings)} findings",
            began,
        )
        if verified.unlinked:
            _more(self._out, f"{verified.unlinked} files that the killed worker had begun belong to no link: unseen")
        began = time.monotonic()
        with self._out.status("Computing three views again, from the CSV files"):
            ledger = self._stack.folder / "sent.parquet"
            feed.ledger().write_parquet(ledger)
            oracle = await asyncio.to_thread(Oracle, self._prepared.source, ledger, self._prepared.shift)
            entities = {view: seen.entities for view, seen in last.views.items()}
            wrong = list(wrong_at_rest(verified, feed.sent_by_topic, oracle, definitions))
            agreements = await compare_all(oracle, online, definitions, entities)
        wrong += [difference for agreement in agreements for difference in agreement.differences]
        say = _failed if any(agreement.differing for agreement in agreements) else _done
        say(self._out, "DuckDB computes three views again from the CSV files; beside Redis, value by value:", began)
        for each in agreements:
            outcome = f"[red]{each.differing:,} differ[/]" if each.differing else "[green]all equal[/]"
            _more(self._out, f"{each.view:<17} {each.entities:>6,} entities {each.values:>8,} values   {outcome}")
        return verified, agreements, wrong

    def _say_verdict(self, wrong: Sequence[str], *, kept: bool) -> None:
        took = f"{time.monotonic() - self._began:.0f} s"
        if wrong:
            self._out.print(f"\n[bold red]Not all agree[/], after {took}:")
            for each in wrong:
                self._out.print(f"  {escape(each)}")
            return
        self._out.print(f"\n[bold green]All agree[/], after {took}: nothing was lost, nothing counted twice.\n")
        commands = "".join(f"    {command}\n" for command in _LOOK_FURTHER)
        if not kept:
            self._out.print("To look around in it, leave it running by `scripts/demo --keep`. Then try:")
            self._out.print(commands, soft_wrap=True)
            return
        self._out.print("Everything goes on. In another terminal, in this folder:\n")
        exported = [f"    export {name}={shlex.quote(os.environ[name])}\n" for name in _exported()]
        self._out.print("".join(exported), soft_wrap=True, markup=False)
        self._out.print(commands, soft_wrap=True)
        self._out.print(f"To end it, and remove its data:  kill {os.getpid()}")

    def _write_summary(
        self,
        feed: Feed,
        outage: _Outage,
        last: Look,
        verified: Verified,
        agreements: Sequence[Agreement],
        wrong: Sequence[str],
    ) -> None:
        if self._options.summary is None:
            return
        plan = self._prepared.plan
        servable = [dict(view.servable) for view in last.views.values()]
        summary = {
            "agrees": not wrong,
            "wrong": list(wrong),
            "total_s": round(time.monotonic() - self._began, 1),
            "seed": self._options.seed,
            "shift_s": int(self._prepared.shift.total_seconds()),
            "events": plan.records.height - plan.twice - plan.cut_short,
            "late": plan.late,
            "out_of_order": plan.out_of_order,
            "twice": plan.twice,
            "cut_short": plan.cut_short,
            "sent": feed.sent,
            "feed_s": round(feed.took, 1),
            "events_per_s": round(feed.rate),
            "killed_after": outage.after,
            "outage_s": round(outage.seconds, 1),
            "outage_lag": outage.lag,
            "servable_p50_s": table.quantile(0.5, servable),
            "servable_p99_s": table.quantile(0.99, servable),
            "records_at_rest": verified.records,
            "rows_in_parquet": dict(verified.rows),
            "rejected": sum(topic.rejected for topic in last.topics.values()),
            "files": verified.files,
            "unlinked_files": verified.unlinked,
            "verify_good": verified.good,
            "entities_in_redis": {name: view.entities for name, view in last.views.items()},
            "compared": [dataclasses.asdict(agreement) for agreement in agreements],
        }
        self._options.summary.write_text(json.dumps(summary, indent=2) + "\n")


async def _served(observer: Observer) -> int:
    return sum((await observer.served()).values())


_LOOK_FURTHER = (
    "stillwell get AirportDepartures airport=JFK",
    "stillwell get RouteDepartures origin=JFK dest=SFO",
    "stillwell dlq list",
    "stillwell verify",
    "stillwell doctor",
)


def _exported() -> list[str]:
    return [name for name in os.environ if name in scene.SETTINGS or name.startswith("STILLWELL_")]


def _done(out: Console, what: str, began: float) -> None:
    _say(out, "[bold green]✓[/]", what, time.monotonic() - began)


def _failed(out: Console, what: str, began: float) -> None:
    _say(out, "[bold red]✗[/]", what, time.monotonic() - began)


def _say(out: Console, sign: str, what: str, took: float | None = None) -> None:
    """A line with a sign before it, and at its end how long it took."""
    duration = "" if took is None else table.seconds(took)
    out.print(f"  {sign} {what}{duration:>{max(out.width - len(what) - 5, 8)}}")


def _more(out: Console, what: str) -> None:
    out.print(f"    [dim]{what}[/]")
