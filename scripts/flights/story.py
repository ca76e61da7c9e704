"""What happens, in order: start, feed, kill, start again, wait, verify, compute again, compare, end."""

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis.asyncio
from rich.status import Status

from scripts.flights import replay, scene, source, table
from scripts.flights.ending import AGREED, FAILED, INTERRUPTED, DemoFailed, interrupt_on_sigterm
from scripts.flights.feed import Feed, Pace
from scripts.flights.keeper import HandOver
from scripts.flights.observe import Look, Observer
from scripts.flights.oracle import Oracle
from scripts.flights.proof import Proof, compare_all, verify, wrong_at_rest
from scripts.flights.scene import Worker
from scripts.flights.summary import Outage, summary
from scripts.flights.voice import Voice
from sinks.redis import RedisOnlineStore
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


def tell(options: Options, hand_over: HandOver | None = None) -> int:
    """The whole demo; gives the exit code. hand_over: called when all is well and everything is to go on."""
    interrupt_on_sigterm()
    voice = Voice()
    began = time.monotonic()
    stack: LocalStack | None = None
    workers: list[Worker] = []
    voice.say("[bold]Stillwell[/]: a year of flights out of New York, through real Kafka into real Redis and Parquet\n")
    try:
        with voice.working("Starting Kafka and Redis, reading the flights") as status:
            stack = LocalStack(progress=_shown_on(status))
            prepared = _start(stack, options, voice)
        workers += [Worker(name, stack.folder / f"{name.replace(' ', '-')}.log") for name in scene.WORKERS]
        story = _Story(options, voice, stack, workers, prepared, began)
        agrees = asyncio.run(_cancelled_by_signals(story.run(hand_over)))
        with voice.working("Ending the workers, Kafka and Redis"):
            _end(stack, workers, in_order=True, remove=agrees)
        if not agrees:
            _say_what_stays(stack, voice)
        return AGREED if agrees else FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        voice.say("\nInterrupted; ending everything that was started.")
        _end(stack, workers, in_order=False, remove=True)
        voice.say("Ended: no process of the demo is left, and none of its data.")
        return INTERRUPTED
    except (DemoFailed, StillwellError) as failure:
        voice.failure(str(failure))
        _end(stack, workers, in_order=False, remove=False)
        _say_what_stays(stack, voice)
        return FAILED


def _end(stack: LocalStack | None, workers: Sequence[Worker], *, in_order: bool, remove: bool) -> None:
    """End the workers, by a kill where what they hold does not matter, and the stack. remove: its data and logs too."""
    for worker in workers:
        if in_order:
            worker.stop()
        elif worker.process is not None:
            worker.kill()
    if stack is not None:
        if remove:
            stack.stop()
        else:
            stack.kafka.stop()
            stack.redis.stop()


def _say_what_stays(stack: LocalStack | None, voice: Voice) -> None:
    if stack is not None:
        voice.say(f"\nEverything was ended. Logs and data stay in {stack.folder} until the next run.")


