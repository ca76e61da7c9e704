"""Asking a model: over HTTP by the Open Inference Protocol, or a function in this process.

A call has a deadline; one that found no server, or one that cannot answer now, is made again a few times, after pauses
that differ by chance. A server that fails again and again is left alone for a while, by every caller of this process.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import structlog

from stillwell.errors import ModelError, ModelFailed, ModelLeftAlone, ModelUnavailable
from stillwell.evaluate import WHAT_CODE_RAISES
from stillwell.logs import LogLimit
from stillwell.predictions.breaker import Breaker, BreakerPolicy
from stillwell.predictions.halving import ask_by_halves
from stillwell.predictions.tensors import Metadata, Said, answers, left_out, metadata_of, mismatches, request, spoken
from stillwell.redaction import hide_password
from stillwell.spec import ModelSpec, OpenInferenceSpec
from stillwell.threads import ThreadPool

_log = structlog.get_logger(__name__)

_LARGEST_ANSWER = 16 << 20
"""Bytes: an answer is read as a whole, and one without end must not take the process's memory."""

_QUOTED = 300
"""Characters of a server's error that its reader is told."""

_CALLS_AT_A_TIME = 8
"""Connections to one server from one process. A server that computes more at once is given larger batches."""

_FIRST_PAUSE = 0.05
"""Seconds before a call is repeated; doubled each time, by chance from half to half as long again."""

_NOT_NOW = (429, 502, 503, 504)
"""What a server, or what stands before it, answers that has not looked at the inputs: the same call may succeed."""

_FUNCTION_PATIENCE = 30.0
"""Seconds that a function in this process has. Its thread cannot be ended: the function should have a deadline too."""

_FUNCTION_THREADS = 2
"""Of each function's own: one that hangs keeps its own callers waiting, and nobody else."""

_FUNCTION_HALVES = 4.0
"""Seconds after which a function is not called again to find whom it fails over: who waits has 35."""

InputColumns = Mapping[str, Sequence[Any]]
"""A value for each entity, by the names of a model's inputs."""


class Inference(Protocol):
    """A model that can be asked."""

    async def check(self) -> None:
        """See that the model is what its definition says. Raises ModelError; ModelUnavailable where nobody answers."""

    async def infer(self, columns: InputColumns, count: int) -> list[Said]:
        """What the model says of so many entities. columns: values for each input, in Python's types, a Timestamp as µs
        since the epoch. Raises ModelError."""

    async def close(self) -> None:
        """End all connections."""


def open_inference(
    model: ModelSpec, environment: Mapping[str, str], chance: Callable[[], float] = random.random
) -> Inference:
    """The model of a definition."""
    if not isinstance(model.server, OpenInferenceSpec):
        return FunctionModel(model, model.server)
    name = model.server.variable
    url = environment.get(name, "") if name else model.server.url
    if not url.startswith(("http://", "https://")):
        wrong = "does not begin with http:// or https://" if url else "is missing"
        return NowhereModel(
            f"model {model.name}: {name} {wrong}, which says where its server is, as http://host:port. Set it in the "
            "environment"
        )
    return ServedModel(model, model.server, url.rstrip("/"), chance)


