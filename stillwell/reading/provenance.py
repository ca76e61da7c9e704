"""Which record each value was made of: what the stamps of rows say, and how their topics are called."""

from collections.abc import Iterable, Mapping

from stillwell.layout.stamp import Stamp, topic_digest
from stillwell.layout.value import stamp_of
from stillwell.reading.features import FeatureColumn, Found
from stillwell.reading.plan import Kind


def by_digest(topics: Iterable[str]) -> dict[bytes, str]:
    """Topics by the digests that stand in stamps."""
    return {topic_digest(topic): topic for topic in topics}


def topic_of(stamp: Stamp, topics: Mapping[bytes, str]) -> str:
    """The name of a stamp's topic, or `sha256:` and its digest where that is no known one's."""
    return topics.get(stamp.topic, f"sha256:{stamp.topic.hex()}")


def stamps(column: FeatureColumn, found: Found) -> list[Stamp | None]:
    """For each value the stamp of its row; None where there is no row, and for what is computed or predicted."""
    if column.output.kind is not Kind.STORED:
        return [None] * len(column.values)
    return [None if row is None else Stamp.unpack(stamp_of(row)) for row in found.rows[column.output.source]]
