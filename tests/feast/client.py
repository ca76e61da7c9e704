"""Feast's own client, told what to call by lines of JSON, and telling by lines of JSON what came of it.

A process of its own in Feast's environment, which lacks Stillwell: the standard library and Feast alone here.
`python client.py REPOSITORY`, a folder with a feature_store.yaml. A line is {"call": "name of a function below", …}.
"""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, PushSource  # type: ignore[import-not-found]
from feast.infra.offline_stores.file_source import FileSource  # type: ignore[import-not-found]
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus  # type: ignore[import-not-found]
from feast.types import (  # type: ignore[import-not-found]
    Bool,
    Float64,
    Int64,
    PrimitiveFeastType,
    String,
    UnixTimestamp,
)
from feast.value_type import ValueType  # type: ignore[import-not-found]

_TYPES: Mapping[str, PrimitiveFeastType] = {
    "String": String,
    "Int64": Int64,
    "Float64": Float64,
    "Bool": Bool,
    "UnixTimestamp": UnixTimestamp,
}
_KEYS = {"String": ValueType.STRING, "Int64": ValueType.INT64}


def get_online_features(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.get_online_features`, every column with its values and statuses; service: a feature service that
    only the server knows."""
    features = asked.get("features") or FeatureService(name=asked["service"], features=[])
    answer = store.get_online_features(features, asked["entities"], asked.get("full_feature_names", False))
    columns = zip(answer.proto.metadata.feature_names.val, answer.proto.results, answer.to_dict().values(), strict=True)
    return {
        name: {"values": values, "statuses": [FieldStatus.Name(status) for status in column.statuses]}
        for name, column, values in columns
    }


def apply(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """Make a view, and a push source of its name, known to the client's own registry: it writes to no other views."""
    entities = [Entity(name=key, join_keys=[key], value_type=_KEYS[kind]) for key, kind in asked["keys"].items()]
    source = PushSource(
        name=asked["view"], batch_source=FileSource(path="unused.parquet", timestamp_field="event_timestamp")
    )
    view = FeatureView(
        name=asked["view"],
        entities=entities,
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=_TYPES[kind]) for name, kind in {**asked["keys"], **asked["features"]}.items()],
        source=source,
    )
    store.apply([*entities, source, view])
    return None


def push(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.push`."""
    return store.push(asked["view"], _frame(asked))


def write_to_online_store(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.write_to_online_store`."""
    return store.write_to_online_store(asked["view"], _frame(asked))


def _frame(asked: Mapping[str, Any]) -> pd.DataFrame:
    """times: columns of seconds since the epoch."""
    times = {name: [datetime.fromtimestamp(at, UTC) for at in column] for name, column in asked["times"].items()}
    return pd.DataFrame({**asked["columns"], **times})


_CALLS: Mapping[str, Callable[[FeatureStore, Mapping[str, Any]], object]] = {
    each.__name__: each for each in (get_online_features, apply, push, write_to_online_store)
}


def main(repository: str) -> None:
    """Until nothing more comes. What a call raises is told: to word it is the server's part."""
    store = FeatureStore(repo_path=repository)
    told = sys.stdout
    sys.stdout = sys.stderr  # where Feast prints, no line of ours is to be looked for
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": _CALLS[asked["call"]](store, asked)}
        except Exception as error:
            answer = {"raised": type(error).__name__, "message": str(error)}
        print(json.dumps(answer, default=str), file=told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