class NowhereModel:
    """A model whose server nobody has named, or not by a URL. Features are read, and predictions served as far as they
    are there."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def check(self) -> None:
        """Raises ModelLeftAlone."""
        raise ModelLeftAlone(self._problem)

    async def infer(self, columns: InputColumns, count: int) -> list[Said]:
        """Raises ModelLeftAlone."""
        raise ModelLeftAlone(self._problem)

    async def close(self) -> None:
        """Nothing is open."""


class FunctionModel:
    """A function of the definitions: from a mapping of input names to sequences, to the same of output names."""

    def __init__(self, model: ModelSpec, function: Callable[..., Any]) -> None:
        self._model = model
        self._function = function
        self._threads = ThreadPool(f"model {model.name}", _FUNCTION_THREADS)
        self._free = asyncio.Semaphore(_FUNCTION_THREADS)
        """Whoever calls waits here for a thread, and goes away when its time is over. The pool's own queue would keep
        it and its inputs for as long as the threads hang."""
        self._begun: dict[asyncio.Future[Any], float] = {}
        """Calls that are in a thread, whether or not somebody waits for them, and since when."""
        self._raised = LogLimit()

    async def check(self) -> None:
        """There is nothing to see before it is called."""

    async def infer(self, columns: InputColumns, count: int) -> list[Said]:
        """What the function says; called in a thread. Raises ModelLeftAlone while all of them hang."""
        end = time.monotonic() + _FUNCTION_HALVES

        async def ask(numbers: Sequence[int]) -> Sequence[Said]:
            return await self._call(_of(columns, self._model, numbers), len(numbers))

        said = await ask_by_halves(ask, range(count), lambda: time.monotonic() < end)
        return [said[number] for number in range(count)]

    async def _call(self, given: InputColumns, count: int) -> list[Said]:
        overdue = time.monotonic() - _FUNCTION_PATIENCE
        if sum(begun <= overdue for begun in self._begun.values()) >= _FUNCTION_THREADS:
            raise ModelLeftAlone(
                f"model {self._model.name}: its function hangs in all of its {_FUNCTION_THREADS} threads, for more "
                f"than {_FUNCTION_PATIENCE:g} s, and is not called before one returns. Give what it waits for a "
                "deadline"
            )
        try:
            async with asyncio.timeout(_FUNCTION_PATIENCE):
                await self._free.acquire()
                # Shielded: its thread is not free before the function returns, whoever has gone away.
                returned = await asyncio.shield(self._begin(given))
            return spoken(self._model, returned, count)
        except TimeoutError:
            raise ModelUnavailable(
                f"model {self._model.name}: its function has not returned within {_FUNCTION_PATIENCE:g} s"
            ) from None
        except ModelError as error:
            raise ModelError(f"model {self._model.name}: {error}") from None
        except WHAT_CODE_RAISES as error:
            if (silent := self._raised.times()) is not None:
                # Readers are told of the error, and whoever mends the function needs the line.
                _log.warning("a model's function raised", model=self._model.name, silent=silent, exc_info=error)
            raise ModelError(f"model {self._model.name}: its function raised {error!r}"[:_QUOTED]) from error

    def _begin(self, given: InputColumns) -> asyncio.Future[Any]:
        """Call it, in a thread that is free."""
        call = asyncio.ensure_future(self._threads.call(self._function, given))
        self._begun[call] = time.monotonic()
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Future[Any]) -> None:
        del self._begun[call]
        self._free.release()
        if not call.cancelled():
            call.exception()  # told to nobody, where nobody waits

    async def close(self) -> None:
        """Call it no more; a call that has begun is not waited for."""
        self._threads.close()


class ServedModel:
    """A model at a server, for one event loop; `close` it."""

    def __init__(
        self,
        model: ModelSpec,
        server: OpenInferenceSpec,
        url: str,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        policy: BreakerPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """sleep: how to wait so many seconds before a call is repeated."""
        self._model = model
        self._server = server
        self._root = f"{url}/v2/models/{server.model}"
        self._chance = chance
        self._clock = clock
        self._sleep = sleep
        self.breaker = Breaker(policy or BreakerPolicy())
        self._path: str | None = None
        """Where to ask; known once the metadata was seen to be right."""
        self._checking = asyncio.Lock()
        self._calls = asyncio.Semaphore(_CALLS_AT_A_TIME)
        self._session: aiohttp.ClientSession | None = None

    async def check(self) -> None:
        """See that the server has the model with the names, datatypes and shapes of its definition."""
        async with self._checking:
            if self._path is None:
                metadata = metadata_of(await self._ask("GET", self._root, None))
                self._require(metadata)
                versions = metadata.versions or []
                self._path = f"/versions/{self._model.version}" if self._model.version in versions else ""

    async def infer(self, columns: InputColumns, count: int) -> list[Said]:
        """What the server says of each entity; those that no tensor can hold are not asked about."""
        unusable = left_out(self._model, columns, count)
        asked = [number for number in range(count) if number not in unusable]
        said: dict[int, Said] = dict(unusable)

        async def ask(numbers: Sequence[int]) -> Sequence[Said]:
            return await self._infer(_of(columns, self._model, numbers), len(numbers))

        if asked and self._path is None:
            await self.check()
        for begin in range(0, len(asked), self._server.max_batch):
            end = self._clock() + self._server.timeout.total_seconds()
            batch = asked[begin : begin + self._server.max_batch]
            said |= await ask_by_halves(ask, batch, lambda: self._clock() < end)  # noqa: B023
        return [said[number] for number in range(count)]

    async def close(self) -> None:
        """End all connections."""
        if self._session:
            await self._session.close()

    async def _infer(self, columns: InputColumns, count: int) -> list[Said]:
        body = await self._ask("POST", f"{self._root}{self._path}/infer", request(self._model, columns))
        try:
            return answers(self._model, body, count)
        except ModelError as error:
            raise ModelError(f"{self._named}: {error}") from None

    def _require(self, metadata: Metadata) -> None:
        if found := mismatches(self._model, metadata):
            raise ModelError(f"{self._named} is not what its definition says: {'; '.join(found)}")

    @property
    def _named(self) -> str:
        return f"model {self._model.name} at {hide_password(self._root)}"

    async def _ask(self, method: str, url: str, body: bytes | None) -> bytes:
        """The body of an answer, of one call or several."""
        for attempt in range(self._server.retries + 1):
            if attempt:
                await self._sleep(_FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + self._chance()))
            if not self.breaker.may_call(self._clock()):
                raise ModelLeftAlone(
                    f"{self._named} has failed again and again, and is left alone for another "
                    f"{self.breaker.wait(self._clock()):.1f} s"
                )
            try:
                answer = await self._ask_once(method, url, body)
            except _Again as error:
                self.breaker.failed(self._clock(), self._chance())
                refused = error
            except ModelUnavailable:
                self.breaker.failed(self._clock(), self._chance())
                raise
            except ModelError:
                self.breaker.succeeded()  # it answers, though not as it should
                raise
            else:
                self.breaker.succeeded()
                return answer
        raise ModelUnavailable(f"{self._named}: {refused}") from refused

    async def _ask_once(self, method: str, url: str, body: bytes | None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CALLS_AT_A_TIME),
                cookie_jar=aiohttp.DummyCookieJar(),  # what a server sets is nobody's
                # MLServer packs answers of more than a thousand bytes for whoever takes them packed, and what unpacking
                # gives has no bound.
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # ours holds
            )
        patience = self._server.timeout.total_seconds()
        try:
            async with (
                self._calls,
                asyncio.timeout(patience),
                self._session.request(method, url, data=body, allow_redirects=False) as response,
            ):
                answer = await self._read(response)
        except TimeoutError:
            raise ModelUnavailable(f"{self._named} gave no answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Again(f"it cannot be reached, or broke off: {str(error) or repr(error)}") from error
        if response.status in _NOT_NOW:
            raise _Again(f"it answered {response.status}: {_quoted(answer)}")
        if response.status >= 500:
            raise ModelFailed(f"{self._named} failed with {response.status}: {_quoted(answer)}")
        if response.status != 200:
            raise ModelError(f"{self._named} refused with {response.status}: {_quoted(answer)}")
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_chunked(1 << 16):
            size += len(part)
            if size > _LARGEST_ANSWER:
                raise ModelError(f"{self._named}: the answer has more than {_LARGEST_ANSWER} bytes")
            parts.append(part)
        return b"".join(parts)


class _Again(Exception):
    """A call found no server, or one that cannot answer now."""


def _quoted(body: bytes) -> str:
    return body[:_QUOTED].decode(errors="replace")


def _of(columns: InputColumns, model: ModelSpec, numbers: Sequence[int]) -> dict[str, list[Any]]:
    """The inputs of some entities."""
    return {each.name: [columns[each.name][number] for number in numbers] for each in model.inputs}
