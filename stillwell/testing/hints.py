"""A refresh topic in memory."""

import asyncio
from collections.abc import Callable, Sequence

from stillwell.predictions.hint import Hint


class MemoryHints:
    """hints: all that were sent, in their order; faults: called before each, and raises what the topic would."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.faults: Callable[[], None] = lambda: None

    async def send(self, hints: Sequence[Hint]) -> None:
        """Keep them."""
        await asyncio.sleep(0)
        self.faults()
        self.hints += hints
