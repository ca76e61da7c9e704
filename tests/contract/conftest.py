"""The online stores that the contract holds for: the twin, and every Redis there is on this machine."""

from collections.abc import Callable, Iterator

import pytest

from tests.online_support import AnyRedisServer, executables


@pytest.fixture(scope="session")
def redis_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], AnyRedisServer]]:
    """redis_of("Valkey"): that server, started when it is first asked for, and shared by the run."""
    running: dict[str, AnyRedisServer] = {}

    def start(name: str) -> AnyRedisServer:
        if name not in running:
            running[name] = AnyRedisServer(executables()[name], tmp_path_factory.mktemp("redis"))
            running[name].start()
        return running[name]

    yield start
    for server in running.values():
        server.stop()