def _shown_on(status: Status) -> Progress:
    """Show how far the download of Kafka is, if there is one."""

    def show(done: int, total: int) -> None:
        status.update(f"Fetching Kafka, this once: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return show


def _start(stack: LocalStack, options: Options, voice: Voice) -> _Prepared:
    """Start the stack, and read the files meanwhile."""
    began = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        preparing = threads.submit(_prepare, stack.folder, options)
        stack.start()
        scene.enter(stack)
        scene.create_topics(stack.bootstrap)
        voice.good(f"Kafka {KAFKA_VERSION} and Redis run on this machine", began)
        prepared = preparing.result()
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
    return prepared


def _prepare(folder: Path, options: Options) -> _Prepared:
    files = source.unpack(folder)
    year = replay.read(files)
    shift = replay.shift_to(datetime.datetime.now(datetime.UTC), year)
    plan = replay.plan(replay.events(year, shift), options.events, options.seed, replay.Disorder())
    return _Prepared(files, shift, plan)


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
        stack: LocalStack,
        workers: Sequence[Worker],
        prepared: _Prepared,
        began: float,
    ) -> None:
        self._options = options
        self._voice = voice
        self._stack = stack
        self._workers = workers
        self._prepared = prepared
        self._began = began
        self._note = ""
        self._is_over = asyncio.Event()

    async def run(self, hand_over: HandOver | None) -> bool:
        """Whether all agreed. With hand_over, if so, everything goes on until it is cancelled."""
        settings, definitions = Settings.load(), load_definitions(scene.DEFINITIONS)
        async with contextlib.AsyncExitStack() as closing:
            online = await RedisOnlineStore.open(settings)
            closing.push_async_callback(online.close)
            client = redis.asyncio.from_url(self._stack.redis_url)
            closing.push_async_callback(client.aclose)
            keys, objects = RedisKeys(settings.project, settings.namespace), open_store(settings.offline_root)
            observer = Observer(self._workers, definitions, online, client, keys, objects)
            closing.push_async_callback(observer.close)
            await self._start_workers(observer)
            feed, outage = await self._stream(observer)
            last = await observer.look()
            proof = await self._prove(feed, last, online, definitions)
            took = time.monotonic() - self._began
            if self._options.summary is not None:
                found = {**summary(self._prepared.plan, feed, outage, last, proof), **self._circumstances(took)}
                self._options.summary.write_text(json.dumps(found, indent=2) + "\n")
            if proof.wrong:
                self._voice.disagreement(proof.wrong, took)
                return False
            self._voice.agreement(took)
            if hand_over is None:
                self._voice.how_to_look_further()
                return True
            environment = {**scene.PROJECT, **self._stack.environment}
            self._voice.how_to_look_around(environment, scene.STILLWELL.parent, os.getpid())
            hand_over()
            await asyncio.Event().wait()
            return True

    def _circumstances(self, took: float) -> dict[str, object]:
        shift = int(self._prepared.shift.total_seconds())
        return {"seed": self._options.seed, "shift_s": shift, "total_s": round(took, 1)}

    # ---- the stream ----

    async def _start_workers(self, observer: Observer) -> None:
        began = time.monotonic()
        with self._voice.working("Starting two workers"):
            for worker in self._workers:
                worker.start()
            await self._until_all_flow(observer)
        self._voice.good(
            f"{len(self._workers)} workers share {sum(scene.consumed_partitions().values())} partitions", began
        )

    async def _stream(self, observer: Observer) -> tuple[Feed, Outage]:
        """Feed everything, with a kill in the middle, and wait until it is linked."""
        records = self._prepared.plan.records
        # A short feed must not be over before anybody was killed.
        pace = Pace(ahead=min(_AHEAD, records.height // 8), outage_ahead=min(_OUTAGE_AHEAD, records.height // 3))
        bootstrap = self._stack.bootstrap
        feed = Feed(bootstrap, records, pace, observer.served, lambda: time.time_ns() // 1_000_000)
        self._note = "both workers run"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(feed, observer))
                feeding = tasks.create_task(feed.run())
                outage = await self._kill_one(feed, pace, observer)
                await feeding
                self._voice.good(f"{feed.sent:,} events sent, {feed.rate:,.0f} a second", feed.began)
                self._note = "the rest is being linked"
                await self._until_linked(feed, observer)
                self._note = "all is linked"
                self._is_over.set()
        except* Exception as group:
            raise group.exceptions[0] from None
        return feed, outage

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
        history, is_last = table.History(), False
        with self._voice.picture() as picture:
            while not is_last:
                is_last = self._is_over.is_set()
                self._check_workers()
                look = await observer.look()
                seen = table.Scene(time.monotonic() - feed.began, feed.progress(), look, history.add(look), self._note)
                picture.show(seen, is_last=is_last)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), _LOOK_EVERY)

    # ---- the proof ----

    async def _prove(self, feed: Feed, last: Look, online: RedisOnlineStore, definitions: DefinitionsSpec) -> Proof:
        began = time.monotonic()
        with self._voice.working("stillwell verify"):
            verified = await verify()
        say = self._voice.good if verified.good else self._voice.bad
        say(
            f"stillwell verify: {verified.records:,} records in {verified.partitions} chains and {verified.files:,} "
            f"files, {len(verified.findings)} findings",
            began,
        )
        if verified.unlinked:
            self._voice.more(f"{verified.unlinked} files that the killed worker had begun belong to no link: unseen")
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
        return Proof(verified, agreements, wrong)
