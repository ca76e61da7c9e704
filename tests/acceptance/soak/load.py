"""Who asks what: a steady, mixed load of which every answer is checked.

What is pushed is always new, as are idempotency keys, lists of features and the request values of predictions: whatever
is kept for any of them shows.
"""

import asyncio
import base64
import collections
import dataclasses
import itertools
import json
import random
import socket
import time
import traceback
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import pyarrow as pa

from tests.acceptance.soak import parts, truth
from tests.acceptance.soak.truth import STORED, VIEW

_MOST_AT_ONCE = 300

_REQUESTS_A_CONNECTION = 10
"""Then another comes, which may reach the other process. The few that suffice are always in use, and so are kept, and
may all belong to one by chance."""

_SHOWN = 20
_WAIT_S = 10.0
"""How long a read waits for what was pushed."""

_SLACK_S = 3.0
"""What may come on top of a deadline, beside what a busy machine adds (`machine.py`)."""

_LONGEST_S = 60.0

DEADLINES: Mapping[str, float] = {
    "read": parts.SERVE_TIMEOUT_S,
    # Its inputs and its own record, a lease, the model, and the record again.
    "predict": 4 * parts.SERVE_TIMEOUT_S,
    # Kafka twice, and Redis before, between and behind.
    "push": 2 * parts.PUSH_TIMEOUT_S + 3 * parts.SERVE_TIMEOUT_S,
    "read after": _WAIT_S + 2 * parts.SERVE_TIMEOUT_S,
    "bad": parts.SERVE_TIMEOUT_S,
}
"""Seconds within which every request of a kind is answered, by the settings of the service."""

Json = Mapping[str, Any]


class Wrong(Exception):
    """An answer that is not what it must be."""


