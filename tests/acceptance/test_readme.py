"""The README's own topic, typed by somebody who has nothing but the README and an installed Stillwell."""

from pathlib import Path

import pytest

from tests.acceptance.reader import Reader, Step, steps

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_readmes_own_topic_works_by_copy_and_paste(reader: Reader) -> None:
    marked = steps(README.read_text())
    kinds = [step.kind for step in marked]
    assert [kinds.count(kind) for kind in ("file", "worker", "service", "shell", "output", "stop")] == [
        3,
        1,
        1,
        4,
        4,
        1,
    ]
    for step in marked:
        reader.take(step)


def test_a_marked_output_that_differs_is_found(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.seen = "4 records, 17 bytes\n"
    reader.take(Step("output", "4 records, … bytes\n"))
    for wrong in ("5 records, … bytes\n", "4 records, … bytes\nmore\n", "records, … bytes\n"):
        with pytest.raises(AssertionError, match="expected"):
            reader.take(Step("output", wrong))
