"""Asking a model's server that is down, slow, busy, too talkative or wrong; and a function in this process."""

import asyncio
import dataclasses
import datetime
import itertools
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import polars as pl
import pytest
import structlog
from aiohttp import web

from stillwell.errors import ModelError, ModelLeftAlone, ModelUnavailable
from stillwell.local import free_port
from stillwell.predictions.breaker import BreakerPolicy
from stillwell.predictions.inference import FunctionModel, ServedModel, open_inference
from stillwell.predictions.tensors import Unusable
from stillwell.spec import ModelSpec, OpenInferenceSpec
from stillwell.types import FLOAT32, INT64
from tests.predicted import MINUTES, Handler, OddServer, model, outputs, text
from tests.waiting import eventually_here


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[OddServer]:
    async with OddServer().running() as running:
        yield running


def of(url: str, timeout: float = 5.0, retries: int = 2, max_batch: int = 64, **changes: Any) -> ModelSpec:
    spec = OpenInferenceSpec(
        url=url, model="delay", timeout=datetime.timedelta(seconds=timeout), retries=retries, max_batch=max_batch
    )
    return model(**changes).model_copy(update={"server": spec})


def client(url: str, clock: Clock | None = None, policy: BreakerPolicy | None = None, **changes: Any) -> ServedModel:
    spec = of(url, **changes)
    assert isinstance(spec.server, OpenInferenceSpec)
    return ServedModel(spec, spec.server, url, lambda: 0.0, clock or time.monotonic, policy)


async def said(asked: ServedModel | FunctionModel, *delays: float | None) -> list[object]:
    answers = await asked.infer({"delay": list(delays)}, len(delays))
    return [each if isinstance(each, Unusable) else each["minutes"] for each in answers]


async def test_entities_are_answered_in_their_order_and_in_batches(server: OddServer) -> None:
    asked = client(server.url, max_batch=3)
    assert await said(asked, *map(float, range(7))) == [1, 2, 3, 4, 5, 6, 7]
    assert server.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert await said(asked) == []
    await asked.close()


async def test_a_server_that_compresses_for_who_accepts_it_does_not(server: OddServer) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        answer = web.json_response(outputs([2.0] * 500))
        answer.enable_compression()
        return answer

    server.answer = packed
    asked = client(server.url, max_batch=500)
    assert await said(asked, *[1.0] * 500) == [2.0] * 500
    await asked.close()


async def test_null_in_a_float_is_sent_and_what_the_server_makes_of_it_counts(server: OddServer) -> None:
    asked = client(server.url)
    first, second = await said(asked, None, 1.0)
    assert isinstance(first, Unusable)
    assert second == 2
    await asked.close()


async def test_who_cannot_be_asked_about_is_left_out_and_the_others_are_answered(server: OddServer) -> None:
    assert server.metadata
    server.metadata["inputs"][0]["datatype"] = "INT64"
    asked = client(server.url, inputs={"delay": INT64})
    first, second, third = await said(asked, 1, None, 3)
    assert (first, third) == (2, 4)
    assert isinstance(second, Unusable)
    assert server.batches == [[1, 3]]
    await asked.close()


async def test_a_model_that_differs_from_its_definition_is_never_asked(server: OddServer) -> None:
    asked = client(server.url, inputs={"late": FLOAT32})
    for call in (asked.check(), asked.infer({"late": [1.0]}, 1)):
        with pytest.raises(
            ModelError, match=r"input 'late' is not among the server's: delay; .*wants an input 'delay'"
        ):
            await call
    assert server.calls == 0
    server.metadata = None
    with pytest.raises(ModelError, match="refused with 404: no such model"):
        await asked.check()
    await asked.close()


async def test_a_version_that_the_server_names_is_asked_for_by_its_path(server: OddServer) -> None:
    assert server.metadata
    server.metadata["versions"] = ["2", "3"]
    asked = client(server.url)
    await said(asked, 1.0)
    assert server.paths == ["/v2/models/delay/versions/3/infer"]
    await asked.close()


async def test_a_server_that_is_not_there_is_asked_a_few_times_and_found_when_it_comes() -> None:
    port = free_port()
    asked = client(f"http://127.0.0.1:{port}")
    with pytest.raises(ModelUnavailable, match="cannot be reached, or broke off: Cannot connect to host 127"):
        await asked.check()
    async with OddServer().running(port):
        assert await said(asked, 1.0) == [2]
    await asked.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_server_that_cannot_answer_now_is_asked_again(server: OddServer, status: int) -> None:
    asked = client(server.url)
    await asked.check()

    async def once(request: web.Request) -> web.StreamResponse:
        server.answer = None
        return web.Response(status=status, text="not now")

    server.answer = once
    first, *_ = await said(asked, 1.0)
    assert isinstance(first, (int, float, Unusable))
    assert server.calls == 2
    server.answer = text(status, "never")
    with pytest.raises(ModelUnavailable, match=f"answered {status}: never"):
        await said(asked, 1.0)
    assert server.calls == 2 + 3
    await asked.close()


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
async def test_pauses_before_a_call_is_repeated_double_and_differ_by_chance(server: OddServer, chance: float) -> None:
    """Else all who found the server busy at one moment would come back at one moment."""
    spec = of(server.url, retries=3)
    assert isinstance(spec.server, OpenInferenceSpec)
    paused: list[tuple[int, float]] = []

    async def sleep(seconds: float) -> None:
        paused.append((server.calls, seconds))

    asked = ServedModel(spec, spec.server, server.url, lambda: chance, sleep=sleep)
    await asked.check()
    server.answer = text(503, "busy")
    with pytest.raises(ModelUnavailable, match="answered 503: busy"):
        await said(asked, 1.0)
    assert [calls for calls, _ in paused] == [1, 2, 3]
    assert [seconds for _, seconds in paused] == pytest.approx([0.05 * each * (0.5 + chance) for each in (1, 2, 4)])
    await asked.close()


