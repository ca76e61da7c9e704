"""The demo's proof of predictions, and the lines that it offers."""

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from scripts.flights import asking
from scripts.flights.asking import Asking
from scripts.flights.ending import DemoFailed
from scripts.flights.examples import INPUTS
from scripts.flights.lines import lines, run, shortened
from scripts.flights.model import MODEL, SERVED
from scripts.flights.predicted import FEATURES, Seen, Watch, compare
from stillwell.definitions.loading import load_definitions
from stillwell.predictions.tensors import metadata_of, mismatches
from tests.processes import still_running
from tests.waiting import eventually_async

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
ROUTES = [("JFK", "LAX"), ("EWR", "SFO")]


def said(minutes: float | None, state: str = "FRESH", computed_at: str | None = None) -> dict[str, Any]:
    """A prediction as the service tells it."""
    outputs = None if minutes is None else {"minutes": minutes}
    return {"state": state, "outputs": outputs, "computed_at": computed_at, "reason": "why"}


async def test_a_busy_service_is_asked_again_and_one_that_refuses_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_PAUSE", 0.0)
    statuses = [503, 503, 200, 422]

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"token": "t"}, status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/v1/push", answer)
    async with TestServer(app) as server:
        asked = Asking(str(server.make_url("")).rstrip("/"))
        assert await asked.push("V", [], "async") == {"token": "t"}
        with pytest.raises(DemoFailed, match="answered 422"):
            await asked.push("V", [], "async")
        await asked.close()
    assert statuses == []


def test_predictions_that_are_the_models_word_in_32_bits_agree() -> None:
    tenth = float(np.float32(0.1))
    found = compare(ROUTES, [said(tenth), said(-3.0)], [0.1, -3.0])
    assert (found.routes, found.fresh, found.differing, found.wrong) == (2, 2, 0, ())
    assert (found.least, found.most) == (-3.0, tenth)


@pytest.mark.parametrize(
    ("prediction", "says"),
    [
        (said(2.000001), "JFK-LAX: 2.000001 is called FRESH, and the model says 2.0"),
        (said(2.0, "STALE"), "JFK-LAX: the prediction is STALE: why"),
        (said(None, "FAILED"), "JFK-LAX: the prediction is FAILED: why"),
    ],
)
def test_a_prediction_that_is_not_the_models_word_is_found(prediction: dict[str, Any], says: str) -> None:
    found = compare(ROUTES, [prediction, said(1.0)], [2.0, 1.0])
    assert (found.differing, found.wrong) == (1, (says,))


def test_a_missing_prediction_is_found() -> None:
    assert "2 routes have 1 predictions" in compare(ROUTES, [said(1.0)], [1.0, 2.0]).wrong[0]


def test_what_a_reader_sees_refreshed_while_flights_stream_is_counted_once_for_each_time() -> None:
    watch = Watch()
    watch.look([], [])
    watch.look(ROUTES[:1], [said(None, "MISSING")])
    assert watch.seen == Seen(1, 0, 0), "what was never there has not been refreshed"
    watch.look(ROUTES, [said(1.0, "FRESH", "10:00"), said(1.0, "STALE", "10:00")])
    assert watch.seen == Seen(2, 0, 0), "what is seen for the first time has not either"
    watch.look(ROUTES, [said(1.0, "STALE", "10:00"), said(1.0, "STALE", "10:01")])
    assert watch.seen == Seen(3, 1, 0)
    watch.look(ROUTES, [said(2.0, "FRESH", "10:02"), said(1.0, "STALE", "10:01")])
    assert watch.seen == Seen(4, 2, 1)


def test_the_model_is_declared_alike_where_it_is_trained_served_asked_and_defined() -> None:
    (model,) = (each for each in load_definitions("schemas").models if each.name == MODEL)
    assert mismatches(model, metadata_of(json.dumps({**SERVED, "versions": []}).encode())) == []
    assert {each.name: each.reference for each in model.inputs} == dict(FEATURES)
    assert INPUTS == tuple(FEATURES) == tuple(each["name"] for each in SERVED["inputs"])


@pytest.mark.parametrize("with_model", [True, False])
def test_three_lines_are_offered_that_a_shell_takes(with_model: bool) -> None:
    offered = lines("http://127.0.0.1:1", ("JFK", "LAX"), NOON, with_model=with_model)
    assert [("/v1/features" in line, "/v1/predictions" in line, "/v1/push" in line) for line in offered] == [
        (True, False, False),
        (not with_model, with_model, False),
        (False, False, True),
    ]


async def test_a_line_that_prints_an_answer_is_shown_and_one_that_does_not_fails() -> None:
    assert await run("""echo '{"token":  "a@1:0-1"}'""") == '{"token": "a@1:0-1"}'
    for line in ("exit 7", "echo '[]'", """echo '{"error": {}}'""", """echo '{"rejects": [1]}'""", "echo '{}'; exit 1"):
        with pytest.raises(DemoFailed, match="ended with"):
            await run(line)


async def test_a_line_under_way_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    waiting = asyncio.create_task(run(f"echo $$ > {written}; exec sleep 600"))

    async def number() -> str:
        return written.read_text().strip() if written.exists() else ""

    process = psutil.Process(int(await eventually_async(number, what="a process")))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not still_running([process], within_s=5)


def test_long_answers_are_shortened_to_lines_that_fit() -> None:
    text = shortened("x" * 1_000).splitlines()
    assert [len(line) for line in text] == [88, 88, 88]
    assert text[-1].endswith("…")
    assert shortened("a\n b") == "a b"
