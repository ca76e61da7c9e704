"""What acceptance tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.reader import Reader


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an empty home, who leaves nothing running."""
    reader = Reader(tmp_path)
    yield reader
    reader.leave()
