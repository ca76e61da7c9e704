"""Commands to Redis and replies back, in one round trip a batch; failures told apart by what they mean.

redis-py connects, authenticates, keeps the pool and reads replies. Commands are packed by hiredis and sent as they are:
packing them in redis-py's asyncio client costs more than all the rest of a write (0.6 of 1.2 µs a row).
"""

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import hiredis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stillwell.errors import FormatError, OutcomeUnknown, StoreError, StoreNotReady, StoreUnavailable
from stillwell.layout.online import not_ready
from stillwell.redaction import hide_password

Command = tuple[bytes | str, ...]

Reply = Any
"""bytes, an int, None, or a list of those; from `stream` also a `redis.ResponseError`, in its command's place."""

Exchange = Callable[[Iterable[Sequence[Command]]], Awaitable[list[Reply]]]
"""The replies to all commands, refusals among them. Each batch is sent while the server works on the last one."""

COMMANDS = (
    *("del", "evalsha", "exec", "exists", "get", "getrange", "info", "mget", "mset", "multi", "pexpireat", "rename"),
    *("script|load", "select", "set", "setrange", "time", "zadd", "zcount", "zrange", "zremrangebyrank"),
    "zremrangebyscore",
)
"""What a user of Redis must be allowed, to write, read and rebuild; what scripts do is done with the user's rights."""

_MENDS = {
    "READONLY": "it is a replica: point STILLWELL_REDIS_URL at the primary, or wait for the failover to end",
    "LOADING": "it still loads its data after a start: wait",
    "MASTERDOWN": "it is a replica that has lost its primary: wait, or point STILLWELL_REDIS_URL at the primary",
    "CLUSTERDOWN": "the cluster lacks nodes: bring them back",
    "NOSCRIPT": "it has forgotten a script that it had just been given, by `SCRIPT FLUSH` or a restart: wait",
    "OOM": "its memory is full: raise maxmemory (the instance's size), or shorten TTLs in a new namespace",
    "BUSY": "a script runs on it without end: see `SLOWLOG GET` there, and end it by `SCRIPT KILL`",
    "MISCONF": "it cannot save its data to disk, and therefore refuses writes: see its log",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write asks for: bring them back",
    "NOAUTH": "correct user and password in STILLWELL_REDIS_URL",
    "WRONGPASS": "correct user and password in STILLWELL_REDIS_URL",
    "NOPERM": "allow the user in STILLWELL_REDIS_URL all of ~<project>:<namespace>:* "
    + " ".join(f"+{command}" for command in COMMANDS)
    + " and, for `stillwell predictions refresh --all` alone, +scan",
    "MOVED": "it is a cluster: point STILLWELL_REDIS_URL at a single instance",
    "CROSSSLOT": "it is a cluster: point STILLWELL_REDIS_URL at a single instance",
}


_NO_CONNECTION = (exceptions.RedisError, OSError, RuntimeError)
"""What redis-py raises where it cannot connect. RuntimeError is uvloop's: it refuses to send over a connection that the
other side has just ended, where asyncio keeps silent."""