async def test_a_plain_text_500_is_quoted_and_not_asked_again(server: OddServer) -> None:
    asked = client(server.url)
    server.answer = text(500, "Internal Server Error: bad shape")
    with pytest.raises(ModelUnavailable, match="failed with 500: Internal Server Error: bad shape"):
        await said(asked, 1.0)
    assert server.calls == 1
    await asked.close()


def poisoned(server: OddServer, status: int, *odd: float) -> Handler:
    """Breaks over these, and answers about all others as ever."""

    async def answer(request: web.Request) -> web.StreamResponse:
        data = (await request.json())["inputs"][0]["data"]
        server.batches.append(data)
        if set(data) & set(odd):
            return web.Response(status=status, text="cannot be")
        return web.json_response(outputs([each + 1 for each in data]))

    return answer


@pytest.mark.parametrize("status", [500, 400])
async def test_one_entity_that_a_server_breaks_over_fails_alone_and_opens_no_circuit(
    server: OddServer, status: int
) -> None:
    asked = client(server.url)
    server.answer = poisoned(server, status, 17.0)
    for _ in range(3):
        first = await said(asked, *map(float, range(64)))
        assert [each for each in first if isinstance(each, Unusable)] == [first[17]]
        assert str(status) in str(first[17])
        assert [each for each in first if not isinstance(each, Unusable)] == [n + 1 for n in range(64) if n != 17]
    assert server.calls == 3 * 13
    assert not asked.breaker.is_open
    await asked.close()


async def test_a_server_that_breaks_over_everything_is_not_stormed_by_halves(server: OddServer) -> None:
    asked = client(server.url)
    server.answer = text(500, "broken")
    for _ in range(10):
        with pytest.raises(ModelUnavailable):
            await said(asked, *map(float, range(64)))
    assert server.calls == 5
    assert asked.breaker.is_open
    await asked.close()


async def test_a_refusal_says_what_the_server_said_and_opens_no_circuit(server: OddServer) -> None:
    asked = client(server.url, policy=BreakerPolicy(failures=1))
    server.answer = text(400, "expected 3 features")
    for _ in range(3):
        with pytest.raises(ModelError, match="refused with 400: expected 3 features") as error:
            await said(asked, 1.0)
        assert not isinstance(error.value, ModelUnavailable)
    assert not asked.breaker.is_open
    await asked.close()


async def test_who_does_not_answer_in_time_is_given_up(server: OddServer) -> None:
    asked = client(server.url, timeout=0.2)
    await asked.check()
    server.hold.clear()
    begun = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"gave no answer within 0\.2 s"):
        await said(asked, 1.0)
    assert time.monotonic() - begun < 2
    assert server.calls == 1
    server.hold.set()
    await asked.close()


async def test_an_answer_without_end_is_cut(server: OddServer) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(b" " * (1 << 20))
        return response

    asked = client(server.url, timeout=60.0)
    server.answer = talk
    with pytest.raises(ModelError, match="has more than 16777216 bytes"):
        await said(asked, 1.0)
    await asked.close()


async def test_an_answer_that_is_none_is_told_with_the_model_and_its_server(server: OddServer) -> None:
    asked = client(server.url)
    server.answer = text(200, "hello")
    with pytest.raises(ModelError, match=r"model Delay at http://.*/v2/models/delay: its answer is not that of"):
        await said(asked, 1.0)
    await asked.close()


async def test_a_server_that_fails_again_and_again_is_left_alone_and_then_tried_by_one(server: OddServer) -> None:
    clock = Clock()
    asked = client(server.url, clock, BreakerPolicy(failures=3, pause=1.0), retries=0)
    await asked.check()
    server.answer = text(500, "broken")
    for _ in range(10):
        with pytest.raises(ModelUnavailable):
            await said(asked, 1.0)
    assert server.calls == 3
    with pytest.raises(ModelUnavailable, match=r"is left alone for another 1\.0 s"):
        await said(asked, 1.0)
    server.answer = None
    server.hold.clear()
    clock.now = 1.0
    waiting = [asyncio.create_task(said(asked, 1.0)) for _ in range(50)]
    refused = [
        task for task in (await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION))[0] if task.exception()
    ]
    assert refused
    server.hold.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [each for each in answers if each == [2]] == [[2]]
    assert server.calls == 4
    assert await said(asked, 5.0) == [6]
    await asked.close()


