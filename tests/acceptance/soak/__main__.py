"""The command line of the soak; `scripts/soak` runs it."""

import asyncio
import collections
import dataclasses
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tests.acceptance import runs
from tests.acceptance.soak import cuts, verdict
from tests.acceptance.soak.load import Load
from tests.acceptance.soak.machine import Machine
from tests.acceptance.soak.parts import PARTITIONS, TOPIC, Parts, parts
from tests.acceptance.soak.watch import Watch
from tests.integration import orders
from tests.waiting import eventually_async

_PACE = 60
_EVENTS = 50
"""Records a second that come by the topic beside those that are pushed."""

_FILLED = 40_000
_LISTS = 3_000
"""Entities and lists of features that come before: more than either process keeps of any (`lru_cache`, `LruCache`)."""

_WARM_UP = 0.2
"""Of the length, before anything is judged, once caches are filled: allocators have found what they need by then."""

_IDLE_S = 300.0
"""How long what is under way may take to end. What comes before has a worker compute 40,000 predictions."""

_UNLINKED_S = 60.0
"""A window is open for ten; a worker that links much later holds in memory what a busy machine lets nobody compress."""

_SHOWN = 20

Say = Callable[[str], None]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--minutes", type=click.FloatRange(min=0.3), default=20.0, show_default=True, help="How long it is judged."
)
@click.option("--pace", type=click.IntRange(min=5), default=_PACE, show_default=True, help="Requests a second.")
@click.option("--leak", type=int, default=0, help="Bytes that a model keeps of each call on purpose, to be found.")
@click.option(
    "--trace",
    type=click.Choice(["service", "worker"]),
    help="Have its processes tell who asks for memory, into the folder of --logs; they are slower.",
)
@runs.options
def soak(
    minutes: float, seed: int | None, pace: int, summary: Path | None, logs: Path | None, leak: int, trace: str | None
) -> None:
    """Ask a query service and a worker for everything they can do, steadily, while Redis is slow, cut off and half open
    now and then; and see that nothing grows and no answer is wrong.

    Every answer is checked, or is an honest refusal, for which there must be a reason. Memory of each process
    is looked at every second, and may have no slope behind a warm-up; objects, open files, threads and tasks are looked
    at where nothing is under way, before and behind.

    Exit codes: 0 all is right, 1 something is wrong, 2 called wrongly.
    """
    with runs.begun("soak", seed, logs) as run, parts(run.folder, leak=leak, trace=trace) as running:
        run.say("Kafka, Redis, its proxy, a query service of two processes and a worker run")
        result = asyncio.run(_soak(running, minutes, run.seed, pace, run.say))
    result["seconds"] = round(run.seconds, 1)
    _show(result, run.say)
    runs.end(result, summary)


