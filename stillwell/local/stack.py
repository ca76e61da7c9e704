"""The whole embedded stack: Kafka, Redis and a folder in the object store's place, on one machine, for one owner."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stillwell.errors import LocalStackError
from stillwell.local.jars import Progress
from stillwell.local.kafka_broker import KafkaBroker, Property
from stillwell.local.redis_server import RedisServer
from stillwell.local.temporary import TemporaryFolder


class LocalStack:
    """Real Kafka, real Redis and a local folder, from `start` to `stop`, or within a `with` or an `async with`.

    folder: where data and logs live; they stay there. Without one the stack makes a folder of its own under the
    system's temporary folder and removes it at the end, unless the start failed: then the message names the logs. What
    an owner that was killed has left is removed by the next stack. kafka_properties and redis_config are laid over the
    defaults, by the servers' own names; kafka_proxied_ports as in KafkaBroker. persistent: the parts outlive this
    process and nobody ends them.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        kafka_properties: Mapping[str, Property] | None = None,
        kafka_port: int | None = None,
        kafka_proxied_ports: Sequence[int] = (),
        redis_config: Mapping[str, str] | None = None,
        redis_port: int | None = None,
        persistent: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._temporary: TemporaryFolder | None = None
        if folder is None:
            self._temporary = TemporaryFolder()
            folder = self._temporary.path
        self.folder = folder.resolve()
        self.kafka = KafkaBroker(
            self.folder / "kafka",
            properties=kafka_properties,
            port=kafka_port,
            proxied_ports=kafka_proxied_ports,
            leashed=not persistent,
            progress=progress,
        )
        self.redis = RedisServer(self.folder / "redis", config=redis_config, port=redis_port, leashed=not persistent)
        self.offline = self.folder / "offline"

    @property
    def bootstrap(self) -> str:
        """Kafka's `host:port`."""
        return self.kafka.bootstrap

    @property
    def redis_url(self) -> str:
        """Redis's `redis://host:port/0`."""
        return self.redis.url

    @property
    def environment(self) -> dict[str, str]:
        """The settings that point Stillwell at this stack, as environment variables."""
        return {
            "STILLWELL_KAFKA_BOOTSTRAP": self.bootstrap,
            "STILLWELL_REDIS_URL": self.redis_url,
            "STILLWELL_OFFLINE_URL": str(self.offline),
        }

    def start(self) -> None:
        """Start the parts and return when all answer. Raises LocalStackError, with no part left running."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._kill_parts)
            self.offline.mkdir(parents=True, exist_ok=True)
            self.redis.start()
            self.kafka.start()
            undo.pop_all()

    def stop(self) -> None:
        """End what runs, in order, and remove the folder if the stack made it."""
        self.kafka.stop()
        self.redis.stop()
        if self._temporary is not None:
            self._temporary.remove()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _kill_parts(self) -> None:
        for part in (self.kafka, self.redis):
            with contextlib.suppress(LocalStackError):
                part.kill()
