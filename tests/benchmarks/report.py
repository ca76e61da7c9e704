"""A run's result: for people, for programs, and as the table of the reference page."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.figures import INGEST, SERVE, Limit, Verdict

Result = dict[str, Any]
"""What is written as JSON: every key of the limits at the top, beside `bench`, `machine`, `versions`, `measured_at`,
`scale`, `notes`, `skipped`, `verdicts`, `stage_us_per_event`, `medians`, and `runs`, which holds every raw value."""

BEGIN = "<!-- figures: made by `scripts/bench table` -->\n"
BEGIN_SERVE = "<!-- figures of serve: made by `scripts/bench table` -->\n"
END = "<!-- end of figures -->\n"

_OF_BENCH = {"ingest": (BEGIN, INGEST), "serve": (BEGIN_SERVE, SERVE)}

_VERSIONS = (
    *("stillwell", "aiokafka", "faust-streaming", "polars", "pyarrow", "redis", "hiredis", "aiohttp", "uvloop"),
    "msgspec",
)
_STYLES = {"GOAL": "bold green", "PASS": "green", "FAIL": "bold red", "NONE": "yellow"}


def machine(redis_version: str, kafka_version: str) -> dict[str, Any]:
    """What the figures were measured on, and with which software."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": _processor(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": {
            "python": platform.python_version(),
            "kafka": kafka_version,
            "redis_server": redis_version,
            **versions,
        },
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_json(result: Result, file: Path) -> None:
    """The result, infinite figures as null, since JSON has none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_finite(result), indent=1) + "\n")


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """GOAL, PASS, FAIL or NONE for each key, one line each."""
    console.rule("[bold]figures")
    console.print(f"     {'key':<26}{'figure':>15}{'limit':>12}{'goal':>10}  what it is", highlight=False)
    for verdict in verdicts:
        limit = verdict.limit
        bound = f"{_sign(limit)} {shown(limit.limit, limit)}"
        goal = "" if limit.goal is None else shown(limit.goal, limit)
        console.print(
            f"[{_STYLES[verdict.word]}]{verdict.word}[/] {limit.key:<26}{shown(verdict.value, limit):>15}{bound:>12}"
            f"{goal:>10}  {limit.meaning}",
            highlight=False,
        )


def shown(value: float | None, limit: Limit) -> str:
    """A figure with its unit, as precise as its limit is."""
    if value is None:
        return "not measured"
    digits = 0 if limit.limit >= 100 else 1 if limit.limit >= 5 else 2
    return f"{value:,.{digits}f} {limit.unit}"


def page_with(page: str, result: Mapping[str, Any]) -> str:
    """A page whose table of figures is that of a result. Raises ValueError for a page without a place for it."""
    place, _ = _OF_BENCH[result["bench"]]
    before, begin, rest = page.partition(place)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for figures: it needs the lines {place.strip()!r} and {END.strip()!r}")
    return before + begin + _table(result) + end + after


def _table(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    lines = [
        "",
        f"Measured {result['measured_at'][:10]} on {machine['cores']} cores ({machine['processor']}), Python "
        f"{versions['python']}, Kafka {versions['kafka']}, Redis {versions['redis_server']}; all medians of one run.",
        "",
        "| key | figure | limit | goal | |",
        "|---|---|---|---|---|",
        *(_line(limit, result.get(limit.key)) for limit in _OF_BENCH[result["bench"]][1]),
        "",
        *_medians(result["medians"]),
        "",
    ]
    return "\n".join(lines) + "\n"


def _line(limit: Limit, value: float | None) -> str:
    goal = "" if limit.goal is None else shown(limit.goal, limit)
    cells = (f"`{limit.key}`", shown(value, limit), f"{_sign(limit)} {shown(limit.limit, limit)}", goal, limit.meaning)
    return f"| {' | '.join(cells)} |"


def _sign(limit: Limit) -> str:
    return "≥" if limit.sense == "at least" else "≤"


def _medians(medians: Mapping[str, float]) -> Iterable[str]:
    if medians:
        yield from ("| median | |", "|---|---|")
        yield from (f"| {name} | {plain(value)} |" for name, value in medians.items())


def plain(value: float) -> str:
    """A number with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _finite(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _processor() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