async def _soak(running: Parts, minutes: float, seed: int, pace: int, say: Say) -> dict[str, Any]:
    seconds = 60 * minutes
    disturbing = cuts.Cuts(running.proxies, time.monotonic)
    watch = Watch(running.processes(), running.told, time.monotonic)
    machine = Machine([*watch.pids, os.getpid()], time.monotonic)
    warm_up = _WARM_UP * seconds
    with orders.Feed.of_orders(running.bootstrap, TOPIC, PARTITIONS, random.Random(f"{seed} feed"), _EVENTS):
        async with Load(running.service.port, random.Random(f"{seed} load"), say) as load:
            share = min(1.0, minutes / verdict.SHORT_MINUTES)
            await load.fill(round(share * _FILLED), round(share * _LISTS))
            say(f"filled with {sum(load.told.done.values())} requests")
            await load.run(warm_up, pace)
            wrong = await _at_rest(running)
            await watch.collect()
            before, named_before = watch.now(), watch.named()
            say(f"warmed up, and at rest: {_held(before)}")
            beside = [asyncio.create_task(watch.run()), asyncio.create_task(_cut(disturbing, seed))]
            beside.append(asyncio.create_task(machine.run()))
            began, first_refusal, first_late = time.monotonic(), len(load.told.refusals), len(load.told.late)
            asking = asyncio.create_task(load.run(seconds, pace))
            while not asking.done():
                await asyncio.wait({asking, *beside}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
                for task in beside:
                    if task.done():
                        task.result()
                say(f"{sum(load.told.done.values())} right, {load.told.wrongs} wrong; {_held(watch.now())}")
            asking.result()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            wrong += load.told.wrong
            took = time.monotonic() - began
            told = load.told
    wrong += await _at_rest(running)
    await watch.collect()
    after, named_after = watch.now(), watch.named()
    wrong += verdict.left(before, after, minutes)
    wrong += [f"{name} has ended by itself" for name in watch.gone]
    if {each.pid for each in running.processes().values()} != watch.pids:
        wrong.append("a process was started anew")
    found = verdict.findings(watch.samples, minutes)
    wrong += verdict.grown(found)
    for process in (running.service, running.worker):
        code = await asyncio.to_thread(process.stop)
        if code != 0:
            wrong.append(f"{process.log.name}: it ended with {code}")
        if "Traceback" in process.log.read_text(errors="replace"):
            wrong.append(f"{process.log.name}: it tells of a mistake of its own (Traceback)")
    wrong += await asyncio.to_thread(running.verified)
    del told.refusals[:first_refusal], told.late[:first_late]
    in_peace, late = verdict.refused_in_peace(told, disturbing.explain, machine), verdict.too_late(told, machine)
    wrong += [f"refused though all was well: {each.what}" for each in in_peace[:_SHOWN]]
    wrong += [f"late: {each.what}" for each in late[:_SHOWN]]
    if told.left_out:
        wrong.append(f"the machine does not carry this pace: {told.left_out} requests were left out")
    return {
        "good": not wrong,
        "seed": seed,
        "minutes": minutes,
        "pace": pace,
        "asked_s": round(took, 1),
        "requests": told.requests,
        "right": dict(told.done),
        "wrong_answers": told.wrongs,
        "refused": dict(collections.Counter(each.what.partition(":")[0] for each in told.refusals)),
        "refused_while_all_was_well": len(in_peace),
        "slower_than_deadlines": len(told.late),
        "slower_though_nobody_waited": len(late),
        "waited_for_processors_s": round(machine.altogether, 1),
        "left_out": told.left_out,
        "slowest_s": {kind: round(value, 2) for kind, value in told.slowest.items()},
        "cuts": dict(collections.Counter(disturbing.ways)),
        "proxies_restarted": running.proxies.restarts,
        "held": [
            {
                "process": each.process,
                "measure": each.measure,
                **{name: round(value, 3) for name, value in dataclasses.asdict(each.trend).items()},
                "limit_per_minute": each.limit.per_minute,
            }
            for each in found
        ],
        "at_rest_before": before,
        "at_rest_after": after,
        "more_at_rest": {
            name: dict(named_after[name] - of) for name, of in named_before.items() if name in named_after
        },
        "samples": {
            name: {
                measure: [(round(at - began, 1), round(value, 2)) for at, value in series]
                for measure, series in of.items()
            }
            for name, of in watch.samples.items()
        },
        "wrong": wrong,
    }


async def _cut(disturbing: cuts.Cuts, seed: int) -> None:
    for cut in cuts.planned(random.Random(f"{seed} cuts")):
        await disturbing.make(cut)


async def _at_rest(running: Parts) -> list[str]:
    """Wait until nothing is under way any more; what still is, in words."""

    async def nothing() -> bool:
        return await asyncio.to_thread(_under_way, running) == []

    try:
        await eventually_async(nothing, within_s=_IDLE_S)
    except AssertionError:
        return [f"{each} though nobody asks any more" for each in _under_way(running)]
    return []


def _under_way(running: Parts) -> list[str]:
    """The page that tells is itself a request over a connection."""
    at_most = {
        "stillwell_serve_in_flight_requests": 1.0,
        "stillwell_serve_open_connections": 1.0,
        "stillwell_serve_waiting_readers": 0.0,
        "stillwell_serve_rows_under_way": 0.0,
        "stillwell_serve_reads_after_pushes": 0.0,
    }
    left = [
        f"{name} is {found}"
        for name, most in at_most.items()
        if not (found := running.gauges(name)) or sum(found) > most
    ]
    if waiting := sum(running.gauges("stillwell_refresh_waiting", running.worker)):
        left.append(f"{waiting:.0f} predictions wait to be computed")
    if (late := max(running.gauges("stillwell_unlinked_seconds", running.worker), default=0.0)) > _UNLINKED_S:
        left.append(f"the worker has linked nothing for {late:.0f} s")
    return left


def _held(now: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{name} {of.get('memory', 0):.1f} MiB, {of.get('files', 0):.0f} files" for name, of in now.items()
    )


def _show(result: dict[str, Any], say: Say) -> None:
    for name, value in result.items():
        if name == "held":
            for each in value:
                say(
                    f"{each['process']:>8} {each['measure']:>8}: {each['first']:10.2f} → {each['last']:10.2f}, most "
                    f"{each['most']:10.2f}; {each['per_minute']:+8.3f} a minute, {each['limit_per_minute']:g} allowed"
                )
        elif name != "samples":
            say(f"{name}: {value}")


if __name__ == "__main__":
    soak()
