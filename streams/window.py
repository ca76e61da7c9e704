"""When a span is closed and becomes a link with its files."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A span is closed when it reaches any of these. Small windows make many small files; large ones take longer to
    read again after a crash, and hold more memory.

    rows: records taken in. bytes: memory that its files take so far. age: seconds since its first record.
    """

    rows: int
    bytes: int
    age: float

    def is_full(self, rows: int, nbytes: int, age: float) -> bool:
        """Whether a span of this size and age is to be closed."""
        return rows >= self.rows or nbytes >= self.bytes or age >= self.age
