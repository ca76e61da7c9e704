"""What every page shares: methods, types of bodies, and what no client may do to the others."""

import asyncio
import contextlib
import gc
import gzip
import json
import socket
import struct
import weakref
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
import uvloop

from serving import connections, v1
from serving.connections import Server
from serving.messages import Reply, Request
from serving.metrics import REQUESTS, Metrics
from serving.web import Bounds, Page, Site
from tests.served import Served
from tests.waiting import eventually_async, eventually_here

ASKED = {"features": ["Users:name"], "entities": {"id": [1]}}
PACKED = gzip.compress(json.dumps(ASKED).encode(), mtime=0)


class Open:
    """A site whose one page answers when it is let, listening."""

    def __init__(self, bounds: Bounds) -> None:
        self.let = asyncio.Event()
        self.under_way = self.carried_out = 0
        pages = [
            Page("POST", "/slow", self._slow, v1.error_body),
            Page("POST", "/waiting", self._waiting, v1.error_body),
            Page("GET", "/probe", self._probe, v1.error_body, vital=True),
            Page("GET", "/large", self._large, v1.error_body),
            Page("GET", "/cancelled", self._cancelled, v1.error_body),
        ]
        self.told: list[tuple[str, int]] = []
        self.site = Site(pages, v1.error_body, bounds, lambda path, status, seconds: self.told.append((path, status)))
        self.port = 0

    async def __aenter__(self) -> "Open":
        own = socket.create_server(("127.0.0.1", 0))
        self.port = own.getsockname()[1]
        self.server = Server(self.site)
        await self.server.listen(own, 100)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.let.set()
        await self.server.end(1.0)

    async def _slow(self, request: Request) -> bytes:
        self.under_way += 1
        await self.let.wait()
        self.carried_out += 1
        return request.body

    async def _waiting(self, request: Request) -> bytes:
        self.under_way += 1
        if request.body == b"late":
            await self.let.wait()
            self.let.clear()
        with request.only_waits():
            await self.let.wait()
        self.carried_out += 1
        return request.body

    async def _probe(self, request: Request) -> Reply:
        return Reply(b"fine", type="text/plain")

    async def _cancelled(self, request: Request) -> bytes:
        raise asyncio.CancelledError

    async def _large(self, request: Request) -> bytes:
        return bytes(32 * 1024 * 1024)


@pytest.fixture
async def open_site() -> AsyncIterator[Callable[..., object]]:
    """open_site(bounds): an open site, closed at the end."""
    opened: list[Open] = []

    async def make(**bounds: float) -> Open:
        opened.append(await Open(Bounds(**bounds)).__aenter__())  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for each in opened:
        await each.__aexit__()


OpenSite = Callable[..., "asyncio.Future[Open]"]


