"""Feast's registry and rows: `python -m tests.benchmarks.contenders.feast_fill REPOSITORY WHAT`.

A process of its own in Feast's environment. WHAT: a file of JSON, {"key": …, "columns": {column: its type},
"views": {view: [its columns]}, "pushed": [views with a push source of their name], "frame": a Parquet file with a row
for each entity}.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, PushSource  # type: ignore[import-not-found]
from feast.infra.offline_stores.file_source import FileSource  # type: ignore[import-not-found]
from feast.types import Bool, Float64, Int64, String  # type: ignore[import-not-found]
from feast.value_type import ValueType  # type: ignore[import-not-found]

_TYPES = {"Bool": Bool, "Float64": Float64, "Int64": Int64, "String": String}


def main(repository: Path, what: Path) -> None:
    """Apply the views, and write every row of each."""
    told = json.loads(what.read_text())
    key: str = told["key"]
    user = Entity(name="user", join_keys=[key], value_type=ValueType.INT64)
    source = FileSource(name="rows", path=told["frame"], timestamp_field="event_timestamp")
    pushed = {view: PushSource(name=view, batch_source=source) for view in told["pushed"]}
    views = [
        FeatureView(
            name=view,
            entities=[user],
            ttl=timedelta(days=7),
            schema=[Field(name=name, dtype=_TYPES[kind]) for name, kind in _kinds(told, names).items()],
            source=pushed.get(view, source),
        )
        for view, names in told["views"].items()
    ]
    store = FeatureStore(repo_path=str(repository))
    store.apply([user, source, *pushed.values(), *views])
    frame = pd.read_parquet(told["frame"])
    for view, names in told["views"].items():
        store.write_to_online_store(view, frame[[key, *names, "event_timestamp"]])


def _kinds(told: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {told["key"]: "Int64", **{name: told["columns"][name] for name in names}}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
