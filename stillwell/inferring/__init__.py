"""From some records of a topic to definitions that somebody may begin with: guesses, each told as one.

In this order: what fields records have (`observing`), what columns, event time and key they may be (`guessing`), and
how that is written down (`writing`). Pure: records come in, text goes out.
"""

from collections.abc import Sequence

from stillwell.inferring.guessing import guess
from stillwell.inferring.observing import observe
from stillwell.inferring.writing import Inferred, write
from stillwell.trial import Record

__all__ = ["Inferred", "infer"]


def infer(topic: str, records: Sequence[Record], file: str = "") -> Inferred:
    """Definitions of a topic, from records of it: an entity, the topic and a view of the latest event.

    file: what the records are from, if not from the topic. Raises NothingToGuess where no record is a JSON object, or
    nothing in them can be a key.
    """
    return write(topic, guess(topic, observe(records), file))
