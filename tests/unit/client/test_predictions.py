"""Predictions as they come back: what each is worth is said, and what is not fresh does not pass for it."""

import datetime
from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pytest

from stillwell.client import (
    Client,
    Input,
    NotDefined,
    NotReady,
    PredictionState,
    Refresh,
    RequestError,
    Retries,
    WrongAnswer,
)
from stillwell.client.direct import Direct
from stillwell.client.service import Service, at
from stillwell.predictions import prediction as told
from stillwell.predictions.cached import cached_readers
from stillwell.predictions.freshness import State
from stillwell.reading.after import Marks
from stillwell.reading.features import FeatureReader
from stillwell.reading.online import Stored
from stillwell.spec import ModelSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import INT64
from tests.batches import feature
from tests.fake_service import FakeTransport, refusal, reply
from tests.predicted import DEFINITIONS, V, encoded_row
from tests.unit.serving.test_predictions import DELAY, KEYS
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
    assert [each.value for each in Refresh] == [each.value for each in told.Refresh]


# ---- straight from the store


class Recording(MemoryOnlineStore):
    """A store that keeps how many keys each round trip has asked for."""

    def __init__(self, server: MemoryRedis) -> None:
        super().__init__(server)
        self.reads: list[int] = []

    async def read(self, keys: Sequence[bytes]) -> Stored:
        self.reads.append(len(keys))
        return await super().read(keys)


class Straight:
    """A client of the store behind a service, which has the same clock."""

    def __init__(self, service: Predicting, model: ModelSpec = DELAY) -> None:
        definitions = DEFINITIONS.model_copy(update={"models": (model,)})
        self.store = Recording(service.server)
        self.now_us = lambda: service.ms * 1_000
        self.models = cached_readers(definitions, self.store, MemoryPredictions(service.server), KEYS, self.now_us)
        self.reader = FeatureReader(self.store, KEYS, self.now_us, self.models)
        self.marks = Marks(self.store, KEYS, "test", definitions.views)
        self.client = Client.of(
            Direct(
                definitions,
                lambda: self,
                lambda: (),
                rows=50,
                values=200,
                retries=Retries(attempts=2, first=0.001),
                topics=["t"],
            )
        )

    async def close(self) -> None:
        await self.models.close()


def of_policy(policy: str) -> ModelSpec:
    return DELAY.model_copy(update={"policy": policy})


@pytest.mark.parametrize("policy", ["cached", "refresh", "wait"])
async def test_straight_from_the_store_predictions_are_told_as_they_are_and_never_computed(policy: str) -> None:
    service = Predicting()
    straight = Straight(service, of_policy(policy))
    async with service.client, Client(str(service.client.make_url("/"))) as asking, straight.client as direct:
        for id, delay in ((1, 10.0), (2, 20.0), (3, None)):
            await service.put(id, delay)
        await asking.predictions("Delay", {"id": [1, 2, 3]})
        service.ms += 1_500
        await service.put(2, 25.0)
        calls, stored = service.model.calls, dict(service.server.dump())
        found = await direct.predictions("Delay", {"id": [1, 2, 3, 4]})
        assert [(each.state, each["minutes"], each.refresh) for each in found] == [
            (PredictionState.FRESH, 11.0, Refresh.NONE),
            (PredictionState.STALE, 21.0, Refresh.NONE),
            (PredictionState.FAILED, None, Refresh.NONE),
            (PredictionState.MISSING, None, Refresh.NONE),
        ]
        fresh, stale, failed, missing = found
        assert (fresh.read_at, fresh.age) == (NOON, datetime.timedelta(seconds=1.5))
        assert fresh.computed_at is not None
        assert fresh.computed_at >= NOON
        assert stale.inputs == {"V": Input(NOON + datetime.timedelta(seconds=1.5), datetime.timedelta(0))}
        assert (failed.reason, missing.reason, missing.age) == ("delay is unknown", None, None)
        assert missing.inputs == {"V": Input(None, None)}
        service.ms += 60_000
        (old,) = await direct.predictions("Delay", {"id": 1})
        assert (old.state, old["minutes"]) == (PredictionState.STALE, 11.0)
        assert service.model.calls == calls
        assert dict(service.server.dump()) == stored
    await service.readers.close()


