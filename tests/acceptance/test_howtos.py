"""The how-to pages that have commands to copy, typed by somebody who has nothing but the page."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.acceptance.reader import Reader, steps
from tests.predicted import OddServer, ThreadedServer

HOWTOS = Path(__file__).parent.parent.parent / "docs" / "howto"
RUNNABLE: Mapping[str, Mapping[str, int]] = {
    "on-demand-features.md": {"file": 5, "worker": 1, "service": 1, "shell": 7, "output": 7},
    "write-patterns.md": {"file": 2, "worker": 1, "service": 1, "python": 10, "shell": 3, "output": 3},
    "inference-patterns.md": {"file": 2, "worker": 1, "service": 1, "python": 5, "shell": 2, "output": 2},
    "add-a-feature.md": {"file": 3, "worker": 2, "service": 2, "shell": 7, "output": 7, "edit": 2, "stop": 2, "end": 1},
    "add-a-topic.md": {"file": 3, "worker": 2, "edit": 1, "shell": 4, "output": 4, "stop": 2, "elsewhere": 1},
    "read-dead-letters.md": {"file": 3, "worker": 1, "shell": 6, "output": 5},
}
"""How much of each page is run: all of its blocks. A mark that is lost would be a block that is not tried."""


@pytest.mark.parametrize("page", RUNNABLE)
def test_a_page_works_by_copy_and_paste(page: str, reader: Reader) -> None:
    markdown = (HOWTOS / page).read_text()
    marked = steps(markdown)
    kinds = [step.kind for step in marked]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == RUNNABLE[page]
    assert len(re.findall(r"^```\w*$", markdown, re.MULTILINE)) == 2 * sum(bool(step.text) for step in marked), (
        "a block has no mark"
    )
    with ThreadedServer(OddServer("score", "cents", "INT64")) as model:
        reader.elsewhere["http://127.0.0.1:8080"] = model.server.url
        for step in marked:
            reader.take(step)


def test_every_pair_of_ways_to_write_has_a_heading_a_reason_and_a_script() -> None:
    page = (HOWTOS / "write-patterns.md").read_text()
    pairs = {
        f"{when}, {where}"
        for when in ("synchronous", "asynchronous")
        for where in ("precomputed", "on demand", "hybrid")
    }
    found = {heading.lower(): text for heading, text in re.findall(r"^## (.*, .*)\n\n((?:(?!^## ).*\n)+)", page, re.M)}
    assert found.keys() == pairs
    assert [pair for pair, text in found.items() if not re.match(r"(When|For) .+?\.\n", text, re.DOTALL)] == []
    assert [pair for pair, text in found.items() if "<!-- test: python -->" not in text] == []


def test_each_of_the_four_ways_to_predict_has_a_script() -> None:
    page = (HOWTOS / "inference-patterns.md").read_text()
    ways = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [way.count("<!-- test: python -->") for way in ways] == [1, 1, 1, 1]
