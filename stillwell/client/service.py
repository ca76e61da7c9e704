"""The query service as a source: requests written, answers read, failures told apart, calls repeated where it is safe.

A read may always be asked again. A push is sent again only where nothing of it was sent, or where it has an idempotency
key, by which the service knows it again.
"""

import base64
import datetime
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from stillwell.client.errors import Behind, NotReady, NotWritten, Unavailable, Unconfirmed, WrongAnswer
from stillwell.client.predictions import Input, Prediction, Predictions, PredictionState, Refresh
from stillwell.client.pushed import Pushed, PushedRow, Pushing
from stillwell.client.results import Column, Features, Provenance, Row, Value
from stillwell.client.retrying import Retries
from stillwell.client.rows import plain
from stillwell.client.source import Asked, EntityColumns, json_columns, to_wait
from stillwell.client.transport import HttpTransport, NoReply, NotSent, Reply, Transport
from stillwell.errors import FormatError, NotDefined, RequestError, StillwellError
from stillwell.floats import NAMED
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token
from stillwell.reading.status import Freshness, Status
from stillwell.redaction import hide_password

_encode = msgspec.json.Encoder(enc_hook=plain).encode


class _Column(msgspec.Struct):
    type: str
    values: list[Any]
    statuses: list[Status]
    event_times: list[datetime.datetime | None]
    ages_s: list[float | None]
    freshness: list[Freshness | None]
    provenance: list[Provenance | None] | None = None


class _Features(msgspec.Struct):
    features: dict[str, _Column]


class _Value(msgspec.Struct):
    type: str
    value: Any
    status: Status
    event_time: datetime.datetime | None
    age_s: float | None
    freshness: Freshness | None = None


class _One(msgspec.Struct):
    entity: dict[str, Any]
    features: dict[str, _Value]


class _Input(msgspec.Struct):
    event_time: datetime.datetime | None
    age_s: float | None


class _Prediction(msgspec.Struct):
    state: PredictionState
    outputs: dict[str, Any] | None
    computed_at: datetime.datetime | None
    read_at: datetime.datetime | None
    age_s: float | None
    inputs: dict[str, _Input]
    refresh: Refresh
    reason: str | None


class _Predictions(msgspec.Struct):
    model: str
    version: str
    predictions: list[_Prediction]
    types: dict[str, str] = {}


class _OnePrediction(msgspec.Struct):
    model: str
    version: str
    entity: dict[str, Any]
    prediction: _Prediction
    types: dict[str, str] = {}


class _Reject(msgspec.Struct):
    row: int
    reason: str
    message: str


class _Pushed(msgspec.Struct):
    token: str | None
    statuses: list[PushStatus] = []
    rejects: list[_Reject] = []


class _Problem(msgspec.Struct):
    message: str
    field: str | None = None
    kind: str | None = None
    lag: int | None = None
    token: str | None = None


class _Error(msgspec.Struct):
    error: _Problem


