"""What tests of Stillwell and of its users need: a view run over events, and in-memory twins of the stores.

    run(View, events)   what the view makes of them, without any service
    Record              an event with the key, headers or timestamp of its Kafka record
    Ran, Rejected       what became of the events

With pytest, `stillwell.testing.plugin` is there by itself: fixtures for definitions, golden examples and a real stack.
"""

from stillwell.testing.running import Event, Ran, Record, Rejected, run

__all__ = ["Event", "Ran", "Record", "Rejected", "run"]
