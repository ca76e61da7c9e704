"""`stillwell` promises what its docstring names, imports no room, and is light to import."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import stillwell
import stillwell.client

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


def test_the_clients_own_door_is_sorted_whole_and_leads_to_no_private_name() -> None:
    names = stillwell.client.__all__
    assert names == sorted(names)
    imported = {
        alias.name
        for node in ast.parse((ROOT / "client/__init__.py").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(names)


def test_the_client_loads_no_http_library_and_no_arrow_before_it_is_used() -> None:
    loaded = _loaded_by("import stillwell; stillwell.Client('http://127.0.0.1:6566')")
    heavy = HEAVY | ROOMS | {"polars", "pyarrow", "numpy", "pydantic"}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_the_plugin_for_pytest_loads_nothing_of_the_product() -> None:
    """It is there in every run of an environment, also of those who test something else."""
    loaded = _loaded_by("import stillwell.testing.plugin")
    assert {name.partition(".")[0] for name in loaded} & {"polars", "pyarrow", "numpy", "pydantic", "msgspec"} == set()
    assert {name for name in loaded if name.startswith("stillwell")} == {
        "stillwell",
        "stillwell.testing",
        "stillwell.testing.plugin",
    }
