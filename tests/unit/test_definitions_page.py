"""The page on definitions is true: every example on it is run, and its tables name every word there is."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwell.definitions.columns import col
from stillwell.definitions.entity import EntityWords
from stillwell.definitions.golden import _File
from stillwell.definitions.model import MAX_BATCH, MAX_RETRIES, ModelWords, OpenInference
from stillwell.definitions.names import MAX_NAME_LENGTH, RESERVED
from stillwell.definitions.on_demand import OnDemandWords
from stillwell.definitions.request import RequestWords
from stillwell.definitions.service import FeatureServiceWords
from stillwell.definitions.topic import TopicWords
from stillwell.definitions.view import MAX_VERSION, ViewWords
from stillwell.definitions.words import CardWords
from stillwell.types import FIELD_TYPES
from tests.unit.test_format_pages import first_column, table

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "definitions.md").read_text()


def marked(kind: str) -> Iterator[tuple[str, str]]:
    """What the marks of a kind say, and the blocks behind them."""
    return iter(re.findall(rf"^<!-- {kind}:? ?([^\n]*) -->\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the page."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in marked("file"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text()}\n\n{text}" if file.exists() else text)
    return folder


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, as somebody does who has nothing but that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLWELL_")}
    settings = {"STILLWELL_PROJECT": "page", "STILLWELL_DEFINITIONS": "bank", "PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment | settings, capture_output=True, text=True, check=False
    )


def check(folder: Path) -> "subprocess.CompletedProcess[str]":
    """`stillwell check`."""
    return run(folder, "-c", "from stillwell.cli.main import main; main()", "check")


def test_the_definitions_are_right_and_their_examples_too(folder: Path) -> None:
    done = check(folder)
    assert done.returncode == 0, done.stderr
    ((_, expected),) = marked("check")
    assert done.stdout == expected


def test_an_example_that_says_something_else_is_found(folder: Path) -> None:
    """Else the test above would hold for any example."""
    file = folder / "bank/golden/bank.transfers/in-dollars.json"
    kept = file.read_text()
    file.write_text(kept.replace('"amount": -20.5', '"amount": -20.25'))
    done = check(folder)
    file.write_text(kept)
    assert done.returncode == 1
    assert "in-dollars.json: expects of LastMovement" in done.stderr


def test_what_the_page_calls_refused_is_refused(folder: Path) -> None:
    refused = list(marked("refused"))
    assert refused
    file = folder / "bank/transfers.py"
    kept = file.read_text()
    for says, text in refused:
        file.write_text(f"{kept}\n\n{text}")
        done = check(folder)
        file.write_text(kept)
        assert done.returncode == 1
        assert says in done.stderr


def test_the_pages_own_tests_pass(folder: Path) -> None:
    """And show a mistake."""
    calls = "import test_bank as page; [getattr(page, name)() for name in dir(page) if name.startswith('test_')]"
    assert run(folder, "-c", calls).returncode == 0
    broken = "import bank.transfers as t; t.LastMovement.both_ends = lambda event: []; " + calls
    assert "AssertionError" in run(folder, "-c", broken).stderr


def test_every_block_of_python_and_json_is_run() -> None:
    run_blocks = [text for kind in ("file", "refused") for _, text in marked(kind)]
    assert sorted(re.findall(r"^```(?:python|json)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)) == sorted(run_blocks)
    for name, text in marked("file"):
        if name.endswith(".json"):
            assert json.loads(text)


def own(words: type) -> dict[str, object]:
    """The words of a kind of definitions alone."""
    return {name: kind for name, kind in words.__annotations__.items() if name not in CardWords.__annotations__}


@pytest.mark.parametrize(
    ("begins", "names"),
    [
        ("A Kafka topic whose records", own(TopicWords)),
        ("Features of one entity", own(ViewWords)),
        ("Records that show a topic's edge cases", _File.model_fields),
        ("### Types", FIELD_TYPES),
        ("Features computed when they are read", own(OnDemandWords)),
        ("A model predicts from features", own(ModelWords)),
        ("`OpenInference` is a server", {field.name: field for field in dataclasses.fields(OpenInference)}),
    ],
    ids=["topic", "view", "golden example", "types", "on-demand view", "model", "model server"],
)
def test_the_tables_name_every_word(begins: str, names: dict[str, object]) -> None:
    assert sorted(first_column(PAGE, begins)) == sorted(names)


def test_the_tables_name_every_option_of_a_column() -> None:
    sources = first_column(PAGE, "`Col[…]` has a type")
    rules = first_column(PAGE, "**Expectations** are what must hold")
    assert sorted([*sources, *rules]) == sorted(inspect.signature(col).parameters)


def test_the_page_names_what_every_definition_may_say() -> None:
    assert first_column(PAGE, "What any definition may say to people") == list(CardWords.__annotations__)
    assert EntityWords.__annotations__ == RequestWords.__annotations__ == CardWords.__annotations__
    assert FeatureServiceWords.__annotations__.keys() == {"features", *CardWords.__annotations__}


def test_the_tables_say_which_types_can_be_keys_and_what_they_are_in_python() -> None:
    for names, _, python, as_key in table(PAGE, "### Types"):
        for name in re.findall(r"`(\w+)`", names):
            assert bool(FIELD_TYPES[name].key_tag) == (as_key == "yes")
            assert FIELD_TYPES[name].python.__name__ in python


def test_the_pages_numbers_are_right() -> None:
    assert f"have {MAX_NAME_LENGTH} characters at most" in PAGE
    assert f"1 to {MAX_VERSION}" in PAGE
    server = OpenInference(url="", model="")
    assert f"0 to {MAX_RETRIES}, {server.retries} unless given" in PAGE
    assert f"1 to {MAX_BATCH}, {server.max_batch} unless given" in PAGE
    assert server.timeout.total_seconds() == 1
    assert all(f"`{name}`" in PAGE for name in RESERVED)
