"""`stillwell` promises what its docstring names, imports no room, and is light to import."""

import json
import pathlib
import re
import subprocess
import sys

import stillwell

ROOT = pathlib.Path(stillwell.__file__).parent
ROOMS = {"streams", "sinks", "serving", "schemas", "tests"}
HEAVY = {"faust", "mode", "aiokafka", "redis", "aiohttp", "gcsfs", "fsspec", "duckdb", "confluent_kafka", "pandas"}
HEAVY_PARTS = {"pyarrow.dataset", "pyarrow.parquet", "pyarrow.fs"}


def _loaded_by(statement: str) -> set[str]:
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(json.loads(said.stdout))


def test_the_names_of_the_front_door_are_sorted_and_there() -> None:
    assert stillwell.__all__ == sorted(stillwell.__all__)
    assert [name for name in stillwell.__all__ if not hasattr(stillwell, name)] == []


def test_the_docstring_names_everything_and_nothing_else() -> None:
    named = set(re.findall(r"`(\w+)`", stillwell.__doc__ or ""))
    assert named == set(stillwell.__all__)


def test_importing_stillwell_loads_no_room_and_nothing_heavy() -> None:
    loaded = _loaded_by("import stillwell")
    assert {name.partition(".")[0] for name in loaded} & (ROOMS | HEAVY) == set()
    assert loaded & HEAVY_PARTS == set()


def test_loading_definitions_needs_neither_faust_nor_a_store() -> None:
    load = "from stillwell.definitions.loading import load_definitions; load_definitions('schemas')"
    loaded = _loaded_by(f"import stillwell.registry; {load}")
    assert {name.partition(".")[0] for name in loaded} & (HEAVY | {"streams", "sinks", "serving"}) == set()
