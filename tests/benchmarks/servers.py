"""Stillwell's query service and Feast's feature server, over the same rows in the same Redis."""

import asyncio
import base64
import contextlib
import dataclasses
import functools
import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sinks.redis import RedisOnlineStore
from stillwell.definitions.loading import load_definitions
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.entity_key import keys_of_columns
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import Process, free_port
from stillwell.pipeline import compile_pipeline
from stillwell.pushing.record import push_topic
from stillwell.records import Records
from stillwell.spec import DefinitionsSpec
from tests.benchmarks import serve_data
from tests.benchmarks.driving import Drive, Driven, drive, until
from tests.benchmarks.serve_data import KEY, PUSHED, VIEWS, Shape
from tests.benchmarks.testbed import PROJECT, Deployment, MeasurementError, Testbed
from tests.services import TOOLS
from tests.worker import WorkerProcess

READ, PUSH = "/get-online-features", "/push"

_ROOT = Path(__file__).parents[2]
_EPOCH = "bench"
_BATCH = 500
PUSH_PARTITIONS = 4
_AGE_S = 60.0
"""Of the first row."""

_START_S = 180.0
"""In which a server answers: seconds, but where others are at work."""

_FEAST = """\
project: bench
provider: local
registry: {folder}/registry.db
entity_key_serialization_version: 3
offline_store:
  type: file
online_store:
  type: redis
  connection_string: "127.0.0.1:{port}"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """A deployment, its definitions, and the event time of its first row."""

    deployment: Deployment
    definitions: DefinitionsSpec
    first_us: int


class Server:
    """One contender: something that answers at an address."""

    name: str
    address: str
    pid: int

    def read(self, bodies: Path, how: Drive) -> Driven:
        """Drive it with requests for features."""
        return drive(self.address, READ, bodies, how, self.pid)

    def push(self, bodies: Path, how: Drive) -> Driven:
        """Drive it with rows to take in."""
        return drive(self.address, PUSH, bodies, how, self.pid)

    def ask(self, path: str, body: bytes) -> Any:
        """One answer. Raises MeasurementError."""
        return json.loads(self.raw(path, body))

    def raw(self, path: str, body: bytes) -> bytes:
        """One answer's body. Raises MeasurementError."""
        request = urllib.request.Request(f"http://{self.address}{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise MeasurementError(f"{self.name} answers {error.code}: {error.read()[:1000]!r}") from error

    def columns(self, shape: Shape, users: Sequence[int]) -> Mapping[str, Sequence[object]]:
        """What it answers, by feature. Raises MeasurementError where a value is not there."""
        answer = self.ask(READ, shape.body(users))
        for name, column in zip(answer["metadata"]["feature_names"], answer["results"], strict=True):
            if set(column["statuses"]) != {"PRESENT"} or len(column["event_timestamps"]) != len(users):
                raise MeasurementError(f"{self.name}: {name} has the statuses {sorted(set(column['statuses']))}")
        names = answer["metadata"]["feature_names"]
        return {name: column["values"] for name, column in zip(names, answer["results"], strict=True)}

    def answers(self) -> bool:
        """Whether /health says so."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Stillwell(Server):
    """`stillwell serve`, one process, settings as they come; ended with the `with`."""

    name = "stillwell"

    def __init__(self, served: Served) -> None:
        self.served = served
        deployment = served.deployment
        self._process = WorkerProcess(deployment.folder, deployment.settings, "service", command="serve")
        self.address = f"127.0.0.1:{self._process.port}"

    def __enter__(self) -> "Stillwell":
        self.pid = self._process.start().running.pid
        try:
            until(self.answers, f"an answer of `stillwell serve`: {self._process.log}", _START_S)
        except MeasurementError as error:
            self._process.end()
            raise MeasurementError(f"{error}: {self._process.log.read_text()[-2000:]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._process.end()

    def state_of(self, model: str, users: Sequence[int]) -> set[str]:
        """What the predictions of these users are worth."""
        answer = self.ask("/v1/predictions", json.dumps({"model": model, "entities": {KEY: list(users)}}).encode())
        return {each["state"] for each in answer["predictions"]}


class Feast(Server):
    """`feast serve`, one worker, without the restart after every thousand requests that it would do otherwise."""

    name = "feast"

    def __init__(self, testbed: Testbed, told: Path) -> None:
        """told: what `contenders/feast_fill.py` is to do."""
        self._folder = testbed.folder / "feast"
        self._folder.mkdir()
        (self._folder / "feature_store.yaml").write_text(
            _FEAST.format(folder=self._folder, port=testbed.stack.redis.port)
        )
        self._told = told
        self.address = f"127.0.0.1:{free_port()}"

    def fill(self) -> None:
        """Have Feast's SDK write every row."""
        log = self._folder / "fill.log"
        arguments = ["-m", "tests.benchmarks.contenders.feast_fill", str(self._folder), str(self._told)]
        environment = {"PYTHONPATH": str(_ROOT)}
        process = Process("feast_fill", [TOOLS / "feast/bin/python", *arguments], log=log, environment=environment)
        try:
            until(lambda: not process.running, "Feast to write its rows", within_s=300)
        finally:
            process.kill()

    def __enter__(self) -> "Feast":
        host, port = self.address.split(":")
        command: list[str | Path] = [
            TOOLS / "feast/bin/feast", "--chdir", self._folder, "serve", "--host", host, "--port", port,
            "--no-access-log", "--workers", "1", "--max-requests", "0", "--max-requests-jitter", "0",
        ]  # fmt: skip
        self._process = Process("feast serve", command, log=self._folder / "serve.log")
        self.pid = self._process.pid
        try:
            until(self.answers, "an answer of `feast serve`", _START_S)
        except MeasurementError as error:
            self._process.stop()
            raise MeasurementError(f"{error}: {self._process.log_text()[-2000:]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()


def deploy(testbed: Testbed) -> Served:
    """A deployment whose rows are in Redis, put there by the real pipeline and the real sink."""
    deployment = testbed.deploy(serve_data.TOPIC, definitions=serve_data.PACKAGE)
    serve_data.write_definitions(deployment.folder)
    definitions = _definitions()
    testbed.ensure_topic(PUSH_PARTITIONS, push_topic(PROJECT, PUSHED))
    served = Served(deployment, definitions, int((time.time() - _AGE_S) * 1e6))
    asyncio.run(_put(served))
    return served


@functools.cache
def _definitions() -> DefinitionsSpec:
    """Those of every deployment, loaded once: it takes seconds to check so many columns."""
    with tempfile.TemporaryDirectory(prefix="stillwell-bench-") as folder:
        serve_data.write_definitions(Path(folder))
        return load_definitions(serve_data.PACKAGE, Path(folder))


async def _put(served: Served) -> None:
    grace = served.deployment.loaded_settings().redis_grace
    online = await RedisOnlineStore.open(served.deployment.loaded_settings())
    try:
        epoch = await online.initialise(_EPOCH)
        made = [json.dumps(event).encode() for event in serve_data.events(served.first_us)]
        for topic in served.definitions.topics:
            views = [view for view in served.definitions.views if view.source == topic and view.name != PUSHED]
            if not views:
                continue
            pipeline, encoders = compile_pipeline(topic, views), [ViewEncoder(view, grace) for view in views]
            for start in range(0, len(made), _BATCH):
                outcome = pipeline.run(_records(topic.topic, made[start : start + _BATCH], start))
                if outcome.rejects:
                    raise MeasurementError(f"an event was rejected: {outcome.rejects[0].error}")
                for encoder, rows in zip(encoders, outcome.rows, strict=True):
                    encoded, _ = encoder.encode(rows.frame, PartitionId(topic.topic, 1, 0))
                    await online.put(encoded, epoch)
    finally:
        await online.close()


def _records(topic: str, values: list[bytes], start: int) -> Records:
    return Records(
        topic=topic,
        partition=0,
        start=start,
        end=start + len(values),
        offsets=np.arange(start, start + len(values), dtype=np.int64),
        timestamps=np.full(len(values), time.time_ns() // 1_000_000, np.int64),
        keys=[None] * len(values),
        values=values,
        headers=[()] * len(values),
    )


def told_to_feast(served: Served) -> Path:
    """The same rows as `deploy` puts, and what `contenders/feast_fill.py` needs to know of them."""
    folder = served.deployment.folder
    frame = pl.DataFrame(list(serve_data.events(served.first_us)), infer_schema_length=None)
    times = pl.from_epoch("ts", "us").dt.replace_time_zone("UTC").alias("event_timestamp")
    frame.with_columns(times).drop("ts").write_parquet(folder / "rows.parquet")
    told = {
        "key": KEY,
        "columns": {f"f{column}": serve_data.kind(column) for column in range(serve_data.COLUMNS)},
        "views": {name: [f"f{each}" for each in of] for name, of in {**VIEWS, PUSHED: VIEWS["Of10"]}.items()},
        "pushed": [PUSHED],
        "frame": str(folder / "rows.parquet"),
    }
    (folder / "feast.json").write_text(json.dumps(told))
    return folder / "feast.json"


@contextlib.contextmanager
def both(testbed: Testbed) -> Iterator[tuple[Stillwell, Feast]]:
    """Both, filled and answering. Raises MeasurementError where they do not answer the same."""
    served = deploy(testbed)
    feast = Feast(testbed, told_to_feast(served))
    feast.fill()
    with Stillwell(served) as stillwell, feast:
        for shape in (serve_data.of(50, 10), serve_data.of(50, 250), Shape(50, serve_data.TWENTY_VIEWS)):
            users = next(shape.users())
            ours, theirs = (server.columns(shape, users) for server in (stillwell, feast))
            if ours != theirs:
                wrong = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
                raise MeasurementError(f"for {shape} Feast and Stillwell answer different values: {wrong[:10]}")
        yield stillwell, feast


def write_bare_keys(served: Served, shape: Shape, file: Path) -> Path:
    """The same requests as `Shape.write`, as keys in Redis: what `contenders/bare_redis.py` reads."""
    (user,) = served.definitions.entities
    names = RedisKeys(PROJECT, served.deployment.namespace)
    requests = []
    for users in shape.users():
        entities = keys_of_columns(user.keys, [users])
        keys = [key for view in shape.views for key in names.rows(view, entities)]
        requests.append([base64.b64encode(key).decode() for key in keys])
    file.write_text(json.dumps(requests))
    return file
