"""Logged predictions are rows that the line takes as they are."""

import datetime

import pytest

from stillwell.instants import EPOCH
from stillwell.layout.prediction import Outputs, Record
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.keeping import LogBuffer, PredictionLog
from stillwell.predictions.log import log_view
from stillwell.predictions.outcome import Outcome
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.topics import push_topics, pushed_views
from stillwell.settings import Settings
from stillwell.spec import ModelSpec, OutputSpec
from stillwell.testing.online import MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.testing.push_log import MemoryPushLog
from stillwell.topics import chained_topics, needed_topics
from stillwell.types import FIELD_TYPES, FLOAT32, FLOAT64, STRING, vector_of
from tests.batches import NOW_MS, records
from tests.predicted import DEFINITIONS, Adding, model
from tests.waiting import eventually_async

READ_AT = NOW_MS * 1_000
VALUES: dict[str, object] = {
    "Bool": True,
    "Int32": -1,
    "Int64": 2**62,
    "Float32": 1.5,
    "Float64": 0.1,
    "String": "é",
    "Bytes": b"\xff",
    "Timestamp": 1_700_000_000_000_001,
}


def engine_of(spec: ModelSpec) -> Engine:
    inputs = ModelInputs(spec, DEFINITIONS)
    return Engine(spec, inputs, Adding(), MemoryPredictions(MemoryRedis()), RedisKeys("test", "test"))


@pytest.mark.parametrize("null", [False, True])
async def test_outputs_of_every_type_come_to_rest_as_they_were(null: bool) -> None:
    outputs_of_each = [
        *(OutputSpec(name=f"o{name}", type=FIELD_TYPES[name], nullable=True) for name in VALUES),
        *(OutputSpec(name=f"v{name}", type=vector_of(FIELD_TYPES[name], 2), nullable=True) for name in VALUES),
    ]
    spec = model(outputs=tuple(outputs_of_each))
    engine = engine_of(spec)
    said = {f"o{name}": None if null else value for name, value in VALUES.items()}
    said |= {f"v{name}": None if null else [value, value] for name, value in VALUES.items()}
    outputs = Outputs(READ_AT, b"f" * 16, READ_AT + 5, 5, engine.layout.id, engine.layout.encode(said))
    (entity,) = engine.entities({"id": [7]})
    outcome = Outcome(Record(outputs, None), State.FRESH, b"f" * 16, READ_AT, (), asked=True, under=b"")
    log = MemoryPushLog({"shop.push.Delay": 1})
    await PredictionLog(log, "shop", [spec], lambda: NOW_MS).append(engine, [(entity, outcome)])
    ((_, record),) = log.records("shop.push.Delay")
    pipeline = PushPipeline("shop", log_view(spec))
    made = pipeline.run(records([record.value], keys=[record.key], headers=[record.headers]))
    assert made.rejects == ()
    (row,) = made.rows[0].frame.to_dicts()
    at = EPOCH + datetime.timedelta(microseconds=1_700_000_000_000_001)
    expected = said | ({} if null else {"oTimestamp": at, "vTimestamp": [at, at]})
    assert {name: row[name] for name in expected} == expected
    assert (row["id"], row["model_version"], row["_to"]) == (7, "3", "offline")
    assert row["computed_at"] - row["event_timestamp"] == datetime.timedelta(microseconds=5)


async def test_a_process_that_answers_logs_without_waiting_and_drops_what_cannot_be_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = engine_of(model())
    outputs = Outputs(READ_AT, b"f" * 16, READ_AT + 5, 5, engine.layout.id, engine.layout.encode({"minutes": 1.5}))
    outcome = Outcome(Record(outputs, None), State.FRESH, b"f" * 16, READ_AT, (), asked=True, under=b"")
    entities = engine.entities({"id": list(range(10_001))})
    log = MemoryPushLog({"shop.push.Delay": 1})
    buffer = LogBuffer(PredictionLog(log, "shop", [model()], lambda: NOW_MS))
    buffer.put(engine, [])
    buffer.put(engine, [(each, outcome) for each in entities])
    assert "predictions are not logged" in capsys.readouterr().out
    buffer.put(engine, [(each, outcome) for each in entities[:3]])

    async def kept() -> bool:
        return len(log.records("shop.push.Delay")) == 3

    await eventually_async(kept, what="three predictions in the log")
    log.faults = lambda topic: "refused"
    buffer.put(engine, [(entities[3], outcome)])

    async def told() -> bool:
        return "refused by the test" in capsys.readouterr().out

    await eventually_async(told, what="the warning")

    def stumble(topic: str) -> None:
        raise TypeError("stumbled in the test")

    log.faults = stumble
    buffer.put(engine, [(entities[3], outcome)])

    async def told_of_a_mistake() -> bool:
        return "stumbled in the test" in capsys.readouterr().out

    await eventually_async(told_of_a_mistake, what="the log tells of it")
    log.faults = lambda topic: None
    buffer.put(engine, [(entities[4], outcome)])

    async def kept_again() -> bool:
        return len(log.records("shop.push.Delay")) == 4

    await eventually_async(kept_again, what="a fourth")
    await buffer.close()


def test_a_model_has_a_push_topic_and_other_outputs_make_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = DEFINITIONS.model_copy(update={"models": (model(),)})
    assert push_topics("shop", definitions) == ("shop.push.V", "shop.push.Delay")
    assert [view.name for view in pushed_views(definitions)] == ["V", "Delay"]
    monkeypatch.setenv("STILLWELL_PROJECT", "shop")
    monkeypatch.setenv("STILLWELL_DEFINITIONS", "none")
    monkeypatch.setenv("STILLWELL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("STILLWELL_OFFLINE_URL", "/none")
    used = {each.of: each.use for each in needed_topics(Settings.load(), definitions)}
    assert (used["V"], used["Delay"]) == ("pushes", "predictions")
    assert "shop.push.Delay" in chained_topics(Settings.load(), definitions)
    of = [log_view(model(outputs=(OutputSpec(name="minutes", type=kind),))) for kind in (FLOAT32, FLOAT64, STRING)]
    assert len({view.version for view in of}) == 3
    assert log_view(model(version="4")) == log_view(model())