class Refused(Exception):
    """An honest answer that something could not be done now."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """When something was refused, or was late, from its beginning to its end, by the clock, and what it was. overdue:
    by how many seconds."""

    begin: float
    end: float
    what: str
    overdue: float = 0.0


@dataclasses.dataclass(slots=True)
class Told:
    """What came of all requests. done: right answers, by what was done. late: those slower than their deadlines."""

    done: "collections.Counter[str]" = dataclasses.field(default_factory=collections.Counter)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    late: list[Refusal] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    wrongs: int = 0
    slowest: dict[str, float] = dataclasses.field(default_factory=dict)
    left_out: int = 0
    requests: int = 0

    def is_wrong(self, what: str) -> bool:
        """Something is not as it must be; whether it is among the first, which are kept in full."""
        self.wrongs += 1
        if len(self.wrong) < _SHOWN:
            self.wrong.append(what[:1_500])
            return True
        return False


class Load:
    """Asks a query service, as so many clients would, from a seed."""

    def __init__(
        self, port: int, rng: random.Random, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """say: told what is wrong, as it is found."""
        self.told = Told()
        self._say = say
        self._rng = rng
        self._clock = clock
        self._port = port
        self._root = f"http://127.0.0.1:{port}"
        self._http: aiohttp.ClientSession | None = None
        self._numbers = itertools.count(1)
        self._fresh = itertools.count(1)
        self._known: list[int] = []
        self._writers = collections.deque(f"w{number}" for number in range(40))
        self._under_way: set[asyncio.Task[None]] = set()
        self._deck: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._deals: Sequence[tuple[int, str, Callable[[], Awaitable[None]]]] = (
            (12, "one by URL", self._one_by_url),
            (8, "one, as Feast", lambda: self._as_feast(1)),
            (8, "many, as Feast", lambda: self._as_feast(self._rng.randrange(20, 200))),
            (10, "many", lambda: self._many(self._rng.randrange(2, 200))),
            (6, "Arrow", self._arrow),
            (8, "on demand", self._on_demand),
            (3, "nobody", self._nobody),
            (6, "unknown names", self._unknown),
            (6, "bad requests", self._bad),
            (8, "pushed", self._push_new),
            (3, "pushed, and read back", self._push_and_read),
            (2, "pushed again", self._push_again),
            (6, "written, and read back", self._write),
            (5, "predicted", self._predict),
            (4, "predicted of a request", self._predict_of_request),
            (3, "predicted later", self._predict_later),
            (4, "came and went", self._come_and_go),
        )

    async def __aenter__(self) -> "Load":
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        timeout = aiohttp.ClientTimeout(total=_LONGEST_S)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *raised: object) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        assert self._http is not None
        await self._http.close()

    async def fill(self, entities: int, lists: int) -> None:
        """Fill what may be kept for entities and for lists of features, so that only what is not bounded grows on."""
        for _ in range(max(1, entities // 400)):
            await asyncio.gather(*(self._tried("filled", lambda: self._push_new(100)) for _ in range(4)))
        for _ in range(lists // 10):
            await asyncio.gather(*(self._tried("filled", lambda: self._as_feast(1)) for _ in range(5)))
            await asyncio.gather(*(self._tried("filled", self._on_demand) for _ in range(5)))

    async def run(self, seconds: float, pace: int) -> None:
        """So many actions a second, for so long; then until the last is answered."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(int(seconds * pace)):
            pause = began + number / pace - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            if len(self._under_way) >= _MOST_AT_ONCE:
                self.told.left_out += 1
                continue
            name, action = self._dealt()
            task = asyncio.create_task(self._tried(name, action))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if self._under_way:
            await asyncio.wait(self._under_way)

    def _dealt(self) -> tuple[str, Callable[[], Awaitable[None]]]:
        if not self._deck:
            self._deck = [(name, action) for count, name, action in self._deals for _ in range(count)]
            self._rng.shuffle(self._deck)
        return self._deck.pop()

    async def _tried(self, name: str, action: Callable[[], Awaitable[None]]) -> None:
        begin = self._clock()
        try:
            await action()
        except Wrong as error:
            self._is_wrong(f"{name}: {error}")
        except Refused as error:
            self.told.refusals.append(Refusal(begin, self._clock(), f"{name}: {error}"))
        except Exception:
            self._is_wrong(f"{name}: {traceback.format_exc()}")
        else:
            self.told.done[name] += 1

    def _is_wrong(self, what: str) -> None:
        if self.told.is_wrong(what):
            self._say(f"WRONG: {self.told.wrong[-1]}")

    # ---- asking ----

    async def _ask(
        self,
        kind: str,
        method: str,
        path: str,
        body: object = None,
        *,
        good: Sequence[int] = (200,),
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of an answer, which came in time. Raises Refused for an honest 503 or 504, and Wrong."""
        assert self._http is not None
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        begin = self._clock()
        self.told.requests += 1
        if self.told.requests % _REQUESTS_A_CONNECTION == 0:
            given["Connection"] = "close"
        async with self._http.request(method, f"{self._root}{path}", data=content, headers=given) as answer:
            status, found, retry = answer.status, await answer.read(), answer.headers.get("Retry-After")
        took = self._clock() - begin
        self.told.slowest[kind] = max(took, self.told.slowest.get(kind, 0.0))
        if took > DEADLINES[kind] + _SLACK_S:
            what = f"{method} {path[:100]} took {took:.1f} s; {DEADLINES[kind]:g} are allowed"
            self.told.late.append(Refusal(begin, begin + took, what, took - DEADLINES[kind] - _SLACK_S))
        if status in good:
            return status, found
        if (status == 503 and retry) or status == 504:
            raise Refused(f"{status} {found[:300].decode(errors='replace')}")
        raise Wrong(f"{method} {path[:200]} {str(content)[:500]}: {status} {found[:500]!r}")

    async def _features(
        self, features: Sequence[str], entities: Json, *, kind: str = "read", **more: object
    ) -> Mapping[str, Json]:
        """What /v1/features says of each."""
        body = {"features": features, "entities": entities, **more}
        _, found = await self._ask(kind, "POST", "/v1/features", body)
        answer: Mapping[str, Json] = json.loads(found)["features"]
        return answer

    def _some(self, count: int) -> list[int]:
        """Numbers of customers whose rows are in Redis for certain."""
        if not self._known:
            raise Refused("nobody is known yet")
        return self._rng.choices(self._known, k=count)

    def _list(self) -> list[str]:
        """A list of features as there may never have been one: some of all, in any order."""
        return self._rng.sample(STORED, self._rng.randrange(2, 10))

    # ---- reading ----

    async def _one_by_url(self) -> None:
        (number,) = self._some(1)
        features = self._list()
        query = urllib.parse.urlencode({"features": ",".join(features), "customer": truth.name(number)})
        _, found = await self._ask("read", "GET", f"/v1/features?{query}")
        told = json.loads(found)["features"]
        _same({each: told[each]["value"] for each in told}, {each: _value(each, number) for each in features})
        _same({told[each]["status"] for each in told}, {"PRESENT"})

    async def _as_feast(self, count: int) -> None:
        numbers, features = self._some(count), self._list()
        names = [truth.name(number) for number in numbers]
        body = {"features": features, "entities": {"customer": names}}
        _, found = await self._ask("read", "POST", "/get-online-features", body)
        answer = json.loads(found)
        _same(answer["metadata"]["feature_names"], ["customer", *(_short(each) for each in features)])
        wanted = [names, *([_value(each, number) for number in numbers] for each in features)]
        _same([each["values"] for each in answer["results"]], wanted)
        _same({status for each in answer["results"] for status in each["statuses"]}, {"PRESENT"})

    async def _many(self, count: int) -> None:
        numbers, features = self._some(count), self._list()
        told = await self._features(features, {"customer": [truth.name(number) for number in numbers]})
        _right(told, numbers)
        _same(list(told), features)

    async def _arrow(self) -> None:
        numbers, features = self._some(self._rng.randrange(1, 200)), self._list()
        names = [truth.name(number) for number in numbers]
        accept = {"Accept": "application/vnd.apache.arrow.stream"}
        body = {"features": features, "entities": {"customer": names}}
        _, found = await self._ask("read", "POST", "/v1/features", body, headers=accept)
        with pa.ipc.open_stream(found) as stream:
            table = stream.read_all()
        _same(table.column("customer").to_pylist(), names)
        for each in features:
            _same(table.column(each).to_pylist(), [_value(each, number) for number in numbers])
            _same(set(table.column(f"{each}:status").to_pylist()), {"PRESENT"})

    async def _on_demand(self) -> None:
        numbers = self._some(self._rng.randrange(1, 20))
        discounts = [round(self._rng.uniform(0, 100), 3) for _ in numbers]
        features = [*self._rng.sample(STORED, self._rng.randrange(0, 6)), truth.REDUCED]
        self._rng.shuffle(features)
        entities = {"customer": [truth.name(number) for number in numbers], "discount": discounts}
        told = await self._features(features, entities)
        reduced = told[truth.REDUCED]["values"]
        _same(reduced, [number + 0.5 - discount for number, discount in zip(numbers, discounts, strict=True)])
        _right({name: each for name, each in told.items() if name != truth.REDUCED}, numbers)

    async def _nobody(self) -> None:
        features = self._list()
        told = await self._features(features, {"customer": [f"nobody{next(self._fresh)}"]})
        for each in features:
            _same((told[each]["values"], told[each]["statuses"]), ([None], ["NOT_FOUND"]))

    async def _unknown(self) -> None:
        """Names that nobody has heard of, another each time."""
        stranger = f"x{next(self._fresh)}"
        customer = {"customer": ["a"]}
        method, path, body = self._rng.choice(
            [
                ("POST", "/v1/features", {"features": [f"{VIEW}:{stranger}"], "entities": customer}),
                ("POST", "/v1/features", {"features": [f"{stranger}:amount"], "entities": customer}),
                ("POST", "/v1/features", {"feature_service": stranger, "entities": customer}),
                ("POST", "/get-online-features", {"features": [f"{VIEW}:{stranger}"], "entities": customer}),
                ("POST", "/v1/predictions", {"model": stranger, "entities": customer}),
                ("POST", "/v1/push", {"view": stranger, "rows": [truth.order("a", 1)]}),
                ("GET", f"/v1/features?features={stranger}:amount&customer=a", None),
                ("GET", f"/{stranger}", None),
            ]
        )
        await self._ask("bad", method, path, body, good=(404,))

    async def _bad(self) -> None:
        stranger = f"x{next(self._fresh)}"
        features, row = [STORED[0]], truth.order(stranger, 1)
        plain: Mapping[str, str] = {}
        method, path, body, headers, status = self._rng.choice(
            [
                ("POST", "/v1/features", b'{"features": [' + stranger.encode(), plain, 422),
                ("POST", "/v1/features", {"features": features, "entities": {"customer": [1]}}, plain, 422),
                ("POST", "/v1/features", {"features": features, "entities": {stranger: ["a"]}}, plain, 422),
                ("POST", "/v1/features", {"features": features, "entities": {"customer": ["a"] * 1_001}}, plain, 422),
                ("POST", "/v1/features", {"features": [stranger], "entities": {"customer": ["a"]}}, plain, 422),
                ("GET", f"/v1/features?features={STORED[0]}&customer=a&after={stranger}", None, plain, 422),
                ("POST", "/v1/features", b"<a/>", {"Content-Type": "text/xml"}, 415),
                ("POST", "/get-online-features", {"features": features, "entities": [stranger]}, plain, 422),
                ("POST", "/v1/predictions", {"model": "Worth", "entities": {"customer": [None]}}, plain, 422),
                ("POST", "/v1/push", {"view": VIEW, "rows": [row], "mode": stranger}, plain, 422),
                ("POST", "/v1/push", {"view": VIEW, "rows": [row], "idempotency_key": stranger * 200}, plain, 422),
                ("DELETE", "/v1/features", None, plain, 405),
            ]
        )
        await self._ask("bad", method, path, body, headers=headers, good=(status,))

    # ---- pushing ----

    async def _push_new(self, count: int = 0) -> None:
        """Rows of customers that nobody has heard of."""
        numbers = [next(self._numbers) for _ in range(count or self._rng.randrange(1, 5))]
        await self._pushed([truth.order(truth.name(number), number) for number in numbers])
        self._known += numbers

    async def _push_and_read(self) -> None:
        """The same without waiting for Redis, and then a read that waits."""
        number = next(self._numbers)
        token = await self._pushed([truth.order(truth.name(number), number)], mode="async")
        told = await self._read_after(truth.name(number), token)
        _right(told, [number])
        self._known.append(number)

    async def _push_again(self) -> None:
        """Twice under the same key: the second one does nothing, and is told the same."""
        number, key = next(self._numbers), self._key()
        rows = [truth.order(truth.name(number), number)]
        body = {"view": VIEW, "rows": rows, "idempotency_key": key}
        first = await self._ask("push", "POST", "/v1/push", body)
        self._known.append(number)
        again = await self._ask("push", "POST", "/v1/push", body)
        if again != first:
            # It is kept in Redis, and not where Redis does not take it.
            raise Refused(f"a key was forgotten: {first} and {again}")
        other = {**body, "rows": [truth.order(truth.name(number), 0)]}
        if (await self._ask("push", "POST", "/v1/push", other, good=(200, 422)))[0] == 200:
            raise Refused("a key was forgotten: another push was taken under it")

    async def _write(self) -> None:
        """The next order of a customer who has had some, and what is said of it, by any process."""
        if not self._writers:
            raise Refused("all writers write")
        customer = self._writers.popleft()
        sure = False
        try:
            number = next(self._numbers)
            mode = self._rng.choice(["sync", "async"])
            token = await self._pushed([truth.order(customer, number)], mode=mode)
            _right(await self._read_after(customer, token), [number])
            sure = True
            await self._predicted("Worth", customer, number, must_be_new=True)
        finally:
            # Whether a push that was refused comes yet is not known: then the writer takes another customer.
            self._writers.append(customer if sure else f"w{next(self._fresh)}x")

    async def _pushed(self, rows: Sequence[Json], mode: str = "sync") -> str:
        """The token of rows that are all new."""
        body = {"view": VIEW, "rows": rows, "mode": mode, "idempotency_key": self._key()}
        status, found = await self._ask("push", "POST", "/v1/push", body, good=(200, 202))
        answer = json.loads(found)
        if mode == "sync":
            _same((status, set(answer["statuses"])), (200, {"applied"}))
        else:
            _same((status, answer["accepted"]), (202, len(rows)))
        token: str = answer["token"]
        return token

    async def _read_after(self, customer: str, token: str) -> Mapping[str, Json]:
        more = {"after": token, "timeout_ms": round(_WAIT_S * 1_000)}
        return await self._features(self._list(), {"customer": [customer]}, kind="read after", **more)

    def _key(self) -> str:
        return f"{next(self._fresh)}-{self._rng.getrandbits(64):x}"

    # ---- predictions ----

    async def _predict(self) -> None:
        (number,) = self._some(1)
        await self._predicted("Worth", truth.name(number), number)

    async def _predict_later(self) -> None:
        (number,) = self._some(1)
        await self._predicted("Later", truth.name(number), number)

    async def _predicted(self, model: str, customer: str, number: int, *, must_be_new: bool = False) -> None:
        """must_be_new: the customer had other orders before, of which what is not fresh may be."""
        query = urllib.parse.urlencode({"model": model, "customer": customer})
        _, found = await self._ask("predict", "GET", f"/v1/predictions?{query}")
        told = json.loads(found)["prediction"]
        fresh = told["state"] == "FRESH"
        if fresh or (told["outputs"] is not None and not must_be_new):
            _same(told["outputs"], truth.worth(number))
        if not fresh and model != "Later":
            raise Refused(f"{model} is {told['state']}: {told['reason']}")

    async def _predict_of_request(self) -> None:
        numbers = self._some(self._rng.randrange(1, 4))
        discounts = [round(self._rng.uniform(0, 1e6), 6) for _ in numbers]
        entities = {"customer": [truth.name(number) for number in numbers], "discount": discounts}
        _, found = await self._ask("predict", "POST", "/v1/predictions", {"model": "Quoted", "entities": entities})
        for told, discount in zip(json.loads(found)["predictions"], discounts, strict=True):
            if told["outputs"] is not None:
                _same(told["outputs"], {"worth": discount + 1})
            if told["state"] != "FRESH":
                raise Refused(f"Quoted is {told['state']}: {told['reason']}")

    # ---- clients that come and go ----

    async def _come_and_go(self) -> None:
        """Connections that end in the midst of something, or on which nothing comes, or nothing that is HTTP."""
        self.told.requests += 1
        way = self._rng.choice(["nothing", "half a head", "half a body", "no HTTP", "unread", "reset"])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            body = json.dumps({"features": STORED, "entities": {"customer": ["a"] * 500}}).encode()
            head = b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
            if way == "nothing":
                await asyncio.sleep(self._rng.uniform(0, 2))
            elif way == "half a head":
                writer.write(head)
                await self._until_ended(reader)
            elif way == "half a body":
                writer.write(head + b"\r\n" + body[: len(body) // 2])
                await self._until_ended(reader)
            elif way == "no HTTP":
                writer.write(base64.b64encode(self._rng.randbytes(100)) + b"\r\n\r\n")
                await self._until_ended(reader)
            else:
                writer.write(head + b"\r\n" + body)
                await writer.drain()
                if way == "unread":
                    await reader.read(1)
                elif found := writer.get_extra_info("socket"):
                    # Nothing lingers: the end is a reset, while the service works for it.
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        finally:
            writer.transport.abort()

    async def _until_ended(self, reader: asyncio.StreamReader) -> None:
        """The service has to end a connection on which nothing more comes. Half of the clients do not wait for it."""
        if self._rng.random() < 0.5:
            return
        try:
            async with asyncio.timeout(_LONGEST_S):
                await reader.read()
        except TimeoutError:
            raise Wrong("a connection on which half a request came stays open") from None
        except ConnectionError:
            pass


def _short(reference: str) -> str:
    return reference.partition(":")[2]


def _value(reference: str, number: int) -> float:
    return truth.value(_short(reference), number)


def _right(told: Mapping[str, Json], numbers: Sequence[int]) -> None:
    """Stored features, all there and right."""
    for reference, column in told.items():
        _same(column["values"], [_value(reference, number) for number in numbers])
        _same(set(column["statuses"]), {"PRESENT"})


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise Wrong(f"found {str(found)[:400]}, must be {str(wanted)[:400]}")
