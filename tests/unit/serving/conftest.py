"""A query service for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.served import Served


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A service over an empty store."""
    made = Served()
    await made.client.start_server()
    yield made
    await made.client.close()
