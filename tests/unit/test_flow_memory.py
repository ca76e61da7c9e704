"""What a flow says it holds is what it holds: back-pressure is worth no more than that."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from stillwell.layout.dead_letter import dead_letters
from stillwell.records import Outcome, Records
from streams.flow import Flow
from tests.twin_line import Log, Worker, World, prepared

_T = TypeVar("_T")
BATCHES, RECORDS = 4, 5_000


async def never(*anything: Any) -> Any:
    """A sink that is silent."""
    await asyncio.Event().wait()


def a_log(rng: random.Random, bad: float) -> Log:
    """Records of some 300 bytes, so many of them unusable."""
    return Log(
        [
            json.dumps(
                {
                    "at": f"2026-01-01T00:00:{rng.randrange(60):02}Z",
                    "customer": f"c{rng.randrange(10**9)}",
                    "number": number,
                    "note": rng.randbytes(100).hex(),
                }
            ).encode()[: 100 if rng.random() < bad else None]
            for number in range(BATCHES * RECORDS)
        ]
    )


def fetched(log: Log, first: int) -> Records:
    """A batch as a fetch gives it: nobody else holds its records."""
    records = log.read(first, RECORDS)
    return dataclasses.replace(records, values=[bytes(bytearray(body or b"")) for body in records.values])


def memory() -> int:
    """Bytes that Python and Arrow hold."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] + int(pa.total_allocated_bytes())


@contextlib.asynccontextmanager
async def flowing(worker: Worker) -> AsyncIterator[Flow]:
    """A flow at the beginning of its partition."""
    flow = await worker.open()
    running = asyncio.create_task(flow.run())
    yield flow
    running.cancel()
    await asyncio.wait((running,))


@pytest.mark.parametrize("bad", [0.0, 0.05, 1.0], ids=["rows alone", "some rejects", "rejects alone"])
async def test_what_is_queued_for_silent_sinks_is_counted(
    rng: random.Random, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither more is held, such as all records of a batch with one reject, nor less."""
    world = World(Log([]))
    worker = Worker(world, "a")
    async with flowing(worker) as flow:
        monkeypatch.setattr(worker.online, "apply", never)
        monkeypatch.setattr(world.dead_letters, "send", never)
        monkeypatch.setattr(worker.sinks.threads, "call", never)
        log = a_log(rng, bad)
        prepared(flow, log.read(0, 100))  # what is made once, and stays
        tracemalloc.start()
        before = memory()
        for first in range(0, log.end, RECORDS):
            flow.take(prepared(flow, fetched(log, first)))
            await asyncio.sleep(0.01)
        held, counted = memory() - before, flow.nbytes
        tracemalloc.stop()
    assert 0.8 * counted <= held <= 1.1 * counted


async def test_of_a_batch_with_rejects_their_records_alone_are_kept_for_the_dead_letters(rng: random.Random) -> None:
    """And the letters are those that the whole batch would give."""
    async with flowing(Worker(World(Log([])), "a")) as flow:
        records = fetched(a_log(rng, 0.05), 0)
        batch = prepared(flow, records)
    assert batch.letters
    kept, whole = batch.letters.outcome, Outcome(records, (), batch.rejects)
    rejected = sorted({reject.offset for reject in batch.rejects})
    assert 100 < len(rejected) < RECORDS / 10
    assert kept.records.offsets.tolist() == rejected
    assert kept.rows == ()
    assert list(dead_letters(kept, 1, 1 << 20)) == list(dead_letters(whole, 1, 1 << 20))
