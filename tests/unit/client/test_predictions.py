"""Predictions as they come back: what each is worth is said, and what is not fresh does not pass for it."""

import datetime

import pyarrow as pa
import pytest

from stillwell.client import (
    Client,
    Input,
    NotDefined,
    PredictionState,
    Refresh,
    RequestError,
    Retries,
    Unsupported,
    WrongAnswer,
)
from stillwell.client.direct import Direct
from stillwell.client.service import Service, at
from stillwell.predictions import reading
from stillwell.predictions.freshness import State
from tests.fake_service import FakeTransport, refusal, reply
from tests.served import DEFINITIONS
from tests.unit.serving.test_predictions import Service as Predicting

AT = "2026-01-01T00:00:00Z"
NOON = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def row(state: str, minutes: float | None, refresh: str, reason: str | None = None) -> dict[str, object]:
    """One prediction of an answer."""
    at = None if minutes is None else AT
    return {
        "state": state,
        "outputs": None if minutes is None else {"minutes": minutes, "until": AT},
        "computed_at": at,
        "read_at": at,
        "age_s": None if minutes is None else 0.5,
        "inputs": {"Departures": {"event_time": at, "age_s": minutes}},
        "refresh": refresh,
        "reason": reason,
    }


ANSWER = {
    "model": "Delay",
    "version": "3",
    "types": {"minutes": "Float32", "until": "Timestamp"},
    "entities": {"origin": ["JFK", "LGA", "EWR"]},
    "predictions": [
        row("FRESH", 1.5, "none"),
        row("STALE", 2.5, "queued"),
        row("MISSING", None, "shared", "the model is away"),
    ],
}
ASKED = {"origin": ["JFK", "LGA", "EWR"]}


def client(transport: FakeTransport) -> Client:
    return Client.of(Service(transport, "http://fake", Retries(attempts=2, first=0.001)))


async def test_each_prediction_says_what_it_is_worth() -> None:
    transport = FakeTransport(reply(ANSWER))
    found = await client(transport).predictions("Delay", ASKED, timeout=2.0)
    (sent,) = transport.sent
    assert (sent.path, sent.body) == ("/v1/predictions", {"model": "Delay", "entities": ASKED})
    fresh, stale, missing = found
    assert (fresh["minutes"], fresh.state, fresh.computed_at, fresh.refresh) == (
        1.5,
        PredictionState.FRESH,
        NOON,
        Refresh.NONE,
    )
    assert (fresh["until"], fresh.age) == (NOON, datetime.timedelta(seconds=0.5))
    assert fresh.inputs == {"Departures": Input(NOON, datetime.timedelta(seconds=1.5))}
    assert (stale["minutes"], stale.state, stale.refresh) == (2.5, PredictionState.STALE, Refresh.QUEUED)
    assert (missing["minutes"], missing.state, missing.reason) == (None, PredictionState.MISSING, "the model is away")
    assert found.version == "3"
    with pytest.raises(ValueError, match="3 entities, not one"):
        found.one()


async def test_a_table_shows_what_is_stale_only_to_who_asks_for_it() -> None:
    found = await client(FakeTransport(reply(ANSWER))).predictions("Delay", ASKED)
    assert found.to_dict() == {
        "origin": ["JFK", "LGA", "EWR"],
        "minutes": [1.5, None, None],
        "until": [NOON, None, None],
    }
    assert found[1].to_dict() == {"origin": "LGA", "minutes": None, "until": None}
    assert found[1].to_dict(stale=True) == {"origin": "LGA", "minutes": 2.5, "until": NOON}
    table = found.to_arrow(details=True, stale=True)
    assert table.schema.field("minutes").type == pa.float32()
    assert table.column("Delay:state").to_pylist() == ["FRESH", "STALE", "MISSING"]
    assert found.to_polars(details=True, stale=True).to_dicts() == table.to_pylist()
    assert found.to_pandas()["minutes"].isna().tolist() == [False, True, True]


async def test_errors_are_those_of_features() -> None:
    with pytest.raises(NotDefined, match="no model 'Dely'"):
        await client(FakeTransport(refusal(404, "NotDefined", "model: there is no model 'Dely'", "model"))).predictions(
            "Dely", ASKED
        )
    with pytest.raises(WrongAnswer, match="3 predictions, for 1 entities"):
        await client(FakeTransport(reply(ANSWER))).predictions("Delay", {"origin": "JFK"})
    straight = Direct(DEFINITIONS, NotImplemented, lambda: (), rows=1, values=1, retries=Retries())
    with pytest.raises(Unsupported, match="reads no predictions"):
        await Client.of(straight).predictions("Delay", ASKED)


async def test_the_service_itself_answers_what_the_client_reads() -> None:
    service = Predicting()
    async with service.client, Client(str(service.client.make_url("/"))) as asking:
        await service.put(7, 30.0)
        found = await asking.predictions("Delay", {"id": [7, 8]})
        known, unknown = found
        assert (known["minutes"], known.state, known.refresh) == (31.0, PredictionState.FRESH, Refresh.INLINE)
        assert (known.read_at, known.inputs["V"].event_time, found.types) == (NOON, NOON, {"minutes": "Float32"})
        assert (unknown["minutes"], unknown.state) == (None, PredictionState.FAILED)
        assert unknown.reason == "delay is unknown"
        assert found.to_polars().rows() == [(7, 31.0), (8, None)]
        beside = await asking.features(["Delay:minutes", "V:delay"], {"id": 7})
        assert (beside.one()["Delay:minutes"].value, beside.one()["V:delay"].value) == (31.0, 30.0)
        by_url = at(str(service.client.make_url("/")))
        text = await by_url.prediction_of_text("Delay", {"id": "7"}, 5)
        await by_url.close()
        assert (text.one()["minutes"], text.one().entity) == (31.0, {"id": 7})
        with pytest.raises(NotDefined, match="did you mean 'Delay'"):
            await asking.predictions("Delai", {"id": 7})
        with pytest.raises(RequestError) as refused:
            await asking.predictions("Delay", {"id": ["7"]})
        assert refused.value.field == "entities.id[0]"
    await service.readers.close()


def test_states_and_refreshes_are_those_of_the_engine() -> None:
    assert [each.value for each in PredictionState] == [each.value for each in State]
    assert [each.value for each in Refresh] == [each.value for each in reading.Refresh]
