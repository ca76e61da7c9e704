"""Whether Redis still is a server that keeps rows: its settings can change, and its role, while a worker runs."""

import structlog

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.layout.online import OnlineServer
from streams.ports import OnlineStore

_log = structlog.get_logger(__name__)


class OnlineWatch:
    """Tells each change once. Nothing is stopped: rows that were evicted are gone already, and a replica refuses writes
    by itself."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._wrong: list[str] = []

    async def look(self) -> None:
        """Ask once. A Redis that does not answer is told of by those who wait for it."""
        try:
            wrong = _wrong(await self._store.read_server())
        except (StoreUnavailable, OutcomeUnknown):
            return
        if wrong and wrong != self._wrong:
            _log.error("Redis may lose rows, or takes none", reason="; ".join(wrong))
        elif self._wrong and not wrong:
            _log.info("Redis is again as it has to be")
        self._wrong = wrong


def _wrong(server: OnlineServer) -> list[str]:
    wrong = []
    if server.maxmemory_policy != "noeviction":
        wrong.append(
            f"its maxmemory-policy is {server.maxmemory_policy} now: it drops rows when memory is short, and reads "
            "call them not found. Set it back to noeviction, then run `stillwell rebuild`"
        )
    if server.role != "master":
        wrong.append("it is a replica now: point STILLWELL_REDIS_URL at the primary, or wait for the failover to end")
    return wrong
