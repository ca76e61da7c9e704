"""The proof of what is served: pushes are read back, and predictions that are FRESH are the model's word.

Nothing of the product has a part in it but the service that is asked: the model server is asked here directly, about
the values that the service shows now.
"""

import asyncio
import dataclasses
import datetime
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from scripts.flights.asking import Asking, Route
from scripts.flights.ending import DemoFailed
from scripts.flights.model import SERVED

FEATURES: Mapping[str, str] = {
    "route_delay": "RouteDepartures:delay",
    "miles": "RouteDepartures:miles",
    "origin_delay": "Origin:delay",
    "wind_speed": "OriginWeather:wind_speed",
    "visibility": "OriginWeather:visibility",
}
"""Of which feature each input of the model is, as the service names them."""

_PUSHED = 50
_AFTER_MS = 20_000
_POLL = 0.1
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a reader saw of predictions while flights came into Redis, by reading them again and again. looks: how often
    it read; refreshed: how often it found one that was computed anew since it had last looked; fresh_again: how often
    one was FRESH that had been STALE when it last looked."""

    looks: int
    refreshed: int
    fresh_again: int


class Watch:
    """Keeps what is seen of predictions, look by look."""

    def __init__(self) -> None:
        self._last: dict[Route, tuple[str, str]] = {}
        self._counts: Counter[str] = Counter()

    def look(self, routes: Sequence[Route], predictions: Sequence[Any]) -> None:
        """Take note of what the service said just now."""
        self._counts["looks"] += bool(routes)
        for route, each in zip(routes, predictions, strict=True):
            if each["computed_at"] is None:
                continue
            state, computed_at = self._last.get(route, (each["state"], each["computed_at"]))
            self._counts["refreshed"] += each["computed_at"] != computed_at
            self._counts["fresh_again"] += (state, each["state"]) == ("STALE", "FRESH")
            self._last[route] = each["state"], each["computed_at"]

    @property
    def seen(self) -> Seen:
        """All of it."""
        return Seen(self._counts["looks"], self._counts["refreshed"], self._counts["fresh_again"])


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """Pushes that were each read back by their token; wrong: in words, where one was not."""

    count: int
    wrong: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Foretold:
    """Predictions beside the model; fresh: those that the service called so. least, most: minutes. wrong: in words, the
    first few."""

    routes: int
    fresh: int
    differing: int
    least: float
    most: float
    wrong: tuple[str, ...]


async def push_and_read(asking: Asking, routes: Sequence[Route], now: datetime.datetime) -> Pushed:
    """Push a departure on each of some routes, as an event of its own, and read it as soon as its token says."""
    chosen = routes[:_PUSHED]
    found = await asyncio.gather(
        *(_push_and_read(asking, route, float(number), now) for number, route in enumerate(chosen))
    )
    return Pushed(len(chosen), tuple(words for words in found if words))


async def _push_and_read(asking: Asking, route: Route, delay: float, now: datetime.datetime) -> str | None:
    """What is wrong, in words."""
    origin, dest = route
    at = now.isoformat()
    event = {"at": at, "carrier": "ZZ", "number": 1, "tail": None, "origin": origin, "dest": dest, "miles": 1_000}
    event |= {"scheduled": at, "departed": at, "delay": delay, "cancelled": False}
    token = (await asking.push("RouteDepartures", [event], "async"))["token"]
    answer = await asking.features(["RouteDepartures:delay"], [route], after=token, timeout_ms=_AFTER_MS)
    (value,) = answer["features"]["RouteDepartures:delay"]["values"]
    return None if value == delay else f"{origin}-{dest}: {delay} was pushed as {token}, and {value} was read after it"


async def until_fresh(asking: Asking, routes: Sequence[Route], patience_s: float) -> Counter[str]:
    """Ask until every prediction is fresh. Raises DemoFailed when for so long no more of them are."""
    most, since = -1, time.monotonic()
    while True:
        predictions = await asking.predictions(routes)
        states = Counter(each["state"] for each in predictions)
        if states["FRESH"] == len(routes):
            return states
        if states["FRESH"] > most:
            most, since = states["FRESH"], time.monotonic()
        if time.monotonic() - since > patience_s:
            reasons = {each["reason"] for each in predictions if each["reason"]}
            raise DemoFailed(
                f"Predictions do not become fresh: of {len(routes)} routes {dict(states)}, for {patience_s:g} s; "
                f"{'; '.join(sorted(reasons)[:3]) or 'no reason is told'}"
            )
        await asyncio.sleep(_POLL)


async def compare_with_model(asking: Asking, model_url: str, routes: Sequence[Route]) -> Foretold:
    """The predictions of the service beside those of the model, of the values that the service shows, to the bit."""
    predictions = await asking.predictions(routes)
    shown = (await asking.features(list(FEATURES.values()), routes))["features"]
    answer = await asking.post(
        f"{model_url}/v2/models/{SERVED['name']}/infer", _request({name: shown[of] for name, of in FEATURES.items()})
    )
    return compare(routes, predictions, answer["outputs"][0]["data"])


def _request(values: Mapping[str, Any]) -> dict[str, object]:
    """One batch of all routes, in the tensors that the model was declared with."""
    return {
        "inputs": [
            {
                "name": each["name"],
                "datatype": each["datatype"],
                "shape": [len(values[each["name"]]["values"]), 1],
                "data": values[each["name"]]["values"],
            }
            for each in SERVED["inputs"]
        ]
    }


def compare(routes: Sequence[Route], predictions: Sequence[Any], expected: Sequence[float]) -> Foretold:
    """Every prediction must be fresh, and the model's word in 32 bits."""
    wrong = list(_differences(routes, predictions, expected))
    minutes = [each["outputs"]["minutes"] for each in predictions if each["outputs"]]
    return Foretold(
        routes=len(routes),
        fresh=sum(each["state"] == "FRESH" for each in predictions),
        differing=len(wrong),
        least=min(minutes, default=0.0),
        most=max(minutes, default=0.0),
        wrong=tuple(itertools.islice(wrong, _SHOWN)),
    )


def _differences(routes: Sequence[Route], predictions: Sequence[Any], expected: Sequence[float]) -> Iterator[str]:
    if not len(routes) == len(predictions) == len(expected):
        yield f"{len(routes)} routes have {len(predictions)} predictions, and the model says {len(expected)}"
        return
    for (origin, dest), prediction, minutes in zip(routes, predictions, expected, strict=True):
        if prediction["state"] != "FRESH":
            yield f"{origin}-{dest}: the prediction is {prediction['state']}: {prediction['reason']}"
        elif np.float32(prediction["outputs"]["minutes"]) != np.float32(minutes):
            yield f"{origin}-{dest}: {prediction['outputs']['minutes']} is called FRESH, and the model says {minutes}"