async def test_the_service_tells_the_same_of_a_model_that_is_only_read() -> None:
    writing = Predicting()
    for id, delay in ((1, 10.0), (2, 20.0), (3, None)):
        await writing.put(id, delay)
    await writing.readers.read("Delay", {"id": [1, 2, 3]})
    writing.ms += 500
    await writing.put(2, 25.0)
    service = Predicting(of_policy("cached"), writing.server)
    service.ms += 1_500
    straight = Straight(service)
    async with (
        writing.client,
        service.client,
        Client(str(service.client.make_url("/"))) as through,
        straight.client as direct,
    ):
        several: list[dict[str, list[int]]] = [{"id": [3, 1, 4, 2, 1]}, {"id": []}]
        for asked in several:
            assert await through.predictions("Delay", asked) == await direct.predictions("Delay", asked)
            both = [
                await client.features(["V:delay", "Delay:minutes"], asked, provenance=True)
                for client in (through, direct)
            ]
            assert both[0] == both[1]
        beside = await direct.features(["Delay:minutes"], {"id": [1, 2, 4]})
        assert [status.value for status in beside.column("Delay:minutes").statuses] == [
            "PRESENT",
            "PRESENT",
            "NOT_FOUND",
        ]
        assert [each and each.value for each in beside.column("Delay:minutes").freshness] == ["FRESH", "LATE", None]
        for ask in ({"id": ["7"]}, {"id": [1] * 51}, {}, {"id": [1], "idd": [2]}, {"id": object()}):
            said = []
            for client in (through, direct):
                with pytest.raises(RequestError) as refused:
                    await client.predictions("Delay", ask)
                said.append((str(refused.value), refused.value.field))
            assert said[0] == said[1]
        for client in (through, direct):
            with pytest.raises(NotDefined, match="did you mean 'Delay'"):
                await client.predictions("Delai", {"id": 7})
            with pytest.raises(NotDefined, match="did you mean 'minutes'"):
                await client.features(["Delay:minuets"], {"id": 7})
    for each in (writing, service):
        await each.readers.close()


async def test_a_prediction_and_the_rows_that_it_is_judged_by_are_read_at_one_instant() -> None:
    service = Predicting()
    straight = Straight(service)
    async with service.client, straight.client as direct:
        await service.put(1, 10.0)
        await service.readers.read("Delay", {"id": [1]})
        await direct.predictions("Delay", {"id": 1})
        assert straight.store.reads == [2]
    await service.readers.close()


async def test_a_row_that_another_version_of_its_view_made_of_the_same_event_ages_a_prediction_for_both() -> None:
    """The client that reads Redis takes no row apart to judge a prediction: versions that it does not know are told
    apart by their stamps."""
    service = Predicting()
    straight = Straight(service)
    async with service.client, Client(str(service.client.make_url("/"))) as through, straight.client as direct:
        await service.put(1, 10.0)
        (fresh,) = await through.predictions("Delay", {"id": 1})
        assert fresh.state is PredictionState.FRESH
        assert [each.state for each in await direct.predictions("Delay", {"id": 1})] == [PredictionState.FRESH]
        newer = V.model_copy(update={"version": 2, "features": (*V.features, feature("more", INT64, pl.lit(1)))})
        await service.store.put(encoded_row(1, 10.0, service.ms * 1_000, newer), "epoch")
        (before,) = await direct.predictions("Delay", {"id": 1})
        assert (before.state, before["minutes"]) == (PredictionState.STALE, 11.0)
        service.registered.append(newer)
        (computed,) = await through.predictions("Delay", {"id": 1})
        assert (computed.state, computed.refresh) == (PredictionState.FRESH, Refresh.INLINE)
        (after,) = await direct.predictions("Delay", {"id": 1})
        assert after.state is PredictionState.FRESH
    await service.readers.close()


async def test_a_store_that_forgot_is_not_ready_for_predictions_either() -> None:
    service = Predicting()
    straight = Straight(service)
    service.server.evict(KEYS.ready)
    async with service.client, straight.client as direct:
        with pytest.raises(NotReady, match="not ready"):
            await direct.predictions("Delay", {"id": 1})
        with pytest.raises(NotReady, match="not ready"):
            await direct.features(["Delay:minutes"], {"id": 1})
