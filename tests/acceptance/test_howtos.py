"""The how-to pages that have commands to copy, typed by somebody who has nothing but the page."""

from pathlib import Path

import pytest

from tests.acceptance.reader import Reader, steps

HOWTOS = Path(__file__).parent.parent.parent / "docs" / "howto"
RUNNABLE = {
    "on-demand-features.md": {"file": 5, "worker": 1, "service": 1, "shell": 7, "output": 7},
}
"""How much of each page is run: a mark that is lost would be a page that is not tried."""


@pytest.mark.parametrize("page", RUNNABLE)
def test_a_page_works_by_copy_and_paste(page: str, reader: Reader) -> None:
    marked = steps((HOWTOS / page).read_text())
    kinds = [step.kind for step in marked]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == RUNNABLE[page]
    for step in marked:
        reader.take(step)