class RedisLink:
    """Connections to one server, opened as they are needed."""

    def __init__(self, url: str, timeout: float, connections: int) -> None:
        """timeout: seconds for each step: to get one of so many connections, to connect, to send, for a reply to come.

        Raises ValueError for a URL that redis-py does not take.
        """
        self.address = hide_password(url)
        self._pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            # Whoever calls knows how to ask again, and must hear of every failure.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    async def ask(self, *commands: Command) -> list[Reply]:
        """The replies to a few commands, in one round trip. Raises what the first refused one means."""
        async with self.connection() as exchange:
            replies = await exchange([commands])
            for reply in replies:
                if isinstance(reply, exceptions.ResponseError):
                    # Within the `with`, which gives this connection up: a refused EXEC leaves it in its transaction.
                    raise self.refusal(reply)
        return replies

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Exchange]:
        """One connection for the length of a `with`: what is exchanged there is all with the same server.

        Raises StoreUnavailable if nothing was sent or the server answers to nobody, OutcomeUnknown if replies are
        missing.
        """
        cancelled = _cancelled()
        connection = await self._connect()
        try:
            yield functools.partial(_exchange, connection, cancelled)
        except BaseException as error:
            # Replies may still be on their way: they must not be taken for those of the next command.
            await connection.disconnect(nowait=True)
            if isinstance(error, exceptions.BusyLoadingError | exceptions.AuthenticationError):
                raise self.refusal(error) from error
            if isinstance(error, exceptions.RedisError | OSError):
                raise OutcomeUnknown(f"Redis at {self.address} gave no answer: {error}") from error
            raise
        finally:
            await asyncio.shield(self._pool.release(connection))

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    def refusal(self, error: Exception) -> StoreError | FormatError:
        """What a refusal means."""
        text = str(error)
        code = _code(error)
        if code == "NOTREADY":
            return StoreNotReady(
                f"Redis at {self.address}: {text.partition('NOTREADY ')[2]}; it has lost data or was rebuilt "
                "meanwhile. If it stays so, run `stillwell rebuild`"
            )
        if code in ("BADFORMAT", "WRONGTYPE"):
            return FormatError(
                f"Redis at {self.address} holds something that is no row of this version where a row should be "
                f"({text}): upgrade if a newer Stillwell writes there too, fill a new namespace, or find out who else "
                "writes to these keys"
            )
        if code in _MENDS:
            return StoreUnavailable(f"Redis at {self.address} refuses ({code}): {_MENDS[code]}")
        return StoreError(f"Redis at {self.address} refuses: {text}")

    def not_ready(self) -> StoreNotReady:
        """What to raise where the ready key is missing."""
        return not_ready(f"Redis at {self.address}")

    def replica(self) -> StoreUnavailable:
        """What to raise where the server is a replica, which may lag behind."""
        return StoreUnavailable(f"Redis at {self.address} is not read: {_MENDS['READONLY']}")

    async def connect_alone(self) -> Any:
        """A connection of redis-py's that is in no pool, for who takes it over. Raises StoreUnavailable."""
        cancelled = _cancelled()
        connection = self._pool.make_connection()
        try:
            await connection.connect()
        except _NO_CONNECTION as error:
            raise self._out_of_reach(error) from error
        if _cancelled() > cancelled:
            await connection.disconnect(nowait=True)
            raise asyncio.CancelledError
        return connection

    async def _connect(self) -> Any:
        try:
            return await self._pool.get_connection()
        except _NO_CONNECTION as error:
            raise self._out_of_reach(error) from error

    def _out_of_reach(self, error: Exception) -> StoreUnavailable:
        mend = _MENDS.get(_code(error), "check that it runs, and STILLWELL_REDIS_URL")
        return StoreUnavailable(f"Redis at {self.address} cannot be reached: {error}; {mend}")


def facts_of(*infos: bytes) -> dict[str, str]:
    """What INFO tells, by name."""
    return dict(line.split(":", 1) for info in infos for line in info.decode().splitlines() if ":" in line)


def _cancelled() -> int:
    """How often the task was told to end.

    In Python 3.11 `asyncio.wait_for`, by which redis-py sends, forgets that it was told so in the very turn in which
    all is sent. Who then goes on may do so for ever; who waits for his end waits as long.
    """
    task = asyncio.current_task()
    return task.cancelling() if task else 0


async def _exchange(connection: Any, cancelled: int, batches: Iterable[Sequence[Command]]) -> list[Reply]:
    """cancelled: how often the task had been told to end before this connection was asked for."""
    replies: list[Reply] = []
    awaited = 0
    for batch in batches:
        packed = b"".join([hiredis.pack_command(command) for command in batch])  # type: ignore[arg-type]
        await _send(connection, packed)
        if _cancelled() > cancelled:
            raise asyncio.CancelledError
        replies += [await _reply(connection) for _ in range(awaited)]
        awaited = len(batch)
    return replies + [await _reply(connection) for _ in range(awaited)]


async def _send(connection: Any, packed: bytes) -> None:
    if connection._writer is None or connection._writer.transport.is_closing():
        # asyncio of Python 3.12 would raise an AttributeError where it should keep silent.
        raise exceptions.ConnectionError("the other side has ended the connection")
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # uvloop's, as above
        raise exceptions.ConnectionError(str(error)) from error


async def _reply(connection: Any) -> Reply:
    try:
        return await connection.read_response(disable_decoding=True)
    except exceptions.ResponseError as error:
        return error


_NO_PERMISSION = re.compile("The user executing the script can't|ACL failure in script")
"""What a user lacks inside of scripts, of commands or of keys, has no word: these are Redis 6.2's, and Redis 7's."""

_WORD = re.compile(r"\b[A-Z]{3,}\b")


def _code(error: Exception) -> str:
    """The word in capitals by which Redis names an error. Redis 6.2 puts a sentence before it inside of scripts, and a
    refused EXEC says that of its transaction before its own."""
    known = getattr(error, "status_code", None)
    if known and known not in ("ERR", "EXECABORT"):
        return str(known)
    if _NO_PERMISSION.search(str(error)):
        return "NOPERM"
    words = _WORD.findall(str(error))
    return next((word for word in words if word in _MENDS or word in ("NOTREADY", "BADFORMAT", "WRONGTYPE")), "")
