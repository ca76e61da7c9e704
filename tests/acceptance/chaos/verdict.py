"""What is left must be what was sent: the end of a run, and its proof."""

import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from stillwell.errors import StillwellError
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import RedisServer
from tests.acceptance.chaos.arena import PARTITIONS, TOPIC, Arena
from tests.acceptance.chaos.witness import Witness
from tests.integration import oracle, orders
from tests.waiting import eventually

_CATCH_UP_S = 120.0
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """wrong: everything that is not as it must be; empty if all is right. digest: of all rows in Redis, byte by byte;
    rebuilt_digest: of those in another Redis that was filled from the linked files alone. witnessed_after_s: the median
    of how long after its making a link was looked at. The rest is counted for people."""

    wrong: list[str]
    records: int
    rows: int
    rejects: int
    customers: int
    links: int
    links_witnessed: int
    witnessed_after_s: float
    gaps: int
    files: int
    unlinked_files: int
    caught_up_after_s: float
    digest: str
    rebuilt_digest: str


def judge(arena: Arena, witness: Witness) -> Verdict:
    """Let the workers finish, end them in order, and compare everything with an oracle over what Kafka holds."""
    wrong: list[str] = []
    started = time.monotonic()
    ends = orders.log_ends(arena.bootstrap, TOPIC, PARTITIONS)
    try:
        eventually(
            lambda: witness.ends == ends, within_s=_CATCH_UP_S, what=f"chains that end where the log does, {ends},"
        )
    except AssertionError as error:
        wrong.append(f"{error}; they end at {witness.ends}")
    caught_up = time.monotonic() - started
    wrong += _ended(arena)
    wrong += witness.wrong
    report = _verified(arena, wrong)
    sent = orders.read(arena.bootstrap, TOPIC, PARTITIONS)
    try:
        wrong += oracle.what_is_wrong(arena.direct, TOPIC, sent)
    except StillwellError as error:
        wrong.append(f"the oracle cannot read what is there: {error!r}")
    digest, rebuilt = _digest(arena.direct, arena.direct["STILLWELL_REDIS_URL"]), _digest_of_rebuilt(arena, wrong)
    if digest != rebuilt:
        wrong.append(f"Redis is not what the linked files make of an empty one: digests {digest} and {rebuilt}")
    rows = [oracle.row_of(each) for each in sent]
    totals = report.get("partitions", [])
    return Verdict(
        wrong=wrong,
        records=len(sent),
        rows=sum(1 for row in rows if row and row[1].amount >= 0),
        rejects=sum(1 for row in rows if row is None),
        customers=len(oracle.newest(sent)),
        links=sum(total["links"] for total in totals),
        links_witnessed=len(witness.lateness),
        witnessed_after_s=round(statistics.median(witness.lateness or [0]), 2),
        gaps=sum(total["gaps"] for total in totals),
        files=sum(total["files"] for total in totals),
        unlinked_files=len(report.get("unlinked", [])),
        caught_up_after_s=round(caught_up, 1),
        digest=digest,
        rebuilt_digest=rebuilt,
    )


def _ended(arena: Arena) -> list[str]:
    wrong = []
    for number, worker in enumerate(arena.workers):
        try:
            # One that was started in the last round may still be on its way, where nothing heeds SIGTERM yet.
            code = worker.until_ready(_CATCH_UP_S).stop()
        except AssertionError as error:
            wrong.append(f"worker {number} was told to end: {error}")
        else:
            if code != 0:
                wrong.append(f"worker {number} was told to end, and did with code {code}: {worker.log}")
    return wrong


def _verified(arena: Arena, wrong: list[str]) -> dict[str, Any]:
    done = _run(arena, arena.direct, "verify", "--json")
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        report = {}
    if done.returncode != 0:
        findings = report.get("findings", [])
        wrong.append(
            f"`stillwell verify` ended with code {done.returncode} and {len(findings)} findings, such as "
            f"{findings[:_SHOWN]} {done.stderr[-2_000:]}"
        )
    return report


def _digest_of_rebuilt(arena: Arena, wrong: list[str]) -> str:
    # In a folder that nobody has used: kept logs may be of an earlier run, with what its server saved at its end.
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            done = _run(arena, {**arena.direct, "STILLWELL_REDIS_URL": server.url}, "rebuild", "--json")
            if done.returncode != 0:
                wrong.append(
                    f"`stillwell rebuild` ended with code {done.returncode}: {done.stdout}{done.stderr[-2_000:]}"
                )
            return _digest(arena.direct, server.url)
        finally:
            server.stop()


def _digest(environment: Mapping[str, str], url: str) -> str:
    """SHA-256 of every row's key and bytes, in the order of keys."""
    keys = RedisKeys(environment["STILLWELL_PROJECT"], environment["STILLWELL_NAMESPACE"])
    digest = hashlib.sha256()
    with redis.Redis.from_url(url) as client:
        names: list[bytes] = sorted(client.scan_iter(keys.prefix + b"f:*", count=10_000))
        for name, row in zip(names, client.mget(names) if names else (), strict=True):
            digest.update(b"%d %d " % (len(name), len(row)) + name + row)
    return digest.hexdigest()


def _run(arena: Arena, environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from stillwell.cli.main import main; main()", *arguments],
        cwd=arena.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
