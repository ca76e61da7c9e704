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

from feast import (  # type: ignore[import-not-found]
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    PushSource,
    RequestSource,
)
from feast.data_source import PushMode  # type: ignore[import-not-found]
from feast.infra.offline_stores.file_source import FileSource  # type: ignore[import-not-found]
from feast.on_demand_feature_view import on_demand_feature_view  # type: ignore[import-not-found]
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus  # type: ignore[import-not-found]
from feast.types import (  # type: ignore[import-not-found]
    Array,
    Bool,
    Float32,
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
    entities = _entities(asked)
    file = FileSource(path=f"{asked['view']}.parquet", timestamp_field="event_timestamp")
    source = PushSource(name=asked["view"], batch_source=file)
    view = FeatureView(
        name=asked["view"],
        entities=entities,
        ttl=timedelta(0),
        schema=[Field(name=name, dtype=_TYPES[kind]) for name, kind in {**asked["keys"], **asked["features"]}.items()],
        source=source,
    )
    store.apply([*entities, source, view])
    return None


def apply_computed(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """Make a view known to the client's registry whose feature, `label`, the client computes of an `amount` before it
    writes."""
    entities = _entities(asked)
    amounts = RequestSource(name="amounts", schema=[Field(name="amount", dtype=Float64)])

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        name=asked["view"],
        entities=entities,
        sources=[amounts],
        schema=[Field(name="label", dtype=String)],
        mode="python",
        write_to_online_store=True,
    )
    def labelled(columns: dict[str, Any]) -> dict[str, Any]:
        return {"label": [f"of {amount}" for amount in columns["amount"]]}

    store.apply([*entities, amounts, labelled])
    return None


def apply_searched(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """Make a view known to the client's registry whose feature, `vector`, can be searched by likeness."""
    entities = _entities(asked)
    source = FileSource(name="vectors", path="unused.parquet", timestamp_field="event_timestamp")
    vector = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_search_metric="L2")
    store.apply([*entities, FeatureView(name=asked["view"], entities=entities, schema=[vector], source=source)])
    return None


def search(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.retrieve_online_documents`, or what `by` names in its place."""
    find = getattr(store, asked["by"])
    return find(query=[0.0, 1.0], top_k=3, features=[f"{asked['view']}:vector"]).to_dict()


def keep(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """Make the file that the client itself, and no server, adds the rows of a view to that are pushed offline."""
    return _frame(asked).to_parquet(f"{asked['view']}.parquet")


def push(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.push`."""
    to = PushMode[asked.get("to", "online").upper()]
    return store.push(asked["view"], _frame(asked), to=to, transform_on_write=asked.get("transform_on_write", True))


def write_to_online_store(store: FeatureStore, asked: Mapping[str, Any]) -> object:
    """As `FeatureStore.write_to_online_store`."""
    transform = asked.get("transform_on_write", True)
    return store.write_to_online_store(asked["view"], _frame(asked), transform_on_write=transform)


def _entities(asked: Mapping[str, Any]) -> list[Entity]:
    return [Entity(name=key, join_keys=[key], value_type=_KEYS[kind]) for key, kind in asked["keys"].items()]


def _frame(asked: Mapping[str, Any]) -> pd.DataFrame:
    """times: columns of seconds since the epoch."""
    times = {name: [datetime.fromtimestamp(at, UTC) for at in column] for name, column in asked["times"].items()}
    return pd.DataFrame({**asked["columns"], **times})


_CALLS: Mapping[str, Callable[[FeatureStore, Mapping[str, Any]], object]] = {
    each.__name__: each
    for each in (get_online_features, apply, apply_computed, apply_searched, search, keep, push, write_to_online_store)
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
