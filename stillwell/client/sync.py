"""The client for code that is not asynchronous: one thread with one event loop, in which a `Client` lives.

It works where a loop runs already, as in a notebook: the call waits for the other thread. Any number of threads may
share one.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from stillwell.client.client import TIMEOUT, Client
from stillwell.client.errors import Closed
from stillwell.client.predictions import Predictions
from stillwell.client.pushed import Mode, Pushed, PushedRow, Row, To
from stillwell.client.pusher import Pusher, Receipt
from stillwell.client.results import Features
from stillwell.client.retrying import Retries
from stillwell.client.source import After, Entities, Source
from stillwell.errors import StillwellError
from stillwell.pushing.token import Token

if TYPE_CHECKING:
    from stillwell.client.named import Asking, NamedModel, NamedView
    from stillwell.settings import Settings

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a thread of its own, which ends with the process or when it is closed."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._ending = False
        self._begin_or_end = threading.Lock()
        """Held where a call begins, or the end: none begins behind it, for which nobody would ever answer."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What a coroutine returns, which is made and run in the loop. Ctrl-C ends it."""
        if os.getpid() != self._process:
            raise StillwellError("a client does not live on in a forked process: make one in each process")
        if threading.current_thread() is self._thread:
            raise StillwellError("a call from within the client's own loop would wait for itself: use stillwell.Client")
        with self._begin_or_end:
            if self._ending:
                raise Closed("the client is closed: make another one")
            future = asyncio.run_coroutine_threadsafe(_made(make), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self._ending:
                raise Closed("the client was closed before there was an answer") from None
            raise
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop; whatever still runs in it is cancelled."""
        if os.getpid() != self._process:
            return
        with self._begin_or_end:
            if self._ending:
                return
            self._ending = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


async def _made(make: Callable[[], Awaitable[_T]]) -> _T:
    return await make()


class SyncReceipt:
    """Stands for a row that was handed to a SyncPusher: see Receipt."""

    def __init__(self, thread: LoopThread, receipt: Receipt) -> None:
        self._thread = thread
        self._receipt = receipt

    def result(self) -> PushedRow:
        """Wait for what became of the row. Raises why there is nothing."""

        async def outcome() -> PushedRow:
            return await self._receipt

        return self._thread.call(outcome)

    def settled(self) -> None:
        """See Receipt.settled."""
        self._thread.call(self._receipt.settled)


class SyncPusher:
    """A Pusher without `await`; for a `with` block. Several threads may share one."""

    def __init__(self, thread: LoopThread, pusher: Pusher) -> None:
        self._thread = thread
        self._pusher = pusher

    @property
    def token(self) -> Token | None:
        """See Pusher.token."""
        return self._pusher.token

    def push(self, row: Row) -> SyncReceipt:
        """See Pusher.push."""
        return SyncReceipt(self._thread, self._thread.call(lambda: self._pusher.push(row)))

    def flush(self) -> None:
        """See Pusher.flush."""
        self._thread.call(self._pusher.flush)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.call(lambda: self._pusher.__aexit__(kind, error, traceback))


class SyncClient:
    """A `Client` without `await`; `with`, or `close` it.

    with SyncClient("http://127.0.0.1:6566") as client:
        found = client.features(["AirportDepartures:late"], {"airport": "JFK"})
    """

    _client: Client
    _closed: bool
    _thread: LoopThread

    def __init__(
        self, url: str, *, timeout: float = TIMEOUT, connections: int = 32, retries: Retries | None = None
    ) -> None:
        """See Client."""
        self._begin(Client(url, timeout=timeout, connections=connections, retries=retries))

    @classmethod
    def direct(
        cls, settings: "Settings | None" = None, *, timeout: float = TIMEOUT, retries: Retries | None = None
    ) -> Self:
        """See Client.direct."""
        return cls.around(Client.direct(settings, timeout=timeout, retries=retries))

    @classmethod
    def of(cls, source: Source, *, timeout: float = TIMEOUT) -> Self:
        """See Client.of."""
        return cls.around(Client.of(source, timeout=timeout))

    @classmethod
    def around(cls, client: Client) -> Self:
        """Around a client that nobody else uses, and that was not used yet."""
        made = cls.__new__(cls)
        made._begin(client)
        return made

    def features(
        self,
        features: "Asking",
        entities: Entities,
        *,
        after: After = None,
        provenance: bool = False,
        timeout: float | None = None,
    ) -> Features:
        """See Client.features."""
        return self._thread.call(
            lambda: self._client.features(features, entities, after=after, provenance=provenance, timeout=timeout)
        )

    def predictions(self, model: "NamedModel", entities: Entities, *, timeout: float | None = None) -> Predictions:
        """See Client.predictions."""
        return self._thread.call(lambda: self._client.predictions(model, entities, timeout=timeout))

    def push(
        self,
        view: "NamedView",
        rows: Any,
        *,
        mode: Mode = "sync",
        to: To = "online_and_offline",
        transform_on_write: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Pushed:
        """See Client.push."""
        return self._thread.call(
            lambda: self._client.push(
                view,
                rows,
                mode=mode,
                to=to,
                transform_on_write=transform_on_write,
                idempotency_key=idempotency_key,
                timeout=timeout,
            )
        )

    def pusher(
        self,
        view: "NamedView",
        *,
        max_rows: int = 500,
        max_delay: float = 0.01,
        max_bytes: int = 512 * 1024,
        max_waiting: int = 10_000,
        concurrent: int = 4,
        mode: Mode = "sync",
        to: To = "online_and_offline",
        transform_on_write: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "SyncPusher":
        """See Client.pusher; every `push` is a hand-over between two threads."""

        async def made() -> Pusher:
            return self._client.pusher(
                view,
                max_rows=max_rows,
                max_delay=max_delay,
                max_bytes=max_bytes,
                max_waiting=max_waiting,
                concurrent=concurrent,
                mode=mode,
                to=to,
                transform_on_write=transform_on_write,
                idempotency_key=idempotency_key,
                timeout=timeout,
            )

        return SyncPusher(self._thread, self._thread.call(made))

    def close(self) -> None:
        """Close every connection, and end the thread."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.call(self._client.close)
            finally:
                self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, client: Client) -> None:
        self._client = client
        self._closed = False
        self._thread = LoopThread("stillwell client")
        _open.add(self)


_open: "weakref.WeakSet[SyncClient]" = weakref.WeakSet()
"""Those that may have connections: a script ends, and a notebook, without closing them."""


@atexit.register
def _close_all() -> None:
    for client in list(_open):
        with contextlib.suppress(StillwellError):  # of the process that this one was forked from
            client.close()
