"""The query service as a source: requests written, answers read, failures told apart, calls repeated where it is safe.

A read may always be asked again. A push is sent again only where nothing of it was sent, or where it has an idempotency
key, by which the service knows it again.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from stillwell.client import answers
from stillwell.client.errors import Behind, NotReady, NotWritten, Unavailable, Unconfirmed, WrongAnswer
from stillwell.client.predictions import Predictions
from stillwell.client.pushed import Pushed, Pushing
from stillwell.client.results import Features, Row
from stillwell.client.retrying import Retries
from stillwell.client.rows import plain
from stillwell.client.source import Asked, EntityColumns, json_columns, to_wait
from stillwell.client.transport import HttpTransport, NoReply, NotSent, Reply, Transport
from stillwell.errors import FormatError, NotDefined, RequestError, StillwellError
from stillwell.pushing.token import Token
from stillwell.redaction import hide_password

if TYPE_CHECKING:
    from stillwell.client.offered import Offered

_T = TypeVar("_T")

_encode = msgspec.json.Encoder(enc_hook=plain).encode


class _Problem(msgspec.Struct):
    message: str
    field: str | None = None
    kind: str | None = None
    lag: int | None = None
    token: str | None = None


class _Error(msgspec.Struct):
    error: _Problem


_error = msgspec.json.Decoder(_Error)


class Service:
    """One query service."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        retries: Retries,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """url: for messages. draw: random numbers from 0 to 1."""
        self._transport = transport
        self._url = url
        self._retries = retries
        self._draw = draw

    async def features(self, asked: Asked, timeout: float) -> Features:
        """See Source."""
        body: dict[str, object] = {"features": asked.references, "entities": json_columns(asked.entities)}
        if asked.service is not None:
            del body["features"]
            body["feature_service"] = asked.service
        if asked.provenance:
            body["provenance"] = True
        if asked.after:
            body["after"] = " ".join(map(str, asked.after))
            body["timeout_ms"] = int(to_wait(timeout) * 1_000)
        reply = await self._read("POST", "/v1/features", _encoded(body, "entities"), timeout)
        return self._understood(reply, lambda said: answers.features(said, asked))

    async def push(self, pushing: Pushing, timeout: float) -> Pushed:
        """See Source."""
        body: dict[str, object] = {
            "view": pushing.view,
            "rows": pushing.rows,
            "mode": pushing.mode,
            "to": pushing.to,
            "transform_on_write": pushing.transform_on_write,
        }
        if pushing.idempotency_key is not None:
            body["idempotency_key"] = pushing.idempotency_key
        content = _encoded(body, "rows")
        again = (Unavailable,) if pushing.idempotency_key is None else (Unavailable, Unconfirmed)

        async def attempt() -> Reply:
            try:
                reply = await self._transport.send("POST", "/v1/push", content)
            except NotSent as error:
                raise self._out_of_reach(error) from error
            except NoReply as error:
                raise Unconfirmed(f"{self._url} ended the connection before it answered: {error}") from error
            if reply.status not in (200, 202):
                raise self._push_error_of(reply)
            return reply

        reply = await self._retries.until_answered(
            self._url, timeout, attempt, self._draw, again=again, late=Unconfirmed
        )
        try:
            return self._understood(reply, lambda said: answers.pushed(said, len(pushing.rows)))
        except WrongAnswer as error:
            raise Unconfirmed(str(error)) from error

    async def predictions(self, model: str, entities: EntityColumns, timeout: float) -> Predictions:
        """See Source."""
        body = {"model": model, "entities": json_columns(entities)}
        reply = await self._read("POST", "/v1/predictions", _encoded(body, "entities"), timeout)
        return self._understood(reply, lambda said: answers.predictions(said, entities))

    async def prediction_of_text(self, model: str, entity: Mapping[str, str], timeout: float) -> Predictions:
        """The prediction for one entity, whose keys are read by their types at the service, as from a URL."""
        reply = await self._read("GET", f"/v1/predictions?{urlencode({'model': model, **entity})}", None, timeout)
        return self._understood(reply, answers.one_prediction)

    async def features_of_text(
        self, names: Sequence[str], entity: Mapping[str, str], after: Sequence[str], timeout: float
    ) -> Row:
        """The features of one entity, whose keys are read by their types at the service, as from a URL.

        names: references, what all is asked for of, or one feature service.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        service: str | None = None
        if not all(":" in name for name in names):
            names, service = await self._offered(names, timeout)
            timeout = deadline - clock()
        words = {"features": ",".join(names)} if service is None else {"feature_service": service}
        words |= entity
        if after:
            words |= {"after": " ".join(after), "timeout_ms": str(int(to_wait(timeout) * 1_000))}
        reply = await self._read("GET", f"/v1/features?{urlencode(words)}", None, timeout)
        return self._understood(reply, answers.row)

    async def models(self, timeout: float) -> Collection[str]:
        """The names of the models that the service has."""
        return (await self._document(timeout)).models

    async def _offered(self, names: Sequence[str], timeout: float) -> tuple[Sequence[str], str | None]:
        """See `Offered.asked`."""
        return (await self._document(timeout)).asked(names)

    async def _document(self, timeout: float) -> "Offered":
        from stillwell.client.offered import Offered  # which programs that ask by references never need

        return self._understood(await self._read("GET", "/openapi.json", None, timeout), Offered)

    async def close(self) -> None:
        """See Source."""
        await self._transport.close()

    # ---- calls ----

    async def _read(self, method: str, path: str, body: bytes | None, timeout: float) -> Reply:
        """The answer to a request that changes nothing, asked again as often as the policy allows."""

        async def attempt() -> Reply:
            try:
                reply = await self._transport.send(method, path, body)
            except NotSent as error:
                raise self._out_of_reach(error) from error
            except NoReply as error:
                raise Unavailable(f"{self._url} ended the connection before it answered: {error}") from error
            if reply.status != 200:
                raise self._error_of(reply)
            return reply

        return await self._retries.until_answered(self._url, timeout, attempt, self._draw)

    def _out_of_reach(self, error: NotSent) -> Unavailable:
        return Unavailable(f"{self._url} cannot be reached: {error}; check that the service runs, and the URL")

    # ---- answers ----

    def _understood(self, reply: Reply, read: Callable[[bytes], _T]) -> _T:
        """What an answer says. read: from its body; what it raises there is the answer's fault."""
        try:
            return read(reply.body)
        except (ValueError, TypeError, IndexError, RecursionError, RequestError) as error:
            raise self._wrong(reply, str(error)) from error

    def _error_of(self, reply: Reply) -> StillwellError:
        """What an answer that is none of 200 means."""
        try:
            problem = _error.decode(reply.body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if reply.status in (502, 503, 504, 429):
                # Words of a proxy's, which stands in for a service that is away.
                return Unavailable(f"{self._url} answers {reply.status}: try again later", reply.retry_after)
            return self._wrong(reply, "it is no error of a query service")
        return self._meant(reply, problem)

    def _push_error_of(self, reply: Reply) -> StillwellError:
        """What such an answer means to a push, of which it must be known whether anything was done: that nothing was
        is said by a refusal, or by the service in so many words."""
        try:
            problem = _error.decode(reply.body).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if reply.status in (502, 503, 504):
                return Unconfirmed(f"{self._url} answers {reply.status}: what stands before it gave up")
            error = self._error_of(reply)
        else:
            if problem.kind == "OutcomeUnknown":
                return Unconfirmed(problem.message)
            if problem.kind == "NotWritten":
                return NotWritten(problem.message, _token_or_none(problem.token))
            error = self._meant(reply, problem)
        refused = 300 <= reply.status < 500 or isinstance(error, Unavailable)
        return error if refused else Unconfirmed(str(error))

    def _meant(self, reply: Reply, problem: _Problem) -> StillwellError:
        field, message = problem.field, problem.message
        if problem.kind == "Behind":
            return Behind(message, problem.lag, reply.retry_after)
        if problem.kind == "StoreNotReady":
            return NotReady(message, reply.retry_after)
        if reply.status in (408, 429, 503):  # 408: not all of the body has come, so that nothing was done
            return Unavailable(message, reply.retry_after)
        if reply.status == 404:
            return NotDefined(field or "path", _without(field or "path", message))
        if reply.status in (400, 405, 409, 413, 422):
            return RequestError(field or "body", _without(field or "body", message))
        if problem.kind in ("FormatError", "UnknownLayout"):
            return FormatError(message)
        return self._wrong(reply, message)

    def _wrong(self, reply: Reply, said: str) -> WrongAnswer:
        return WrongAnswer(
            f"{self._url} answers {reply.status} with {reply.content_type} that is not understood ({said}): is it the "
            "root of a query service, of a version that this client knows?"
        )


def at(url: str, connections: int = 1, retries: Retries | None = None) -> Service:
    """The service with this root. Raises RequestError for what is no URL."""
    root = _root(url)
    return Service(HttpTransport(root, connections), hide_password(root), retries or Retries())


def _root(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise RequestError("url", f"must be http://host:port or https://…, not {hide_password(url)!r}")
    return url.rstrip("/")


def _encoded(body: object, field: str) -> bytes:
    """A body in JSON. Raises RequestError where a value has no form there. field: what holds the caller's values."""
    try:
        return _encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(field, f"holds a value that JSON has no form for: {error}") from None


def _without(field: str, message: str) -> str:
    """A message without the field before it, which RequestError puts there again."""
    return message.removeprefix(f"{field}: ")


def _token_or_none(text: str | None) -> Token | None:
    """The token, if there is one that this client can read."""
    try:
        return Token.parse(text) if text else None
    except RequestError:
        return None
