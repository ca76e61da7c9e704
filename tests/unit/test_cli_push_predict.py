"""`stillwell push` and `predict`: every line has an answer, wrong ones take no other with them, exit codes say so."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stillwell.cli.main import run
from tests.waiting import eventually

Rows = list[dict[str, Any]]


class Service:
    """A service that takes what is pushed, in a thread of its own: the command has a loop of its own too."""

    def __init__(self) -> None:
        self.pushes: list[dict[str, Any]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/push", self._push)
        app.router.add_get("/v1/predictions", self._prediction)
        app.router.add_get("/v1/features", self._features)
        app.router.add_get("/openapi.json", self._document)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _push(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.pushes.append(asked)
        rows: Rows = asked["rows"]
        if asked["view"] == "Slow":
            error = {"kind": "NotWritten", "field": None, "message": "Kafka holds the rows", "token": "Slow@1:0-5"}
            return web.json_response({"error": error}, status=503)
        if asked["view"] != "Orders":
            error = {"kind": "NotDefined", "field": "view", "message": "view: there is no view"}
            return web.json_response({"error": error}, status=404)
        wrong = [number for number, row in enumerate(rows) if row["n"] < 0]
        statuses = ["rejected" if number in wrong else "applied" for number in range(len(rows))]
        rejects = [{"row": number, "reason": "expectation", "message": "n: expected > 0"} for number in wrong]
        token = f"Orders@1:0-{len(self.pushes)}"
        return web.json_response({"token": token, "statuses": statuses, "rejects": rejects})

    async def _prediction(self, request: web.Request) -> web.Response:
        state = request.query["origin"]
        known = state in ("FRESH", "STALE")
        at = "2026-01-01T00:00:00Z" if known else None
        prediction = {
            "state": state,
            "outputs": {"minutes": 12.5} if known else None,
            "computed_at": at,
            "read_at": at,
            "age_s": 0.5 if known else None,
            "inputs": {"Departures": {"event_time": at, "age_s": 41.25 if known else None}},
            "refresh": "none" if known else "queued",
            "reason": None if known else "the model is away\x1b[2J",
        }
        answer = {"model": request.query["model"], "version": "3", "types": {"minutes": "Float32"}}
        return web.json_response({**answer, "entity": {"origin": state}, "prediction": prediction})

    async def _features(self, request: web.Request) -> web.Response:
        nothing = {"type": "Float32", "value": None, "status": "NOT_FOUND", "event_time": None, "age_s": None}
        features = {name: {**nothing, "freshness": None} for name in request.query["features"].split(",")}
        return web.json_response({"entity": {"origin": "EWR"}, "features": features})

    async def _document(self, request: web.Request) -> web.Response:
        features = {"name": "features", "schema": {"items": {"enum": ["Delay:minutes", "Late:late"]}}}
        model = {"name": "model", "schema": {"enum": ["Delay"]}}
        paths = {"/v1/features": [features], "/v1/predictions": [model]}
        return web.json_response({"paths": {path: {"get": {"parameters": words}} for path, words in paths.items()}})

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def service() -> Iterator[Service]:
    """One for each test."""
    made = Service()
    yield made
    made.stop()


Push = Callable[..., int]


@pytest.fixture
def push(service: Service, tmp_path: Path) -> Push:
    """push(lines, *options): run the command over a file of these lines; gives its exit code."""

    def call(lines: list[str], *options: str, view: str = "Orders") -> int:
        file = tmp_path / "rows.ndjson"
        file.write_text("\n".join(lines))
        return run(["push", view, str(file), "--url", service.url, *options])

    return call


def test_every_line_has_an_answer(push: Push, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ['{"n": 1}', "", '{"n": -1}', "no JSON", '{"n": 2.5, "text": "é"}', "[]"]
    assert push(lines, "--json") == 1
    *rows, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(row["line"], row["status"]) for row in rows] == [
        (1, "applied"),
        (3, "rejected"),
        (4, "rejected"),
        (5, "applied"),
        (6, "rejected"),
    ]
    assert (rows[1]["reason"], rows[1]["message"]) == ("expectation", "n: expected > 0")
    assert "no JSON object" in rows[2]["message"]
    assert end == {"view": "Orders", "counts": {"applied": 2, "rejected": 3}, "token": "Orders@1:0-1"}


def test_for_people_what_is_wrong_is_listed_and_the_rest_counted(
    push: Push, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert push(['{"n": 1}', '{"n": -1}']) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/rows.ndjson:2: rejected (expectation): n: expected > 0",
        "Orders: 1 applied, 1 rejected; token Orders@1:0-1",
    ]
    assert push(['{"n": 1}']) == 0
    assert push([]) == 0
    assert "Orders: no rows" in capsys.readouterr().out


def test_what_is_said_of_the_rows_is_handed_on(push: Push, service: Service) -> None:
    assert push(['{"n": 1}'], "--mode", "async", "--to", "offline", "--final") == 0
    asked = service.pushes[0]
    assert (asked["mode"], asked["to"], asked["transform_on_write"]) == ("async", "offline", False)


def test_many_rows_go_together_and_one_token_names_them_all(
    push: Push, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push([f'{{"n": {number}}}' for number in range(12_000)], "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["line"] for line in lines[:-1]] == list(range(1, 12_001))
    assert len(service.pushes) < 100
    assert json.loads(lines[-1])["token"] == f"Orders@1:0-{len(service.pushes)}"


def test_a_wrong_view_is_told_once(push: Push, capsys: pytest.CaptureFixture[str]) -> None:
    assert push([f'{{"n": {number}}}' for number in range(20_000)], view="Order") == 2
    said = capsys.readouterr()
    assert said.err == "stillwell: view: there is no view\n"
    assert "failed" in said.out


def test_with_json_a_row_that_failed_with_all_others_has_its_line_too(
    push: Push, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(['{"n": 1}', '{"n": 2}'], "--json", view="Order") == 2
    *rows, end, error = map(json.loads, capsys.readouterr().out.splitlines())
    message = "view: there is no view"
    assert error["error"]["message"] == message
    assert rows == [{"line": number, "status": "failed", "message": message} for number in (1, 2)]
    assert end["counts"] == {"failed": 2}


def test_what_kafka_holds_and_redis_does_not_yet_has_not_failed(push: Push, capsys: pytest.CaptureFixture[str]) -> None:
    """Who reads that it has pushes it twice."""
    assert push(['{"n": 1}'], view="Slow") == 1
    said = capsys.readouterr()
    assert said.out == "Slow: 1 accepted; token Slow@1:0-5\n"
    assert said.err == "stillwell: Kafka holds the rows\n"


def test_a_service_that_is_not_there_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows").write_text('{"n": 1}\n')
    assert run(["push", "Orders", str(tmp_path / "rows"), "--url", "http://127.0.0.1:1"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_a_file_that_is_none_of_lines_is_refused(push: Push, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(["x" * 2_000_000]) == 2
    assert "one JSON object a line" in capsys.readouterr().err


def test_rows_of_a_pipe_do_not_wait_for_the_next_line(service: Service, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    codes: list[int] = []
    with os.fdopen(writes, "wb", buffering=0) as pipe:
        command = threading.Thread(
            target=lambda: codes.append(run(["push", "Orders", f"/dev/fd/{reads}", "--url", service.url]))
        )
        command.start()
        pipe.write(b'{"n": 1}\n{"n": ')
        eventually(lambda: service.pushes, what="the first row")
        assert service.pushes[0]["rows"] == [{"n": 1}]
        pipe.write(b"2}\n")
    command.join(20)
    os.close(reads)
    assert codes == [0]
    assert service.pushes[-1]["rows"] == [{"n": 2}]


def test_what_is_wrong_is_told_when_it_is_met(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """And not after the last line, which may be hours away."""
    reads, writes = os.pipe()
    codes: list[int] = []
    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said == f"/dev/fd/{reads}:2: rejected (expectation): n: expected > 0\n"

    with os.fdopen(writes, "wb", buffering=0) as pipe:
        command = threading.Thread(
            target=lambda: codes.append(run(["push", "Orders", f"/dev/fd/{reads}", "--url", service.url]))
        )
        command.start()
        pipe.write(b'{"n": 1}\n{"n": -1}\n')
        eventually(told, what="the second line's mistake")
        pipe.write(b'{"n": 2}\n')
    command.join(20)
    os.close(reads)
    assert codes == [1]
    assert capsys.readouterr().out.startswith("Orders: 2 applied, 1 rejected; token")


def test_of_many_mistakes_a_hundred_are_told_and_the_others_counted(
    push: Push, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(['{"n": -1}'] * 1_500) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if ": rejected (expectation): " in line]) == 100
    assert lines[-2] == "… and 1,400 more were rejected; --json tells of each"
    assert lines[-1].startswith("Orders: 1,500 rejected; token ")


@pytest.mark.parametrize(
    ("arguments", "kind", "field"),
    [
        (["push", "Order", "rows", "--url", "URL"], "NotDefined", "view"),
        (["push", "Orders", "rows", "--url", "http://127.0.0.1:1"], "Unavailable", None),
        (["push", "Orders", "nowhere"], "UsageError", None),
        (["predict", "Delay", "origin", "--url", "URL"], "UsageError", None),
        (["predict", "Delay", "origin=a", "--url", "nonsense"], "RequestError", "url"),
        (["get", "--url", "URL"], "UsageError", None),
    ],
)
def test_a_program_can_read_what_went_wrong(
    arguments: list[str],
    kind: str,
    field: str | None,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every line is JSON, and the last one says it; people have the words on standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").write_text('{"n": 1}\n')
    assert run([*(service.url if each == "URL" else each for each in arguments), "--json"]) in (1, 2)
    said = capsys.readouterr()
    error = [json.loads(line) for line in said.out.splitlines()][-1]["error"]
    assert (error["kind"], error["field"]) == (kind, field)
    assert error["message"] in said.err


def test_a_prediction_is_shown_with_what_it_is_worth(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "Delay", "origin=FRESH", "--url", service.url]) == 0
    assert capsys.readouterr().out.splitlines() == [
        'Delay version 3 of origin="FRESH": FRESH',
        "  minutes  12.5",
        "computed at 2026-01-01T00:00:00Z, from inputs read at 2026-01-01T00:00:00Z",
        "ages of the inputs: Departures 41 seconds",
    ]
    assert run(["predict", "Delay", "origin=STALE", "--url", service.url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["outputs"], shown["age_s"]) == ("STALE", {"minutes": 12.5}, 0.5)
    assert shown["input_ages_s"] == {"Departures": 41.25}


def test_that_there_is_no_prediction_is_an_exit_code(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for state in ("MISSING", "FAILED"):
        assert run(["predict", "Delay", f"origin={state}", "--url", service.url]) == 1
        printed = capsys.readouterr().out
        assert "the model is away" in printed
        assert "\x1b" not in printed
    assert run(["predict", "Delay", "origin", "--url", service.url]) == 2


def test_where_features_show_no_prediction_it_is_said_who_tells_why(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that has failed, and one that was never asked, look alike among features."""
    assert run(["get", "Delay:minutes", "Late", "origin=EWR", "--url", service.url]) == 0
    *_, said = capsys.readouterr().out.splitlines()
    assert said == (
        "Delay has no prediction of this entity that could be shown: "
        f"`stillwell predict Delay origin=EWR --url {service.url}` says why"
    )
    assert run(["get", "Late", "origin=EWR", "--url", service.url]) == 0
    assert "stillwell predict" not in capsys.readouterr().out
