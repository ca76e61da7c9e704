"""The embedded stack: real parts that start, crash, come back, and never outlive their owner."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import confluent_kafka
import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stillwell.errors import LocalStackError
from stillwell.local import (
    DetachedStack,
    KafkaBroker,
    LocalStack,
    RedisServer,
    free_port,
    jars,
    kafka_broker,
    redis_server,
)
from stillwell.local.detached import write_whole
from stillwell.local.temporary import TemporaryFolder
from tests.full_disk import fill
from tests.waiting import eventually


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "message.max.bytes": len(value) + 1_000_000})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def _consume_one(bootstrap: str, topic: str) -> bytes | None:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"of-{topic}", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        value = message.value()
        assert value is None or isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def test_a_consumer_group_works_on_the_broker_and_a_record_may_have_10_mb(
    bootstrap: str, topic: Callable[..., str]
) -> None:
    name = topic()
    value = os.urandom(10_000_000)
    _produce(bootstrap, name, value)
    assert _consume_one(bootstrap, name) == value


def test_a_topic_that_nobody_created_is_not_created_by_asking_for_it(bootstrap: str) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 2000})
    failures: list[confluent_kafka.KafkaError | None] = []
    producer.produce("never-created", b"", on_delivery=lambda error, _: failures.append(error))
    producer.flush(10)
    assert [failure is not None for failure in failures] == [True]


def test_redis_refuses_to_evict(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


async def test_a_stack_is_usable_from_async_code_keeps_its_data_through_a_crash_and_leaves_nothing() -> None:
    async with LocalStack() as stack:
        assert set(stack.environment) == {
            "STILLWELL_KAFKA_BOOTSTRAP",
            "STILLWELL_REDIS_URL",
            "STILLWELL_OFFLINE_URL",
        }
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        new = NewTopic("kept", num_partitions=1, replication_factor=1)
        admin.create_topics([new])["kept"].result(30)
        _produce(stack.bootstrap, "kept", b"before the crash")
        before = stack.bootstrap
        stack.kafka.kill()
        stack.kafka.start()
        assert stack.bootstrap == before
        assert _consume_one(stack.bootstrap, "kept") == b"before the crash"
        pids = [stack.kafka.process.pid, stack.redis.process.pid]
    assert all(_gone(pid) for pid in pids)
    assert not stack.folder.exists()


def test_what_redis_acknowledged_survives_its_crash_on_the_same_port(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    port = server.port
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    server.kill()
    server.start()
    assert server.port == port
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.get("kept") == "yes"
    server.stop()


def test_a_redis_configured_to_forget_forgets(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, config={"appendonly": "no"})
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "no")
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0
    server.stop()


def test_a_frozen_server_answers_nothing_until_it_is_thawed(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    server.process.freeze()
    assert not server.answers()
    assert server.process.running
    server.process.thaw()
    assert server.answers()
    server.stop()


OWNER = """
    import sys, time
    from pathlib import Path
    from stillwell.local import RedisServer
    from stillwell.local.temporary import TemporaryFolder
    folder = TemporaryFolder(Path(sys.argv[1]))
    server = RedisServer(folder.path)
    server.start()
    print(folder.path, server.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_part_ends_with_its_owner_and_the_next_owner_clears_up(tmp_path: Path, end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as owner:
        try:
            assert owner.stdout is not None
            left, pid = owner.stdout.readline().split()
            living = TemporaryFolder(tmp_path)
            assert Path(left).exists(), "a living owner's folder was removed"
        finally:
            owner.send_signal(end)
    eventually(lambda: _gone(int(pid)), what="the end of a part whose owner has gone")
    following = TemporaryFolder(tmp_path)
    assert not Path(left).exists()
    assert living.path.exists()
    living.remove()
    following.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_part_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    assert server.answers()
    server.stop()


class LosesTheFirstRace(RedisServer):
    """Takes a port that is in use, then a free one."""

    def __init__(self, folder: Path, taken: int) -> None:
        super().__init__(folder)
        self._next = [taken, free_port()]

    def _choose_ports(self) -> tuple[int, ...]:
        return (self._next.pop(0),)


def test_a_port_that_somebody_else_took_first_is_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        taken = somebody_else.getsockname()[1]
        server = LosesTheFirstRace(tmp_path, taken)
        server.start()
        assert server.port != taken
        server.stop()


def test_a_wanted_port_that_is_in_use_is_an_error_that_shows_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        server = RedisServer(tmp_path, port=somebody_else.getsockname()[1])
        with pytest.raises(LocalStackError, match=r"Redis ended with code 1 .*(.|\n)*Address already in use"):
            server.start()


def test_a_part_that_cannot_start_leaves_no_process(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path, properties={"log.retention.bytes": "much"})
    with pytest.raises(LocalStackError, match=r"It said: .*log\.retention\.bytes"):
        broker.start()
    with pytest.raises(LocalStackError, match="Kafka is not running"):
        _ = broker.process


class Interrupted(RedisServer):
    """Is interrupted while it waits for an answer."""

    def answers(self) -> bool:
        """Never come so far."""
        raise KeyboardInterrupt


def test_an_interrupted_start_leaves_no_process(tmp_path: Path) -> None:
    server = Interrupted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert server.pid is not None
    assert _gone(server.pid)


def test_a_port_that_accepts_connections_is_not_yet_kafka() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not kafka_broker.coordinator_answers("127.0.0.1", port)
    assert not kafka_broker.coordinator_answers("127.0.0.1", port)


@pytest.mark.parametrize(
    ("coordinator", "group", "ready"),
    [(0, 0, True), (15, 0, False), (0, 14, False)],
    ids=["ready", "no coordinator yet", "loading its offsets"],
)
def test_a_broker_is_ready_when_its_coordinator_has_loaded(coordinator: int, group: int, ready: bool) -> None:
    # No broker can be held in these states, which last for milliseconds: so their answers are written down here.
    answers = [struct.pack(">h", coordinator), struct.pack(">ih", 1, group)]

    def answer() -> None:
        connection, _ = broker.accept()
        with connection:
            for body in answers:
                if connection.recv(1000):
                    connection.sendall(struct.pack(">ii", 4 + len(body), 1) + body)

    with socket.create_server(("127.0.0.1", 0)) as broker:
        thread = threading.Thread(target=answer)
        thread.start()
        assert kafka_broker.coordinator_answers("127.0.0.1", broker.getsockname()[1]) is ready
        thread.join()


def test_a_cluster_id_may_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 64 does."""
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))
    broker = KafkaBroker(tmp_path)
    try:
        broker.start()
        assert "cluster.id=-" in (tmp_path / "data" / "meta.properties").read_text()
    finally:
        broker.stop()


def test_too_little_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(LocalStackError, match=r"where 1 MB are free; it needs at least 1000 MB. Make room"):
        KafkaBroker(tmp_path / "kafka").start()
    with pytest.raises(LocalStackError, match=r"where 1 MB are free. Make room, or set STILLWELL_CACHE"):
        jars.kafka_class_path(cache=tmp_path / "cache")


def test_a_disk_without_any_room_is_told_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch, "redis.conf")
    with pytest.raises(LocalStackError, match=r"^Redis cannot be started, because .*redis cannot be written: No space"):
        DetachedStack(tmp_path).up()
    assert not (tmp_path / "state.json").exists()


def test_state_that_cannot_be_kept_leaves_no_half_of_it(tmp_path: Path) -> None:
    """A folder stands where the file should be: what was written beside it goes."""
    (tmp_path / "state.json").mkdir()
    with pytest.raises(LocalStackError, match=r"cannot be written: Is a directory\. Name a folder that can"):
        write_whole(tmp_path / "state.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_process_that_only_has_the_number_of_ours_is_left_alone(tmp_path: Path) -> None:
    stack = DetachedStack(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        born = psutil.Process(stranger.pid).create_time()
        kept = {"Redis": {"pid": stranger.pid, "born": born - 1, "ports": [free_port()]}}
        (tmp_path / "state.json").write_text(json.dumps(kept))
        assert [part.running for part in stack.status()] == [False, False]
        stack.down()
        assert stranger.poll() is None
        stranger.kill()


class MavenMirror(ThreadingHTTPServer):
    """Serves the jars of the cache on loopback, counts what was asked for, and can serve a jar cut short."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.asked: list[str] = []
        self.cut: str | None = None
        super().__init__(("127.0.0.1", 0), MavenFile)


class MavenFile(BaseHTTPRequestHandler):
    """One request to the mirror."""

    server: MavenMirror

    def do_GET(self) -> None:
        """Answer with the jar of that name, or 404."""
        name = self.path.rsplit("/", 1)[-1]
        file = self.server.cache / name
        if not file.exists():
            self.send_error(404)
            return
        self.server.asked.append(name)
        body = file.read_bytes()
        if name == self.server.cut:
            body = body[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def mirror(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[MavenMirror]:
    """A mirror of Maven Central that has what the stack runs on."""
    with MavenMirror(jars.cache_folder() / f"kafka-{jars.KAFKA_VERSION}") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("STILLWELL_MAVEN_URL", f"http://127.0.0.1:{server.server_port}/maven2/")
        yield server
        server.shutdown()
        thread.join()


def test_two_first_starts_fetch_each_jar_once_and_tell_how_far_they_are(mirror: MavenMirror, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        starts = [
            pool.submit(jars.kafka_class_path, cache=tmp_path, progress=lambda *so_far: told.append(so_far))
            for _ in range(2)
        ]
        first, second = (start.result() for start in starts)
    size = sum(jar.size for jar in jars.kafka_jars())
    assert first == second
    assert sorted(mirror.asked) == sorted(jar.file_name for jar in jars.kafka_jars())
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_jar_that_came_cut_short_is_not_trusted(mirror: MavenMirror, tmp_path: Path) -> None:
    jar = jars.kafka_jars()[0]
    mirror.cut = jar.file_name
    with pytest.raises(LocalStackError, match=f"(?s){jar.coordinate} could not be fetched .* instead of {jar.sha256}"):
        jars.kafka_class_path(cache=tmp_path)
    folder = tmp_path / f"kafka-{jars.KAFKA_VERSION}"
    assert not (folder / jar.file_name).exists()
    mirror.cut = None
    jars.kafka_class_path(cache=tmp_path)
    assert (folder / jar.file_name).stat().st_size == jar.size
    assert not list(folder.glob("fetch-*"))


def test_an_unreachable_maven_central_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLWELL_MAVEN_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(LocalStackError, match=r"could not be fetched from .* Check the network and HTTPS_PROXY"):
        jars.kafka_class_path(cache=tmp_path)


def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands in the folder's place")
    with pytest.raises(LocalStackError, match="Set STILLWELL_CACHE"):
        jars.kafka_class_path(cache=tmp_path / "cache")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STILLWELL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.cache_folder() == tmp_path / "stillwell"
    monkeypatch.setenv("STILLWELL_CACHE", str(tmp_path / "named"))
    assert jars.cache_folder() == tmp_path / "named"


def test_a_machine_without_java_or_redis_is_told_which_extra_carries_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LocalStackError, match=r"Java runtime.*stillwell\[local\]"):
        kafka_broker.java()
    with pytest.raises(LocalStackError, match=r"Redis was not found.*stillwell\[local\]"):
        redis_server.redis_executable()