async def test_who_gives_up_waiting_says_nothing_of_the_server(server: OddServer) -> None:
    asked = client(server.url, policy=BreakerPolicy(failures=1))
    await asked.check()
    server.hold.clear()
    task = asyncio.create_task(said(asked, 1.0))
    await eventually_here(lambda: server.calls, what="the server is asked")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.hold.set()
    assert not asked.breaker.is_open
    await asked.close()


async def test_a_function_of_this_process_is_asked_off_the_event_loop() -> None:
    import threading

    threads = set()

    def function(columns: dict[str, list[float]]) -> dict[str, list[float]]:
        threads.add(threading.get_ident())
        return {"minutes": [delay * 2 for delay in columns["delay"]]}

    asked = open_inference(model().model_copy(update={"server": function}), {})
    await asked.check()
    assert await asked.infer({"delay": [1.0, 2.0]}, 2) == [{"minutes": 2.0}, {"minutes": 4.0}]
    assert threading.get_ident() not in threads
    await asked.close()


async def test_one_entity_that_a_function_raises_over_fails_alone() -> None:
    def inverse(columns: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
        return {"minutes": [1 / each for each in columns["delay"]]}

    asked = FunctionModel(model(), inverse)
    first, second, third = await said(asked, 2.0, 0.0, 4.0)
    assert (first, third) == (0.5, 0.25)
    assert isinstance(second, Unusable)
    assert "ZeroDivisionError" in second.reason


async def test_a_function_that_hangs_takes_threads_from_nobody_else() -> None:
    end = threading.Event()

    def hangs(columns: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
        end.wait(30)
        return {"minutes": columns["delay"]}

    asked = FunctionModel(model(outputs=(MINUTES,)), hangs)
    calls = [asyncio.create_task(asked.infer({"delay": [1.0]}, 1)) for _ in range(100)]
    try:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            assert await asyncio.to_thread(threading.active_count) < 100
    finally:
        end.set()
        await asyncio.gather(*calls)
        await asked.close()


async def test_a_function_that_hangs_in_all_its_threads_is_refused_at_once_and_called_again_when_one_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked meanwhile would wait in memory behind the threads, with its inputs, for as long as they hang."""
    monkeypatch.setattr("stillwell.predictions.inference._FUNCTION_PATIENCE", 0.02)
    end, begun = threading.Event(), itertools.count()

    def hangs(columns: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
        next(begun)
        end.wait(30)
        return {"minutes": columns["delay"]}

    asked = FunctionModel(model(outputs=(MINUTES,)), hangs)
    try:
        for call in [asyncio.create_task(asked.infer({"delay": [1.0]}, 1)) for _ in range(10)]:
            with pytest.raises(ModelUnavailable, match=r"has not returned within 0\.02 s"):
                await call
        await asyncio.sleep(0.02)
        for _ in range(100):
            with pytest.raises(ModelLeftAlone, match=r"hangs in all of its 2 threads.* not called before one returns"):
                await asked.infer({"delay": [1.0]}, 1)
    finally:
        end.set()
    monkeypatch.setattr("stillwell.predictions.inference._FUNCTION_PATIENCE", 30.0)
    await eventually_here(lambda: not asked._begun, what="the threads are free")
    assert await said(asked, 2.0) == [2.0]
    assert next(begun) == 3, "who waited for a thread in vain was not called behind it"
    await asked.close()


async def test_what_a_function_raises_or_returns_wrong_is_told() -> None:
    def broken(columns: object) -> object:
        raise KeyError("tail")

    for function, telling in ((broken, "its function raised KeyError"), (lambda columns: {}, "returned no 'minutes'")):
        with pytest.raises(ModelError, match=f"model Delay: .*{telling}"):
            await said(FunctionModel(model(outputs=(MINUTES,)), function), 1.0)


@pytest.mark.parametrize("error", [KeyError("tail"), pl.exceptions.PanicException("a panic")])
async def test_what_a_function_raised_is_in_the_log_with_its_line_and_not_for_each_call(error: BaseException) -> None:
    def broken(columns: object) -> object:
        raise error

    asked = FunctionModel(model(outputs=(MINUTES,)), broken)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(ModelError, match="its function raised"):
                await said(asked, 1.0)
    (line,) = lines
    assert (line["model"], line["log_level"]) == ("Delay", "warning")
    assert line["exc_info"] is error
    assert error.__traceback__ is not None
    await asked.close()


async def test_a_url_may_come_from_the_environment() -> None:
    asked = open_inference(of("env:DELAY_URL"), {"DELAY_URL": "http://host:1/"})
    assert isinstance(asked, ServedModel)
    assert asked._root == "http://host:1/v2/models/delay"
    unset = open_inference(of("env:DELAY_URL"), {"DELAY_URL": ""})
    for call in (unset.check(), unset.infer({"delay": [1.0]}, 1)):
        with pytest.raises(ModelLeftAlone, match="model Delay: DELAY_URL is missing"):
            await call
    await asked.close()
    await unset.close()
