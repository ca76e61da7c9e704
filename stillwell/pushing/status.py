"""What became of a row that was pushed.

applied     it is in Redis, and the newest of its entity: this very push's row, whoever was first to write it
stale       a newer one is there; it is kept offline
expired     it is older than its view's TTL; it is kept offline
filtered    its view's `where` leaves it out; what was pushed is kept
offline     it was meant for the offline store alone
accepted    Kafka holds it, and a worker will judge it: the answer of `mode="async"`
rejected    it cannot be used, and nothing of it was kept
"""

import enum


class PushStatus(enum.StrEnum):
    """What became of a row."""

    APPLIED = "applied"
    STALE = "stale"
    EXPIRED = "expired"
    FILTERED = "filtered"
    OFFLINE = "offline"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
