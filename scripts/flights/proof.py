"""The proof, when all is linked: `stillwell verify`, and the oracle beside what is at rest and what is in Redis.

What is served is proven in `predicted.py`.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from scripts.flights.agreement import Agreement, compare, read
from scripts.flights.ending import DemoFailed
from scripts.flights.oracle import VIEWS, Oracle
from scripts.flights.predicted import Foretold, Pushed
from scripts.flights.replay import PARTITIONS
from scripts.flights.scene import STILLWELL
from sinks.redis import RedisOnlineStore
from stillwell.spec import DefinitionsSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What `stillwell verify` has found. records: of all topics; flights: of those that the demo has sent; rows and
    rejected: by view."""

    good: bool
    findings: tuple[str, ...]
    partitions: int
    records: int
    flights: int
    files: int
    unlinked: int
    rows: Mapping[str, int]
    rejected: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """Everything that was found; foretold: None where there is no model. wrong: in words, empty if all agrees."""

    verified: Verified
    agreements: list[Agreement]
    pushed: Pushed
    foretold: Foretold | None
    wrong: list[str]


async def verify() -> Verified:
    """Run the command. Raises DemoFailed when it does not come to an end."""
    process = await asyncio.create_subprocess_exec(
        STILLWELL, "verify", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        printed, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    try:
        return _verified(json.loads(printed))
    except json.JSONDecodeError:
        raise DemoFailed(f"`stillwell verify` ended with {process.returncode}: {said.decode().strip()}") from None


def _verified(report: dict[str, Any]) -> Verified:
    partitions = report["partitions"]
    rows: dict[str, int] = {}
    rejected: dict[str, int] = {}
    for partition in partitions:
        for name, account in partition["views"].items():
            view = name.partition("@")[0]
            rows[view] = rows.get(view, 0) + account["rows"]
            rejected[view] = rejected.get(view, 0) + account["rejected"]
    return Verified(
        good=report["good"],
        findings=tuple(f"{each['kind']}: {each['path']}: {each['error']}" for each in report["findings"]),
        partitions=len(partitions),
        records=sum(partition["records"] for partition in partitions),
        flights=sum(
            partition["records"] for partition in partitions if partition["partition"].rpartition("@")[0] in PARTITIONS
        ),
        files=sum(partition["files"] for partition in partitions),
        unlinked=len(report["unlinked"]),
        rows=rows,
        rejected=rejected,
    )


def wrong_at_rest(
    verified: Verified, sent: Mapping[str, int], oracle: Oracle, definitions: DefinitionsSpec
) -> Iterator[str]:
    """Where the accounts at rest are not what follows from what was sent. sent: records by topic."""
    yield from verified.findings
    if verified.flights != sum(sent.values()):
        yield f"{verified.flights:,} records are at rest, {sum(sent.values()):,} were sent"
    readable = oracle.readable()
    for view in definitions.views:
        topic = view.source.topic
        refused, expected = verified.rejected.get(view.name, 0), sent.get(topic, 0) - readable[topic]
        if refused != expected:
            yield f"{view.name}: {refused:,} records were rejected, {expected:,} cannot be used"
    for name in VIEWS:
        rows, expected = verified.rows.get(name, 0), oracle.row_count(name)
        if rows != expected:
            yield f"{name}: {rows:,} rows are in Parquet, the files give {expected:,}"


async def compare_all(
    oracle: Oracle, store: RedisOnlineStore, definitions: DefinitionsSpec, entities: Mapping[str, int]
) -> list[Agreement]:
    """Every view that the oracle knows. entities: how many Redis holds, by view."""
    agreements = []
    for view in definitions.views:
        if view.name in VIEWS:
            expected = oracle.newest(view.name)
            found = await read(store, view, list(expected))
            agreements.append(compare(view.name, expected, found, entities[view.name]))
    return agreements
