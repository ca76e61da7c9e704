"""What is left must be what was sent: the end of a run, and its proof."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import Any

from tests.acceptance.chaos.arena import PARTITIONS, TOPIC, Arena
from tests.integration import oracle, orders
from tests.waiting import eventually

_CATCH_UP_S = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """wrong: everything that is not as it must be; empty if all is right. The rest is counted for people."""

    wrong: list[str]
    records: int
    rows: int
    rejects: int
    customers: int
    links: int
    gaps: int
    files: int
    unlinked_files: int
    caught_up_after_s: float


def judge(arena: Arena) -> Verdict:
    """Let the workers finish, end them in order, and compare everything with an oracle over what Kafka holds."""
    wrong: list[str] = []
    started = time.monotonic()
    ends = orders.log_ends(arena.bootstrap, TOPIC, PARTITIONS)
    try:
        eventually(
            lambda: oracle.ends(arena.direct, TOPIC) == ends,
            within_s=_CATCH_UP_S,
            what=f"chains that end where the log does, {ends},",
        )
    except AssertionError as error:
        wrong.append(str(error))
    caught_up = time.monotonic() - started
    for number, worker in enumerate(arena.workers):
        code = worker.stop()
        if code != 0:
            wrong.append(f"worker {number} was told to end, and did with code {code}")
    report = _verified(arena, wrong)
    sent = orders.read(arena.bootstrap, TOPIC, PARTITIONS)
    wrong += oracle.what_is_wrong(arena.direct, TOPIC, sent)
    rows = [oracle.row_of(each) for each in sent]
    totals = report.get("partitions", [])
    return Verdict(
        wrong=wrong,
        records=len(sent),
        rows=sum(1 for row in rows if row and row[1].amount >= 0),
        rejects=sum(1 for row in rows if row is None),
        customers=len(oracle.newest(sent)),
        links=sum(total["links"] for total in totals),
        gaps=sum(total["gaps"] for total in totals),
        files=sum(total["files"] for total in totals),
        unlinked_files=len(report.get("unlinked", [])),
        caught_up_after_s=caught_up,
    )


def _verified(arena: Arena, wrong: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", "from stillwell.cli.main import main; main()", "verify", "--json"],
        cwd=arena.folder,
        env={**os.environ, **arena.direct},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        wrong.append(
            f"`stillwell verify` ended with code {done.returncode}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}"
        )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {}
    return report
