"""How long rows live in the online store."""

import datetime

from stillwell.layout.encoder import ViewEncoder
from tests.twin_line import GRACE, PARTITION, PREPARATION, VIEW, Log


def test_a_ttl_of_zero_lives_for_ever_and_any_other_with_the_grace() -> None:
    """Grace without a TTL is no life: rows that never expire would be gone an hour after they happened."""
    log = Log([b'{"at":"2026-01-01T00:00:00Z","customer":"c0","number":1}'])
    (prepared,) = PREPARATION.prepare([(PARTITION, log.read(0, 1))]).batches
    assert [rows.lifetime_ms for rows in prepared.online.rows] == [None]
    day = VIEW.model_copy(update={"ttl": datetime.timedelta(days=1)})
    assert ViewEncoder(day, GRACE)._lifetime_ms == (24 + 1) * 3_600_000
