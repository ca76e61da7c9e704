"""What tests of Stillwell and of its users need: a view run over events, and in-memory twins of the stores.

    run(View, events)   what the view makes of them, without any service
    Record              an event with the key, headers or timestamp of its Kafka record
    Ran, Rejected       what became of the events
    Event               what `run` takes for one

With pytest, `stillwell.testing.plugin` is there by itself: fixtures for definitions, golden examples and a real stack.
It is loaded with every pytest of the environment, so that nothing here is before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillwell.testing.running import Event, Ran, Record, Rejected, run

__all__ = ["Event", "Ran", "Record", "Rejected", "run"]


def __getattr__(name: str) -> object:
    """Load a name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("stillwell.testing.running"), name)
