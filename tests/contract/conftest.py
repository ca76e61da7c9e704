"""The stores that the contracts hold for: the twins; a folder and a bucket; every Redis there is on this machine."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

from stillwell.storage import GcsStore, LocalStore, ObjectStore
from stillwell.testing.objects import MemoryStore
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


@pytest.fixture(params=["folder", "memory", "bucket", "prefix in a bucket"])
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> ObjectStore:
    """An empty store of each kind."""
    match request.param:
        case "folder":
            return LocalStore(str(tmp_path / "not made yet" / "store"))
        case "memory":
            return MemoryStore()
        case "bucket":
            return GcsStore(request.getfixturevalue("gcs"))
        case _:
            return GcsStore(f"{request.getfixturevalue('gcs')}/teams/flights/")
