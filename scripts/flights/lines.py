"""Three lines for a shell, by which anybody may ask the query service; and their answers, shortened."""

import asyncio
import contextlib
import datetime
import json
import shlex

from scripts.flights.asking import Route
from scripts.flights.ending import DemoFailed
from scripts.flights.model import MODEL

_PATIENCE_S = 20.0
_WIDTH, _MOST_LINES = 88, 3


def lines(url: str, route: Route, now: datetime.datetime, *, with_model: bool) -> tuple[str, str, str]:
    """Features of a route, its prediction, and a push to it; without a model, features of airports in its place."""
    origin, dest = route
    keys = f"origin={origin}&dest={dest}"
    row = {"origin": origin, "dest": dest, "event_timestamp": now.isoformat(timespec="milliseconds")}
    push = {"view": "RouteDepartures", "rows": [{**row, "cancelled": False, "delay": 12, "miles": 2475}]}
    batch = {"features": ["AirportDepartures:delay"], "entities": {"airport": ["EWR", "JFK", "LGA"]}}
    second = (
        f"curl -s {shlex.quote(f'{url}/v1/predictions?model={MODEL}&{keys}')}"
        if with_model
        else f"curl -s {url}/v1/features -d {shlex.quote(json.dumps(batch))}"
    )
    return (
        f"curl -s {shlex.quote(f'{url}/v1/features?features=RouteDepartures:delay,Origin:late&{keys}')}",
        second,
        f"curl -s {url}/v1/push -d {shlex.quote(json.dumps({**push, 'transform_on_write': False}))}",
    )


async def run(line: str) -> str:
    """What a line prints, cut where that is too long. Raises DemoFailed where it prints no answer, or an error."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise DemoFailed(f"`{line}` printed nothing within {_PATIENCE_S:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    text = printed.decode(errors="replace").strip()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if process.returncode != 0 or not isinstance(answer, dict) or "error" in answer or answer.get("rejects"):
        raise DemoFailed(f"`{line}` ended with {process.returncode} and printed: {text}")
    return shortened(text)


def shortened(text: str) -> str:
    """The beginning of it, on a few lines that fit."""
    text = " ".join(text.split())
    most = _WIDTH * _MOST_LINES
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "\n".join(text[begin : begin + _WIDTH] for begin in range(0, len(text), _WIDTH))
