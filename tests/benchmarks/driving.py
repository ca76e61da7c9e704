"""The load generator (`tests/benchmarks/loadgen`), and what it says of a server."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from stillwell.local import Process, free_port
from tests.benchmarks.testbed import MeasurementError
from tests.services import TOOLS

_PATIENCE_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What a server answered. Times in microseconds: of a rate, they count from when a request was due.

    late_us: how late the generator itself sent; it is part of took_us. server_cpu_us: processor time of the server, a
    request, those that did not count included.
    """

    requests: int
    seconds: float
    took_us: dict[str, float]
    late_us: dict[str, float] | None = None
    generator_cpu_us: float = 0.0
    server_cpu_us: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.rate:9,.1f} requests/s, p50 {self.took_us['p50'] / 1e3:.2f}, p99 {self.took_us['p99'] / 1e3:.2f}, "
            f"p99.9 {self.took_us['p999'] / 1e3:.2f} ms, {self.server_cpu_us:,.0f} µs CPU a request"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """How a server is driven. rate: requests a second, 0 for as many as get answered; once: no body is sent twice."""

    connections: int
    seconds: float
    skip: float = 0.5
    rate: float = 0.0
    once: bool = False


def drive(address: str, path: str, bodies: Path, how: Drive, pid: int = 0) -> Driven:
    """Post the lines of a file. pid: the server's process, whose children's time counts as well.

    Raises MeasurementError where a request is refused: what answers fast because it does not answer is no contender.
    """
    before = _cpu_seconds(pid)
    command = [
        TOOLS / "loadgen", "load", "-address", address, "-path", path, "-bodies", bodies,
        f"-connections={how.connections}", f"-seconds={how.seconds}", f"-skip={how.skip}", f"-rate={how.rate}",
        *(["-once"] if how.once else []),
    ]  # fmt: skip
    ended = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=how.seconds + how.skip + _PATIENCE_S,
        check=False,
    )
    if ended.returncode:
        raise MeasurementError(f"the load generator: {ended.stderr}")
    told: dict[str, Any] = json.loads(ended.stdout)
    if not told["requests"] and not told["refused"]:
        raise MeasurementError(f"{path}: no request was answered within {how.seconds:g} s")
    if told["refused"]:
        raise MeasurementError(f"{path} refused requests, by status: {told['refused']}; the first: {told['refusal']}")
    if told["exhausted"] and told["seconds"] < how.seconds / 2:
        raise MeasurementError(f"{path}: all requests were answered within {told['seconds']:.2f} s: prepare more")
    share = told["requests"] * (how.seconds + how.skip) / how.seconds
    return Driven(
        requests=told["requests"],
        seconds=told["seconds"],
        took_us=told["took_us"],
        late_us=told["late_us"],
        generator_cpu_us=told["cpu_seconds"] / share * 1e6,
        server_cpu_us=(_cpu_seconds(pid) - before) / share * 1e6,
    )


def drive_trivial(folder: Path, bodies: Path, answer: bytes, how: Drive) -> Driven:
    """The generator against a server of its own that answers every request with the same bytes: what it could do."""
    (folder / "answer.json").write_bytes(answer)
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [TOOLS / "loadgen", "trivial", "-address", address, "-answer", folder / "answer.json"]
    process = Process("trivial server", command, log=folder / "trivial.log")
    try:
        process.wait_until(lambda: "LISTEN" in _states(process.pid), timeout_s=10)
        return drive(address, "/", bodies, how, process.pid)
    finally:
        process.kill()


def _states(pid: int) -> set[str]:
    family = psutil.Process(pid)
    return {each.status for one in (family, *family.children(recursive=True)) for each in one.net_connections("tcp")}


def _cpu_seconds(pid: int) -> float:
    if not pid:
        return 0.0
    family = psutil.Process(pid)
    used = [each.cpu_times() for each in (family, *family.children(recursive=True))]
    return float(sum(each.user + each.system for each in used))


def until(condition: Any, what: str, within_s: float = 60.0) -> None:
    """Wait for something. Raises MeasurementError."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"waited in vain for {what}")
        time.sleep(0.05)
