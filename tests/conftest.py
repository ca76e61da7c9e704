"""Fixtures that every test may ask for: the real stack once per run, and fresh names per test."""

import os
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stillwell.local import LocalStack, free_port
from tests.services import FakeGcs, Proxy, Toxiproxy

# Read when gcsfs and fsspec are imported, by this process and by those that tests start. Without the first, a call to
# an emulator waits a minute for an interface that it lacks; without the second, credentials are looked for on the net.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ["FSSPEC_GCS_TOKEN"] = "anon"

BROKER_PROPERTIES: Mapping[str, int] = {
    "message.max.bytes": 16 * 1024 * 1024,
    "replica.fetch.max.bytes": 16 * 1024 * 1024,
    # So that a test need not wait 6 s, the broker's own least, for a dead member to be noticed.
    "group.min.session.timeout.ms": 500,
}

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


# A busy machine is slow, which is no failure; what must be fast is measured by the benchmarks.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this suite."""
    parser.addoption("--seed", type=int, help="repeat the random choices of an earlier run, which printed its seed")
    parser.addoption(
        "--write", action="store_true", help="write the generated pages under docs/ instead of checking them"
    )
    parser.addoption(
        "--pairs", type=int, default=1_500, help="how many pushes are made and read while workers are killed"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the run's seed, unless it was given."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to repeat the run."""
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what did not run."""
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        verdict = "in CI a skipped test is a failed run" if IN_CI else "the run proves less than it should"
        terminalreporter.section(f"{skipped} SKIPPED: {verdict}", sep="!", red=True)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """In CI, fail a run that skipped anything."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that belong to this test, and repeat with `--seed`."""
    return random.Random(f"{request.config.option.seed}:{request.node.nodeid}")


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """page(path under docs/, text): a generated page is as the code says; `--write` makes it so."""

    def check(path: str, text: str) -> None:
        file = Path(__file__).parent.parent / "docs" / path
        if request.config.option.write:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        fix = f"scripts/test --write '{request.node.nodeid}'"
        assert file.exists(), f"docs/{path} is generated and missing. Run: {fix}"
        assert file.read_text() == text, f"docs/{path} is generated and no longer what the code says. Run: {fix}"

    return check


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """Kafka, Redis and a folder, for the whole run. Names are shared by all tests: take fresh ones."""
    with LocalStack(kafka_properties=BROKER_PROPERTIES, kafka_proxied_ports=[free_port()]) as stack:
        yield stack


@pytest.fixture(scope="session")
def bootstrap(stack: LocalStack) -> str:
    """Kafka's `host:port`."""
    return stack.bootstrap


@pytest.fixture(scope="session")
def redis_url(stack: LocalStack) -> str:
    """Redis's URL."""
    return stack.redis_url


@pytest.fixture(scope="session")
def admin(bootstrap: str) -> AdminClient:
    """Kafka's administrator. Its futures die with it, so that it lives as long as the run."""
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def topic(admin: AdminClient) -> Iterator[Callable[..., str]]:
    """topic("departures", partitions=3, config={…}): create a topic of a fresh name that begins so; gives the name.

    It keeps its records for ever unless told otherwise: those of tests have old timestamps, and the broker removes what
    is a week old whenever it looks, which is every five minutes.
    """
    created: list[str] = []

    def create(name: str = "events", *, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        fresh = f"{name}-{uuid.uuid4().hex[:8]}"
        new = NewTopic(
            fresh, num_partitions=partitions, replication_factor=1, config={"retention.ms": "-1", **(config or {})}
        )
        admin.create_topics([new])[fresh].result(30)
        created.append(fresh)
        return fresh

    yield create
    if created:
        admin.delete_topics(created)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def prefix(namespace: str) -> str:
    """What Redis keys of this test begin with, for the project `test`."""
    return f"test:{namespace}:"


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGcs]:
    """fake-gcs-server, for the whole run."""
    server = FakeGcs(tmp_path_factory.mktemp("gcs"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def gcs(gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> str:
    """`gs://<fresh bucket>`, which gcsfs reaches for the length of this test."""
    _lead_gcsfs_to(gcs_server.address, monkeypatch)
    return _fresh_bucket(gcs_server)


@pytest.fixture
def proxied_gcs(
    gcs_server: FakeGcs, toxiproxy: Toxiproxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Proxy]]:
    """`gs://<fresh bucket>`, and the proxy through which gcsfs reaches it for the length of this test."""
    proxy = toxiproxy.create(gcs_server.address)
    _lead_gcsfs_to(proxy.address, monkeypatch)
    yield _fresh_bucket(gcs_server), proxy
    proxy.delete()


def _lead_gcsfs_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gcsfs

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
    # gcsfs keeps one client per set of arguments, and the address is not among them.
    gcsfs.GCSFileSystem.clear_instance_cache()


def _fresh_bucket(server: FakeGcs) -> str:
    name = f"bucket-{uuid.uuid4().hex[:10]}"
    server.create_bucket(name)
    return f"gs://{name}"


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    """toxiproxy, for the whole run."""
    server = Toxiproxy(tmp_path_factory.mktemp("toxiproxy"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kafka_proxy(toxiproxy: Toxiproxy, stack: LocalStack) -> Iterator[Proxy]:
    """A proxy before Kafka: clients that connect to its address stay behind it."""
    (port,) = stack.kafka.proxied_ports
    proxy = toxiproxy.create(stack.kafka.upstream(port), port=port)
    yield proxy
    proxy.delete()


@pytest.fixture
def redis_proxy(toxiproxy: Toxiproxy, stack: LocalStack) -> Iterator[Proxy]:
    """A proxy before Redis: connect to `redis://<address>/0`."""
    proxy = toxiproxy.create(f"127.0.0.1:{stack.redis.port}")
    yield proxy
    proxy.delete()