async def said(port: int, sent: bytes, *, end: bool = False) -> bytes:
    """All that comes back until the other side ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def post(body: bytes = b"{}", path: str = "/slow", *more: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_a_store_that_does_not_answer_is_in_the_log_and_not_for_each_request(served: Served) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            status, _ = await served.get("/v1/features?features=Users:name&id=1")
            assert status == 503
        assert (await served.get("/v1/features?features=Nobody:name&id=1"))[0] == 404
    (line,) = lines
    assert (line["event"], line["log_level"], line["status"], line["silent"]) == (
        "cannot be answered",
        "warning",
        503,
        0,
    )
    assert "not ready" in line["error"]


async def test_head_is_get_without_its_body(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    path = "/v1/features?features=Users:name&id=1"
    async with served.client.get(path) as whole, served.client.head(path) as head:
        assert (head.status, await head.read()) == (200, b"")
        assert head.headers["Content-Length"] == str(len(await whole.read()))


async def test_a_method_that_is_not_answered_is_told_which_are(served: Served) -> None:
    for method, path, allowed in (
        ("GET", "/get-online-features", "POST, OPTIONS"),
        ("DELETE", "/v1/features", "GET, POST, HEAD, OPTIONS"),
        ("TRACE", "/health", "GET, HEAD, OPTIONS"),
    ):
        async with served.client.request(method, path) as response:
            assert (response.status, response.headers["Allow"]) == (405, allowed)
            assert (await response.json())["error"]["message"].startswith(f"method: {method} is not answered at {path}")
        async with served.client.options(path) as response:
            assert (response.status, response.headers["Allow"], await response.read()) == (204, allowed, b"")


@pytest.mark.parametrize(
    ("announced", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/vnd.feast+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/xml", 415),
        ("application/json; charset=latin-1", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_a_body_is_json_in_utf_8(announced: str, status: int, served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    sent = {"data": json.dumps(ASKED).encode(), "headers": {"Content-Type": announced}}
    async with served.client.post("/v1/features", **sent) as response:  # type: ignore[arg-type]
        assert response.status == status
        if status == 415:
            assert (await response.json())["error"]["field"] == "Content-Type"


async def test_a_body_may_come_in_pieces_or_compressed(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    body = json.dumps(ASKED).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    async with served.client.post("/v1/features", data=pieces()) as response:
        assert response.status == 200
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with served.client.post("/v1/features", data=gzip.compress(body), headers=headers) as response:
        assert response.status == 200
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 100_000
    async with served.client.post("/v1/features", data=bomb, headers=headers) as response:
        assert response.status == 413


@pytest.mark.parametrize(
    ("encoding", "body", "status", "telling"),
    [
        ("deflate", zlib.compress(json.dumps(ASKED).encode()), 200, ""),
        ("GZIP", PACKED, 200, ""),
        ("identity", json.dumps(ASKED).encode(), 200, ""),
        ("br", b"x", 415, "Content-Encoding: 'br' is not read here; use gzip, "),
        ("gzip, gzip", b"x", 415, "Content-Encoding: 'gzip, gzip' is not read here"),
        ("gzip", b"{}", 400, "body: cannot be read: it is not compressed as its Content-Encoding says"),
        (
            "gzip",
            PACKED[:-9],
            400,
            "body: cannot be read: what is compressed is cut",
        ),
        (
            "gzip",
            PACKED + b"x",
            400,
            "body: cannot be read: something stands behind",
        ),
        ("gzip", gzip.compress(b" " * 100_000, mtime=0), 422, "body: "),
        ("gzip", gzip.compress(b" " * 100_001, mtime=0), 413, "body: has more than 100000 bytes"),
    ],
)
async def test_a_compressed_body_is_unpacked_or_told_why_not(
    encoding: str, body: bytes, status: int, telling: str, served: Served
) -> None:
    await served.put({"id": 1, "name": "a"})
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    async with served.client.post("/v1/features", data=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == status
    if telling:
        assert answer["error"]["message"].startswith(telling)


async def test_a_body_too_large_is_refused_however_it_comes(served: Served) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    for data in (b" " * 100_001, pieces()):
        async with served.client.post("/get-online-features", data=data) as response:
            assert response.status == 413
            assert "has more than 100000 bytes" in json.loads(await response.json())["message"]


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    async with served.client.post("/v1/features", json=ASKED, expect100=True) as response:
        assert response.status == 200


async def test_words_of_a_url_that_mean_nothing_are_refused(served: Served) -> None:
    async with served.client.post("/v1/features?full=1", json=ASKED) as response:
        assert response.status == 422
        assert (await response.json())["error"] == {
            "kind": "RequestError",
            "field": "full",
            "message": "full: is no word that the URL of this path may have; there is: none",
        }


@pytest.mark.parametrize(
    ("body", "telling"),
    [
        (b'{"features":["Users:name"],"entities":{"id":[NaN]}}', "body: "),
        (b'{"features":["Users:name"],"entities":{"id":[1e999]}}', "entities[...][0]: Number out of range"),
        (
            b'{"features":["Users:name"],"entities":{"id":[1.0]}}',
            "entities.id[0]: must be Int64 (a whole number), not the number 1.0; write 1, ",
        ),
        (b'{"features":["Users:name"],"entities":{"id":[9223372036854775808]}}', "entities.id[0]: "),
        (b'{"features":["Users:name"],"entities":{"id":[' + b"9" * 5_000 + b"]}}", ""),
        (b'{"features":["Users:name"],"entities":{"id":["\xff"]}}', "body: "),
        (b'{"features":["Users:name"],"entities":{"id":["\\ud800"]}}', ""),
        (
            b'{"features":["Users:name"],"entities":{"id":[{}]}}',
            "entities.id[0]: must be Int64 (a whole number), not an object",
        ),
        (b'{"features":["Users:name"],"entities":{"id":' + b"[" * 40_000 + b"]" * 40_000 + b"}}", "body: "),
        (b'{"features":"Users:name","entities":{"id":[1]}}', 'features: must be a list, as ["Users:name"], not a '),
        (b'{"features":[null],"entities":{"id":[1]}}', "features[0]: must be a text, <view>:<feature>, not null"),
        (b"null", "body: must be an object with entities, not null"),
    ],
)
async def test_odd_bodies_are_told_what_is_wrong(body: bytes, telling: str, served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    async with served.client.post("/v1/features", data=body) as response:
        assert response.status == 422
        assert (await response.json())["error"]["message"].startswith(telling)


@pytest.mark.parametrize(
    "asked",
    [
        {"features": ["x" * 90_000], "entities": {"id": [1]}},
        {"features": ["x" * 90_000 + ":name"], "entities": {"id": [1]}},
        {"features": ["Users:" + "x" * 90_000], "entities": {"id": [1]}},
        {"features": ["Users:name"], "entities": {"id": [1], "x" * 90_000: [1]}},
        {"features": ["Users:name"], "entities": {f"{number}": [1] * (number % 2) for number in range(5_000)}},
        {"features": [], "feature_service": "x" * 90_000, "entities": {"id": [1]}},
    ],
)
async def test_a_long_mistake_gets_a_short_answer(asked: dict[str, object], served: Served) -> None:
    async with served.client.post("/v1/features", json=asked) as response:
        assert response.status in (404, 422)
        assert len(await response.read()) < 1_000


async def test_what_is_no_http_gets_a_400_and_harms_nobody(open_site: OpenSite) -> None:
    opened = await open_site()
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /probe HTTP/9.9\r\n\r\n",
        b"POST /slow HTTP/1.1\r\nA\r\n\r\n",
    ):
        assert (await said(opened.port, sent)).startswith(b"HTTP/1.") or sent.startswith(b"\x16")
    assert b"fine" in await said(opened.port, b"GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


async def test_what_is_wrong_with_a_url_is_told(open_site: OpenSite) -> None:
    opened = await open_site()
    for sent, shown in (
        (b"GET /probe?name=a b HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /probe?name=a b HTTP/1.1"),
        ("GET /probe?name=é HTTP/1.1\r\nHost: x\r\n\r\n".encode(), "GET /probe?name=é HTTP/1.1".encode()),
    ):
        answer = await said(opened.port, sent)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"a space as %20" in answer
        assert shown in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n",
        b"GET /probe HTTP/1.1\r\n" + b"".join(b"H%d: 1\r\n" % number for number in range(10_000)),
        b"GET /probe HTTP/1.1\r\nH: " + b"a" * 40_000,
    ],
)
async def test_a_head_without_an_end_is_refused_before_it_is_kept(sent: bytes, open_site: OpenSite) -> None:
    opened = await open_site()
    answer = await said(opened.port, sent)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"at most 32768 bytes" in answer


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 40_000, b"431"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", b"400"),
    ],
)
def test_who_still_sends_what_is_not_read_can_see_the_answer(
    sent: bytes, status: bytes, run: Callable[..., None]
) -> None:
    """Whose bytes come behind a connection's end gets a reset, and tells of nothing else."""

    async def sends_on() -> None:
        async with Open(Bounds()) as opened:
            opened.let.set()
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 %b " % status)
                for _ in range(3):
                    writer.write(b"a" * 400_000)
                    await writer.drain()
                writer.close()
                await writer.wait_closed()

            async def gone() -> bool:
                return opened.site.open == 0

            await eventually_async(gone, what="the connection's end")

    run(sends_on())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_has_seen_the_last_answer_and_ends_is_not_waited_for(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what is no HTTP came behind it, of which nothing is said any more."""
    monkeypatch.setattr(connections, "_LINGER", 60.0)

    async def ends() -> None:
        async with Open(Bounds()) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(b"GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nnonsense\r\n\r\n")
            async with asyncio.timeout(10):
                assert (await reader.read()).endswith(b"fine")
            writer.write_eof()

            async def gone() -> bool:
                return opened.site.open == 0

            await eventually_async(gone, what="the connection's end")
            writer.close()

    run(ends())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_nobody_sends_for_ever_what_is_not_read(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LINGER", 0.2)

    async def sends_on() -> None:
        async with Open(Bounds()) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(b"nonsense\r\n\r\n")

            async def send_on() -> None:
                while True:
                    writer.write(b"a" * 1_000)
                    await writer.drain()
                    await asyncio.sleep(0)

            async with asyncio.timeout(10):
                assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
                with pytest.raises(ConnectionError):
                    await send_on()
            writer.close()

    run(sends_on())


async def test_a_long_url_is_read(open_site: OpenSite) -> None:
    opened = await open_site()
    sent = b"GET /probe?a=" + b"a" * 30_000 + b" HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = await said(opened.port, sent)
    assert b"is no word that the URL of this path may have" in answer


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"GET http://x:1/probe HTTP/1.1\r\nHost: x\r\n", b"200", b"fine"),
        (b"GET /%70robe#there HTTP/1.1\r\nHost: x\r\n", b"200", b"fine"),
        (b"GET //probe HTTP/1.1\r\nHost: x\r\n", b"404", b"NotDefined"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n", b"404", b"NotDefined"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n", b"404", b"NotDefined"),
    ],
)
async def test_a_target_is_what_http_lets_it_be(sent: bytes, status: bytes, body: bytes, open_site: OpenSite) -> None:
    opened = await open_site()
    answer = await said(opened.port, sent + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert body in answer


@pytest.mark.parametrize("cut", [0, 1, 40, 150])
@pytest.mark.parametrize(
    ("behind", "answers"), [(b"", [b"200"]), (b"\x00\x00\x12\x04", [b"200", b"400"]), (post(b"34"), [b"200", b"200"])]
)
async def test_who_offers_another_protocol_is_answered_by_this_one(
    behind: bytes, answers: list[bytes], cut: int, open_site: OpenSite
) -> None:
    """As Java's client does, and `curl --http2`: with the first request of a connection, and a body behind it."""
    opened = await open_site()
    opened.let.set()
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    sent = post(b"12", "/slow", *upgrade) + behind
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(sent[:cut])

    async def come() -> bool:
        return not cut or opened.under_way > 0 or any(each._head for each in opened.server.connections)

    await eventually_async(come, what="the first part")
    writer.write(sent[cut:])
    writer.write_eof()
    async with asyncio.timeout(10):
        came = (await reader.read()).split(b"HTTP/1.1 ")[1:]
    writer.close()
    assert [each[:3] for each in came] == answers
    assert came[0].endswith(b"\r\n\r\n12")
    assert answers[1:] != [b"200"] or came[1].endswith(b"\r\n\r\n34")


async def test_what_comes_in_chunks_is_read_and_what_stands_behind_them_is_no_header(open_site: OpenSite) -> None:
    opened = await open_site()
    opened.let.set()
    head = b"POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    answer = await said(opened.port, head + b"\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nContent-Type: text/xml\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nabcde")
    answer = await said(opened.port, head + b"\r\n3\r\nabc\r\nzz\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"body: cannot be read" in answer


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Content-Length: +2",
        b"Content-Length : 2",
        b"X: y\r\n Content-Length: 2",
    ],
)
async def test_nothing_can_be_smuggled_behind_what_two_could_read_in_two_ways(
    header: bytes, open_site: OpenSite
) -> None:
    opened = await open_site()
    opened.let.set()
    sent = b"POST /slow HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n{}GET /probe HTTP/1.1\r\n\r\n" % header
    answer = await said(opened.port, sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert opened.told == []


async def test_a_request_too_many_is_refused_at_once_and_probes_are_not(open_site: OpenSite) -> None:
    opened = await open_site(in_flight=3)
    waiting = [asyncio.create_task(said(opened.port, post(b"{}", "/slow", "Connection: close"))) for _ in range(3)]

    async def full() -> bool:
        return opened.under_way == 3

    await eventually_async(full, what="three requests under way")
    refused = await said(opened.port, post(b"{}", "/slow", "Connection: close"))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused
    assert b"3 requests are under way already" in refused
    assert b"fine" in await said(opened.port, b"GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    opened.let.set()
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in await asyncio.gather(*waiting))
    assert (await said(opened.port, post(b"{}", "/slow", "Connection: close"))).startswith(b"HTTP/1.1 200 ")
    assert opened.site.turned_away == 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_too_many_is_told_so(run: Callable[..., None]) -> None:
    async def told() -> None:
        async with Open(Bounds(connections=2)) as opened:
            held = [await asyncio.open_connection("127.0.0.1", opened.port) for _ in range(2)]

            async def full() -> bool:
                return opened.site.open == 2

            await eventually_async(full, what="two connections")
            refused = await said(opened.port, post())
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in refused
            assert b"too many connections" in refused
            for _, writer in held:
                writer.close()

            async def empty() -> bool:
                return opened.site.open == 0

            await eventually_async(empty, what="no connection")
            assert b"fine" in await said(opened.port, b"GET /probe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    run(told())


async def test_a_head_that_does_not_come_on_ends_the_connection(open_site: OpenSite) -> None:
    """Also the second on a connection, and though a byte comes now and then."""
    opened = await open_site(patience=0.3, idle=60)
    assert await said(opened.port, b"POST /slow HTTP/1.1\r\nHost:") == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200 ")
    writer.write(b"GET /pro")
    async with asyncio.timeout(8):
        assert await reader.read() == b""
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)

    async def dribble() -> bool:
        writer.write(b"G")
        return reader.at_eof()

    async with asyncio.timeout(8):
        reading = asyncio.create_task(reader.read())
        await eventually_async(dribble, what="the end of a connection that dribbles")
        await reading
    writer.close()


def test_half_a_head_that_was_there_before_the_connection_was_taken_ends_in_time_too() -> None:
    """By the loop that the service runs on: a busy process finds the first bytes together with the connection."""

    async def ended() -> bytes:
        async with Open(Bounds(patience=0.3, idle=20.0)) as opened:
            with socket.create_connection(("127.0.0.1", opened.port)) as client:
                client.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\n")
                client.setblocking(False)
                async with asyncio.timeout(10):
                    return await asyncio.get_running_loop().sock_recv(client, 100)

    assert uvloop.run(ended()) == b""


async def test_a_head_may_take_its_time_while_others_are_before_it_and_once_it_is_whole_no_time_runs(
    open_site: OpenSite,
) -> None:
    """Patience is told by a connection that has begun a head later, and ended."""
    opened = await open_site(patience=0.3, idle=60)

    async def patience() -> None:
        assert await said(opened.port, b"GET /pro") == b""

    async def in_head() -> bool:
        return any(each._in_head for each in opened.server.connections)

    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        writer.write(post(b"12") + b"GET /pro")
        await eventually_async(in_head, what="half a head")
        await patience()
        opened.let.set()
        assert (await reader.readuntil(b"\r\n\r\n12")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"be HTTP/1.1\r\n\r\nGET /pro")
        assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"be HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200 ")
        await patience()
        writer.write(b"GET /probe HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_half_a_head_behind_a_request_ends_the_connection_in_time(open_site: OpenSite) -> None:
    opened = await open_site(patience=0.3, idle=60)
    answer = await said(opened.port, b"GET /probe HTTP/1.1\r\n\r\nGET /pro")
    assert answer.count(b"HTTP/1.1") == 1


async def test_the_rest_of_a_body_that_nobody_reads_is_passed_over_or_ends_the_connection(open_site: OpenSite) -> None:
    opened = await open_site(patience=0.3, idle=60)
    whole = post(b"1" * 1_000_000, "/nowhere")
    answers = await said(opened.port, whole + b"GET /probe HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 404 ")
    assert answers.endswith(b"fine")
    assert (await said(opened.port, whole[:-1])).count(b"HTTP/1.1 404 ") == 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_of_a_body_whose_turn_has_not_come_a_part_is_read_ahead(run: Callable[..., None]) -> None:
    async def read() -> None:
        async with Open(Bounds()) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(post(b"1") + post(b"2" * 1_000_000, "/slow", "Connection: close"))

            async def paused() -> bool:
                return any(each.transport and not each.transport.is_reading() for each in opened.server.connections)

            await eventually_async(paused, what="a pause")
            opened.let.set()
            async with asyncio.timeout(5):
                answers = await reader.read()
            assert answers.count(b"HTTP/1.1 200 ") == 2
            assert answers.endswith(b"2" * 1_000_000)
            writer.close()

    run(read())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_of_whole_bodies_whose_turn_has_not_come_no_more_are_read_ahead_than_of_one(run: Callable[..., None]) -> None:
    async def read() -> None:
        async with Open(Bounds()) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            bodies = [bytes([65 + number]) * 60_000 for number in range(12)]
            writer.write(b"".join(map(post, bodies)) + post(b"last", "/slow", "Connection: close"))

            async def paused() -> bool:
                return any(each.transport and not each.transport.is_reading() for each in opened.server.connections)

            await eventually_async(paused, what="a pause")
            (connection,) = opened.server.connections
            waiting = [each for each in connection._waiting if isinstance(each, Request)]
            assert sum(each.size for each in waiting) <= 2 * 2**16
            opened.let.set()
            async with asyncio.timeout(5):
                answers = await reader.read()
            assert answers.count(b"HTTP/1.1 200 ") == 13
            assert [answers.count(body) for body in bodies] == [1] * 12
            writer.close()

    run(read())


async def test_what_stands_behind_connect_is_no_request(open_site: OpenSite) -> None:
    opened = await open_site(patience=60, idle=60)
    answers = await said(opened.port, b"CONNECT x:1 HTTP/1.1\r\n\r\nGET /probe HTTP/1.1\r\n\r\n")
    assert answers.count(b"HTTP/1.1") == 1
    assert b"Connection: close\r\n" in answers


async def test_a_mistake_of_ours_before_the_pages_is_not_said_to_be_the_clients(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await open_site()

    def broken(*parts: object) -> Request:
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr(connections, "Request", broken)
    assert await said(opened.port, b"GET /probe HTTP/1.1\r\n\r\n") == b""
    assert opened.site.open == 0


async def test_a_body_that_does_not_come_is_a_408(open_site: OpenSite) -> None:
    opened = await open_site(patience=0.3)
    answer = await said(opened.port, b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.3 s" in answer
    assert b"Connection: close\r\n" in answer
    assert opened.site.in_flight == 0


async def test_a_body_of_more_than_is_read_ahead_comes_whole_and_so_does_the_next_one(open_site: OpenSite) -> None:
    """Reading is paused on the way, and goes on once a part was taken."""
    opened = await open_site()
    opened.let.set()
    body = b"1" * 1_000_000
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    for _ in range(2):
        writer.write(post(body))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(len(body)) == body
    writer.close()


async def test_a_request_of_which_a_part_has_come_is_answered_when_the_service_ends(open_site: OpenSite) -> None:
    """Otherwise the rest would be said not to have come, after all the time it may take."""
    opened = await open_site()
    opened.let.set()
    await said(opened.port, b"GET /probe HTTP/1.1\r\nConnection: close\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    sent = post(b"1" * 50_000)
    writer.write(sent[:20_000])

    async def begun() -> bool:
        return opened.site.in_flight == 1

    await eventually_async(begun, what="a request under way")
    opened.site.ending = True
    ending = asyncio.create_task(opened.server.end(10.0))
    await asyncio.sleep(0.05)
    writer.write(sent[20_000:])
    async with asyncio.timeout(5):
        answer = await reader.read()
        await ending
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n" + b"1" * 50_000)
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_request_that_has_come_when_the_service_ends_is_answered_and_none_behind_it(run: Callable[..., None]) -> None:
    """Also if it came in the same turn of the event loop."""

    async def ended() -> None:
        async with Open(Bounds()) as opened:
            opened.let.set()

            class Ending:
                def prolong(self) -> None:
                    for each in opened.server.connections:
                        each.end()

            opened.server.busy_poll = Ending()  # type: ignore[assignment]
            answer = await said(opened.port, post(b"12") + post(b"34"))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close\r\n" in answer
            assert answer.endswith(b"\r\n\r\n12")

    run(ended())


@pytest.mark.parametrize("come", [20_000, 60_000])
async def test_a_service_that_ends_waits_no_longer_than_it_was_told_for_a_body_or_a_page(
    come: int, open_site: OpenSite
) -> None:
    opened = await open_site()
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(post(b"1" * 50_000)[:come])

    async def begun() -> bool:
        return opened.site.in_flight == 1

    await eventually_async(begun, what="a request under way")
    async with asyncio.timeout(5):
        await opened.server.end(0.2)
        assert opened.site.in_flight == 0
        assert opened.told == []
        assert await reader.read() == b""
    writer.close()


async def test_a_client_that_goes_amid_its_body_is_no_mistake_of_ours(
    open_site: OpenSite, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who looks for 500s, or for tracebacks, must not find what any client may do."""
    opened = await open_site()
    _, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")

    async def begun() -> bool:
        return opened.site.in_flight == 1

    async def told() -> bool:
        return opened.told != []

    await eventually_async(begun, what="a request under way")
    writer.transport.abort()
    await eventually_async(told, what="what became of it")
    assert opened.told == [("/slow", 400)]
    assert "mistake" not in capsys.readouterr().out


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("path", ["/slow", "/nowhere"])
def test_a_body_is_not_waited_for_once_its_connection_was_reset(path: str, run: Callable[..., None]) -> None:
    """Nobody says then that no more is sent."""

    async def reset() -> None:
        async with Open(Bounds(patience=60.0)) as opened:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.write(post(b"1" * 100, path)[:-1])

            async def begun() -> bool:
                return opened.site.in_flight == 1 or opened.told != []

            async def over() -> bool:
                return opened.site.in_flight == 0 and len(asyncio.all_tasks()) == 1

            await eventually_async(begun, what="a request under way")
            writer.transport.abort()
            await eventually_async(over, what="the end of the connection's task")

    run(reset())


async def test_who_comes_while_the_service_ends_is_turned_away(open_site: OpenSite) -> None:
    opened = await open_site()
    opened.site.ending = True
    assert (await said(opened.port, post())).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_client_that_sends_no_more_gets_what_it_has_asked_for_and_an_end(run: Callable[..., None]) -> None:
    """As `nc -N` and others do, who shut down their half of a connection behind the last request."""

    async def answered() -> None:
        async with Open(Bounds(patience=60.0, idle=60.0)) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(b"".join(post(b"%d" % number) for number in range(3)))
            writer.write_eof()

            async def begun() -> bool:
                return opened.under_way == 1

            await eventually_async(begun, what="a request under way")
            opened.let.set()
            async with asyncio.timeout(10):
                answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
            assert [each.partition(b" ")[0] + each[-1:] for each in answers] == [b"2000", b"2001", b"2002"]
            assert [b"Connection: close\r\n" in each for each in answers] == [False, False, True]
            assert opened.site.open == 0
            writer.close()

    run(answered())


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET /pro", []),
        (post(b"1" * 100)[:-1], [b"400"]),
        (post() + post(b"1" * 100)[:-1], [b"200", b"400"]),
        (post() + b"GET /pro", [b"200"]),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", [b"404"]),
        (b"GET /probe HTTP/1.0\r\n\r\n", [b"200"]),
    ],
)
async def test_what_a_client_that_sends_no_more_has_left_unfinished_keeps_no_connection(
    sent: bytes, statuses: list[bytes], open_site: OpenSite
) -> None:
    opened = await open_site(patience=60.0, idle=60.0)
    opened.let.set()
    answers = (await said(opened.port, sent, end=True)).split(b"HTTP/1.1 ")[1:]
    assert [each[:3] for each in answers] == statuses

    async def ended() -> bool:
        return opened.site.open == 0

    await eventually_async(ended, what="the end of the connection")


async def test_a_client_that_has_gone_keeps_its_connection_no_longer_than_its_request(open_site: OpenSite) -> None:
    opened = await open_site(patience=60.0, idle=60.0)
    _, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(post())

    async def begun() -> bool:
        return opened.under_way == 1

    async def ended() -> bool:
        return opened.site.open == 0

    await eventually_async(begun, what="a request under way")
    writer.close()
    opened.let.set()
    await eventually_async(ended, what="the end of the connection")


def close(writer: asyncio.StreamWriter) -> None:
    """Go as most clients do: it looks as if they only sent no more."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Go as one does that has not read what it was sent."""
    own = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("go", [close, reset])
@pytest.mark.parametrize("body", [b"", b"late"])
def test_what_only_waits_ends_with_its_client_and_is_neither_counted_nor_told(
    run: Callable[..., None],
    go: Callable[[asyncio.StreamWriter], None],
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """late: the client has gone before it is waited."""
    monkeypatch.setattr(connections, "_SOUND", 0.01)

    async def gone() -> None:
        async with Open(Bounds(patience=60.0, idle=60.0)) as opened:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(post(body, "/waiting") + post(path="/waiting"))
            await eventually_here(lambda: opened.under_way, what="a request under way")
            go(writer)
            if body == b"late":
                ended = list(opened.server.connections)
                await eventually_here(lambda: ended[0]._ended or ended[0].transport is None, what="the client's end")
                opened.let.set()
            await eventually_here(lambda: opened.site.in_flight == 0, what="nothing under way")
            await eventually_here(lambda: len(asyncio.all_tasks()) == 1, what="the end of the connection's task")
            assert (opened.under_way, opened.carried_out, opened.told, opened.site.open) == (1, 0, [], 0)

    with structlog.testing.capture_logs() as lines:
        run(gone())
    assert (lines, caplog.records) == ([], [])


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("go", [close, reset])
def test_what_is_carried_out_comes_to_its_end_without_its_client(
    run: Callable[..., None], go: Callable[[asyncio.StreamWriter], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push is not to be left half-way."""
    monkeypatch.setattr(connections, "_SOUND", 0.01)

    async def gone() -> None:
        async with Open(Bounds(patience=60.0, idle=60.0)) as opened:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(post())
            await eventually_here(lambda: opened.under_way, what="a request under way")
            go(writer)
            await asyncio.sleep(0.1)
            assert opened.site.in_flight == 1
            opened.let.set()
            await eventually_here(lambda: opened.site.in_flight == 0, what="nothing under way")
            assert opened.carried_out == 1

    run(gone())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_client_that_sends_no_more_and_waits_gets_its_answers_whole(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the first has come before: that is how it is seen that the client is there."""
    monkeypatch.setattr(connections, "_SOUND", 0.0001)

    async def answered() -> None:
        async with Open(Bounds(patience=60.0, idle=60.0)) as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
            writer.write(b"".join(post(b"%d" % number, "/waiting") for number in range(3)))
            writer.write_eof()
            async with asyncio.timeout(10):
                came = await reader.readexactly(9)
                assert came == b"HTTP/1.1 "
                await asyncio.sleep(0.05)
                opened.let.set()
                answers = (came + await reader.read()).split(b"HTTP/1.1 ")
            assert answers[0] == b""
            assert [each[:4] + each[-1:] for each in answers[1:]] == [b"200 0", b"200 1", b"200 2"]
            assert opened.told == [("/waiting", 200)] * 3
            writer.close()

    run(answered())


async def test_a_mistake_of_ours_behind_the_pages_ends_the_connection(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is to wait for an answer that does not come."""
    opened = await open_site()

    def broken(reply: Reply, method: str, stays: bool) -> bytes:
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr(Reply, "packed", broken)
    assert await said(opened.port, b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert opened.site.open == 0


async def test_a_page_that_was_cancelled_with_what_it_waited_for_is_a_mistake_of_ours(open_site: OpenSite) -> None:
    opened = await open_site(idle=60.0)
    sent = b"GET /cancelled HTTP/1.1\r\n\r\nGET /probe HTTP/1.1\r\nConnection: close\r\n\r\n"
    answers = await said(opened.port, sent)
    assert answers.startswith(b"HTTP/1.1 500 ")
    assert b"fine" in answers
    assert opened.told == [("/cancelled", 500), ("/probe", 200)]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_nothing_holds_a_connection_that_has_gone(run: Callable[..., None]) -> None:
    """Nor would it have to be searched for: there can be many in a second."""

    async def gone() -> None:
        async with Open(Bounds(patience=0.3, idle=60.0)) as opened:
            held: list[weakref.ref[object]] = []
            for sent, answered in (
                (post(b"12"), False),
                (post(b"12") * 40, False),
                (post(b"12")[:-1], False),
                (post(b"12")[:-1], True),
                (b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\nGET", True),
                (b"POST /nowhere HTTP/1.1\r\nContent-Length: 9\r\n\r\n", True),
                (b"\0", True),
                (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", True),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
                writer.write(sent)

                async def come() -> bool:
                    return any(each.transport and each._headers for each in opened.server.connections)

                async with asyncio.timeout(5):
                    if answered:
                        assert await reader.readline()
                    else:
                        await eventually_async(come, what="a request")
                held += map(weakref.ref, opened.server.connections)
                writer.transport.abort()
            opened.let.set()

            async def nothing() -> bool:
                return not any(each() for each in held)

            await eventually_async(nothing, what="the end of all that holds them")

    gc.collect()
    gc.disable()
    try:
        run(gone())
    finally:
        gc.enable()


async def test_a_client_that_does_not_take_its_answer_is_given_up(open_site: OpenSite) -> None:
    opened = await open_site(patience=0.3)
    _, writer = await asyncio.open_connection("127.0.0.1", opened.port, limit=1024)
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")

    async def given_up() -> bool:
        return opened.site.open == 0

    async def begun() -> bool:
        return opened.site.open == 1

    await eventually_async(begun, what="a connection")
    await eventually_async(given_up, what="the end of the connection")
    writer.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_client_that_goes_while_it_takes_its_answer_holds_nobody_up(run: Callable[..., None]) -> None:
    """What waits for it to take more is to end with the connection, and not to ask again and again."""

    async def gone() -> None:
        async with Open(Bounds(patience=60.0)) as opened:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")

            async def taking() -> bool:
                made = [each.transport for each in opened.server.connections if each.transport]
                return any(each.get_write_buffer_size() for each in made)

            async def ended() -> bool:
                return opened.site.open == 0 and len(asyncio.all_tasks()) == 1

            await eventually_async(taking, what="an answer of which the system takes a part")
            writer.transport.abort()
            await eventually_async(ended, what="the end of the connection and its task")

    run(gone())


@pytest.mark.parametrize(("half", "idle"), [(False, 0.3), (True, 60.0)])
def test_what_a_client_leaves_in_the_end_of_its_answers_keeps_no_connection(half: bool, idle: float) -> None:
    """Less than what would hold the next answer back: nothing waits for it, but a transport that is closed does, and
    a client that was stopped takes it never. half: it has said that it sends no more."""

    async def kept() -> int:
        async with Open(Bounds(patience=0.3, idle=idle)) as opened:
            opened.let.set()
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", opened.port))
                client.setblocking(False)
                made: list[asyncio.Transport] = []

                async def left() -> bool:
                    with contextlib.suppress(BlockingIOError):
                        client.send(post(bytes(40_000)))
                    await asyncio.sleep(0.005)
                    made[:] = [each.transport for each in opened.server.connections if each.transport]
                    return any(each.get_write_buffer_size() for each in made)

                await eventually_async(left, what="an answer of which the system takes a part")
                assert made[0].get_write_buffer_size() < 64 * 1024
                if half:
                    client.shutdown(socket.SHUT_WR)

                async def ended() -> bool:
                    return opened.site.open == 0

                await eventually_async(ended, what="the end of the connection")
                return opened.site.open

    assert uvloop.run(kept()) == 0


async def test_a_client_that_goes_while_the_rest_of_its_body_is_read_to_nobodys_use_is_not_waited_for(
    open_site: OpenSite,
) -> None:
    opened = await open_site(patience=60.0)
    before = len(asyncio.all_tasks())
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    writer.transport.abort()

    async def over() -> bool:
        return len(asyncio.all_tasks()) <= before

    await eventually_async(over, what="the end of the connection's task")


async def test_a_connection_on_which_nothing_is_asked_ends(open_site: OpenSite) -> None:
    opened = await open_site(idle=0.3)
    assert (await said(opened.port, b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_has_begun_has_its_own_time_and_not_what_is_left_of_the_idle(open_site: OpenSite) -> None:
    """How long a connection may be idle is told by one that comes later, and on which nothing is asked."""
    opened = await open_site(idle=0.3, patience=60)
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"GET /pro")
    assert await said(opened.port, b"") == b""
    writer.write(b"be HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(5):
        answers = await reader.read()
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.endswith(b"fine")
    writer.close()


async def test_a_request_may_take_longer_than_a_connection_may_be_idle(open_site: OpenSite) -> None:
    """How long that is, is told by a connection on which nothing is asked, and that comes later."""
    opened = await open_site(idle=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(post(b"12") * 2)

    async def begun() -> bool:
        return opened.under_way == 1

    await eventually_async(begun, what="a request under way")
    assert await said(opened.port, b"") == b""
    opened.let.set()
    async with asyncio.timeout(5):
        assert (await reader.read()).count(b"HTTP/1.1 200 ") == 2
    writer.close()


async def test_requests_that_come_at_once_are_answered_in_their_order(open_site: OpenSite) -> None:
    opened = await open_site()
    opened.let.set()
    sent = b"".join(post(b"%d" % number) for number in range(40)) + post(b"40", "/slow", "Connection: close")
    answers = (await said(opened.port, sent)).split(b"\r\n\r\n")
    assert [int(answer.split(b"HTTP")[0]) for answer in answers[1:]] == list(range(41))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("each", [post(b"1" * 100), b"GET /probe HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_requests_that_come_faster_than_they_are_looked_at_are_all_answered(
    each: bytes, run: Callable[..., None]
) -> None:
    """Though reading is paused meanwhile, the client sends no more, and most parts end amid a head."""

    async def answered() -> None:
        async with Open(Bounds(patience=60.0, idle=60.0)) as opened:
            opened.let.set()
            last = b"GET /probe HTTP/1.1\r\nConnection: close\r\n\r\n"
            assert (await said(opened.port, each * 2_000 + last)).count(b"HTTP/1.1 200 ") == 2_001
            assert (await said(opened.port, each * 2_000, end=True)).count(b"HTTP/1.1 200 ") == 2_000

    run(answered())


@pytest.mark.parametrize(
    "endless",
    [
        b"1\r\na\r\n0\r\nTrailer: " + b"a" * 100_000,
        b"1\r\na\r\n0\r\n" + b"Trailer: a\r\n" * 10_000,
        b"1;" + b"a" * 100_000,
    ],
)
async def test_what_stands_behind_a_body_or_between_its_parts_without_an_end_is_refused(
    endless: bytes, open_site: OpenSite
) -> None:
    opened = await open_site(patience=60.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + endless)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_long_body_in_small_parts_is_read(open_site: OpenSite) -> None:
    """What stands between them has more bytes than a head may have, and so has what came before the last of them."""
    opened = await open_site()
    opened.let.set()
    sent = b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = await said(opened.port, sent + b"1;why=not\r\na\r\n" * 20_000 + b"0\r\nTrailer: a\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n" + b"a" * 20_000)


async def test_a_header_behind_a_body_is_none_of_the_next_request(open_site: OpenSite) -> None:
    opened = await open_site()
    opened.let.set()
    first = b"POST /slow HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n0\r\nContent-Type: text/xml\r\n\r\n"
    answers = await said(opened.port, first + post(b"34", "/slow", "Connection: close"))
    assert answers.count(b"HTTP/1.1 200 ") == 2


async def test_a_client_that_may_hold_its_body_back_is_told_of_an_end_when_it_is_not_asked_for_it(
    open_site: OpenSite,
) -> None:
    """Otherwise its next request would be taken for the body, or the body for a request."""
    opened = await open_site(patience=0.3)
    opened.let.set()
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
    writer.write(b"POST /nowhere HTTP/1.1\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close\r\n" in head
        writer.write(post(b"12"))
        assert b"HTTP/1.1" not in await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"POST /slow HTTP/1.1\r\nContent-Length: 2\r\nConnection: upgrade\r\n", True),
        (b"POST /slow HTTP/1.1\r\nContent-Length: 2\r\nConnection: upgrade\r\nConnection: close\r\n", False),
        (b"POST /slow HTTP/1.1\r\nContent-Length: 2\r\nConnection: close, upgrade\r\n", False),
        (b"POST /slow HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive, upgrade\r\n", False),
        (b"POST /slow HTTP/1.0\r\nContent-Length: 2\r\nProxy-Connection: keep-alive, upgrade\r\n", False),
    ],
)
async def test_an_offer_of_another_protocol_does_not_change_whether_a_connection_stays(
    head: bytes, stays: bool, open_site: OpenSite
) -> None:
    opened = await open_site()
    opened.let.set()
    for offer in (b"Upgrade: h2c\r\n", b""):
        sent = head + offer + b"\r\n12" + post(b"34", "/slow", "Connection: close")
        answers = await said(opened.port, sent)
        assert answers.count(b"HTTP/1.1 200 ") == 1 + stays
        assert answers.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b"200"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", b"400"),
        (b"Transfer-Encoding: gzip\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"400"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"400"),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"400"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"400"),
        (b"Content-Length: 5\r\nContent-Length:\r\n 6\r\n", b"400"),
        (b"Content-Length: +5\r\n", b"400"),
    ],
)
async def test_an_offer_of_another_protocol_does_not_change_where_a_body_ends(
    headers: bytes, status: bytes, open_site: OpenSite
) -> None:
    opened = await open_site()
    opened.let.set()
    for offer in (b"Connection: upgrade\r\nUpgrade: h2c\r\n", b""):
        head = b"POST /slow HTTP/1.1\r\n" + headers + offer + b"\r\n"
        answers = await said(opened.port, head + b"0\r\n\r\n" + b"GET /probe HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answers.startswith(b"HTTP/1.1 " + status)
        assert answers.count(b"HTTP/1.1") == (2 if status == b"200" else 1)


async def test_a_client_of_http_1_0_gets_its_answer_and_an_end(open_site: OpenSite) -> None:
    opened = await open_site()
    answer = await said(opened.port, b"GET /probe HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer


async def test_a_mistake_of_ours_is_a_500_that_says_nothing_of_itself(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})

    def broken(operation: str) -> str:
        raise ZeroDivisionError("secret")

    served.store.faults = broken  # type: ignore[assignment]
    status, answer = await served.post("/v1/features", **ASKED)
    assert (status, answer["error"]["field"]) == (500, None)
    assert "secret" not in answer["error"]["message"]


async def test_a_time_that_runs_out_in_a_page_is_not_taken_for_a_body_that_is_late(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})

    def late(operation: str) -> str:
        raise TimeoutError

    served.store.faults = late  # type: ignore[assignment]
    status, answer = await served.post("/v1/features", **ASKED)
    assert (status, answer["error"]["kind"]) == (500, "StillwellError")


def test_answers_that_alarms_go_by_are_shown_before_the_first() -> None:
    metrics = Metrics()
    metrics.begin_pages(["/v1/push"])
    (shown,) = [family for family in metrics.collect() if f"{family.name}_total" == REQUESTS.name]
    began = {sample.labels["status"]: sample.value for sample in shown.samples}
    assert began == dict.fromkeys(["200", "202", "422", "500", "503", "504"], 0)


async def test_each_request_is_counted_by_its_page_and_what_became_of_it(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    await served.post("/v1/features", **ASKED)
    await served.post("/v1/features", features=[], entities={})
    await served.get("/nowhere/at/all")
    assert served.metrics.get(REQUESTS, "/v1/features", "200") == 1
    assert served.metrics.get(REQUESTS, "/v1/features", "422") == 1
    assert served.metrics.get(REQUESTS, "(none)", "404") == 1
    async with served.client.get("/metrics") as response:
        page = await response.text()
    assert 'stillwell_serve_requests_total{path="/v1/features",status="200",worker="0"} 1.0' in page
    assert 'stillwell_serve_request_seconds_count{path="/v1/features",worker="0"} 2.0' in page


async def test_a_service_that_has_been_told_to_end_is_alive_and_not_ready(served: Served) -> None:
    await served.put({"id": 1, "name": "a"})
    assert (await served.get("/readyz"))[0] == 200
    served.site.ending = True
    async with served.client.get("/readyz") as response:
        assert (response.status, response.headers["Connection"]) == (503, "close")
    served.site.ending = False
    assert (await served.get("/healthz"))[0] == 200
