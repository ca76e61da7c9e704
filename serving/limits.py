"""What one request may ask for. Each bounds memory and the time in which nobody else is answered."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """rows: entities of a request; features: of one; values: entities times features; push_rows: of one push."""

    rows: int
    features: int
    values: int
    push_rows: int = 1_000