_features = msgspec.json.Decoder(_Features)
_one = msgspec.json.Decoder(_One)
_predictions = msgspec.json.Decoder(_Predictions)
_one_prediction = msgspec.json.Decoder(_OnePrediction)
_pushed = msgspec.json.Decoder(_Pushed)
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
        reply = await self._read("POST", "/v1/features", encoded(body, "entities"), timeout)
        answer = self._decoded(_features, reply)
        try:
            columns = {reference: _column(reference, each, asked) for reference, each in answer.features.items()}
        except (ValueError, TypeError) as error:
            raise self._wrong(reply, str(error)) from error
        return Features(asked.entities, columns, asked.count)

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
        content = encoded(body, "rows")
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
            return _pushed_of(self._decoded(_pushed, reply), len(pushing.rows))
        except (ValueError, IndexError, RequestError, WrongAnswer) as error:
            wrong = error if isinstance(error, WrongAnswer) else self._wrong(reply, str(error))
            raise Unconfirmed(str(wrong)) from error

    async def predictions(self, model: str, entities: EntityColumns, timeout: float) -> Predictions:
        """See Source."""
        body = {"model": model, "entities": json_columns(entities)}
        reply = await self._read("POST", "/v1/predictions", encoded(body, "entities"), timeout)
        answer = self._decoded(_predictions, reply)
        try:
            return _predictions_of(answer, entities)
        except (ValueError, TypeError) as error:
            raise self._wrong(reply, str(error)) from error

    async def prediction_of_text(self, model: str, entity: Mapping[str, str], timeout: float) -> Predictions:
        """The prediction for one entity, whose keys are read by their types at the service, as from a URL."""
        reply = await self._read("GET", f"/v1/predictions?{urlencode({'model': model, **entity})}", None, timeout)
        answer = self._decoded(_one_prediction, reply)
        try:
            one = _prediction(answer.entity, answer.prediction, answer.types, answer.types)
        except (ValueError, TypeError) as error:
            raise self._wrong(reply, str(error)) from error
        return Predictions(answer.model, answer.version, answer.types, (one,))

    async def features_of_text(
        self, names: Sequence[str], entity: Mapping[str, str], after: Sequence[str], timeout: float
    ) -> Row:
        """The features of one entity, whose keys are read by their types at the service, as from a URL.

        names: references, what all is asked for of, or one feature service.
        """
        service: str | None = None
        if not all(":" in name for name in names):
            names, service = await self._offered(names, timeout)
        words = {"features": ",".join(names)} if service is None else {"feature_service": service}
        words |= entity
        if after:
            words |= {"after": " ".join(after), "timeout_ms": str(int(to_wait(timeout) * 1_000))}
        reply = await self._read("GET", f"/v1/features?{urlencode(words)}", None, timeout)
        answer = self._decoded(_one, reply)
        try:
            return Row(answer.entity, {reference: _value(each) for reference, each in answer.features.items()})
        except (ValueError, TypeError) as error:
            raise self._wrong(reply, str(error)) from error

    async def _offered(self, names: Sequence[str], timeout: float) -> tuple[Sequence[str], str | None]:
        """See `Offered.asked`."""
        from stillwell.client.offered import Offered  # which programs that ask by references never need

        reply = await self._read("GET", "/openapi.json", None, timeout)
        try:
            offered = Offered(reply.body)
        except ValueError as error:
            raise self._wrong(reply, str(error)) from error
        return offered.asked(names)

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

    def _decoded(self, decoder: "msgspec.json.Decoder[Any]", reply: Reply) -> Any:
        try:
            return decoder.decode(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
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


def encoded(body: object, field: str) -> bytes:
    """A body in JSON. Raises RequestError where a value has no form there. field: what holds the caller's values."""
    try:
        return _encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(field, f"holds a value that JSON has no form for: {error}") from None


def _without(field: str, message: str) -> str:
    """A message without the field before it, which RequestError puts there again."""
    return message.removeprefix(f"{field}: ")


def _column(reference: str, column: _Column, asked: Asked) -> Column:
    described = [column.values, column.statuses, column.event_times, column.ages_s, column.freshness]
    if asked.provenance:
        described.append(column.provenance or [])
    if set(map(len, described)) != {asked.count}:
        raise ValueError(f"{reference} does not have {asked.count} values, each with all that describes it")
    return Column(
        reference=reference,
        type=column.type,
        values=tuple(values_of(column.type, column.values)),
        statuses=tuple(column.statuses),
        event_times=tuple(column.event_times),
        ages=tuple(map(_age, column.ages_s)),
        freshness=tuple(column.freshness),
        provenance=tuple(column.provenance or ()) if asked.provenance else None,
    )


def _value(each: _Value) -> Value:
    (value,) = values_of(each.type, [each.value])
    return Value(value, each.status, each.event_time, _age(each.age_s), each.freshness)


def _predictions_of(answer: _Predictions, entities: EntityColumns) -> Predictions:
    count = len(next(iter(entities.values()), ()))
    if len(answer.predictions) != count:
        raise ValueError(f"it has {len(answer.predictions)} predictions, for {count} entities")
    names = dict.fromkeys([*answer.types, *(name for each in answer.predictions for name in each.outputs or ())])
    rows = [
        _prediction({name: values[row] for name, values in entities.items()}, each, answer.types, names)
        for row, each in enumerate(answer.predictions)
    ]
    return Predictions(answer.model, answer.version, answer.types, tuple(rows))


def _prediction(
    entity: Mapping[str, Any], each: _Prediction, types: Mapping[str, str], names: Iterable[str]
) -> Prediction:
    values: dict[str, Any] = dict.fromkeys(names) | (each.outputs or {})
    for name, kind in types.items():
        (values[name],) = values_of(kind, [values[name]])
    return Prediction(
        entity=entity,
        values=values,
        state=each.state,
        computed_at=each.computed_at,
        read_at=each.read_at,
        age=_age(each.age_s),
        inputs={name: Input(of.event_time, _age(of.age_s)) for name, of in each.inputs.items()},
        refresh=each.refresh,
        reason=each.reason,
    )


def _age(seconds: float | None) -> datetime.timedelta | None:
    return None if seconds is None else datetime.timedelta(seconds=seconds)


def _token_or_none(text: str | None) -> Token | None:
    """The token, if there is one that this client can read."""
    try:
        return Token.parse(text) if text else None
    except RequestError:
        return None


def _pushed_of(answer: _Pushed, count: int) -> Pushed:
    statuses = answer.statuses or [PushStatus.ACCEPTED] * count
    if len(statuses) != count:
        raise ValueError(f"it says what became of {len(statuses)} rows, of {count}")
    rows = [PushedRow(status) for status in statuses]
    for reject in answer.rejects:
        rows[reject.row] = PushedRow(PushStatus.REJECTED, reject.reason, reject.message)
    return Pushed(Token.parse(answer.token, "token") if answer.token is not None else None, tuple(rows))


def values_of(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    """Values of a type from JSON, as Python has them. Raises ValueError for what the type cannot be."""
    if kind in ("Float32", "Float64"):
        return [value if value is None or not isinstance(value, str) else _named(value) for value in values]
    if kind == "Timestamp":
        return msgspec.convert(values, list[datetime.datetime | None])
    if kind == "Bytes":
        return [None if value is None else base64.b64decode(value, validate=True) for value in values]
    if kind not in ("Bool", "Int32", "Int64", "String"):
        raise ValueError(f"the type {kind} is unknown here: upgrade the client")
    return values


def _named(text: str) -> float:
    if text not in NAMED:
        raise ValueError(f"{text!r} is no number")
    return NAMED[text]
