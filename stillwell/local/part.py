"""What the parts of the embedded stack have in common: start, readiness, ports, crash, and a start anew."""

import abc
import contextlib
from collections.abc import Iterator
from pathlib import Path

from stillwell.errors import LocalStackError
from stillwell.local.process import Process, free_port

_PORT_ATTEMPTS = 5
_LOST_RACE = b"ddress already in use"


class Part(abc.ABC):
    """A server that can be killed, frozen and started again on the same port with the same data.

    name: for messages. folder: its log and data, kept from one start to the next. port: the port of 127.0.0.1 to listen
    on; without one, the first start takes a free one. leashed: it ends when this process ends, however that happens.
    """

    start_timeout_s = 30.0
    stop_grace_s = 10.0
    port_count = 1

    def __init__(self, name: str, folder: Path, *, port: int | None = None, leashed: bool = True) -> None:
        self.name = name
        self.folder = folder
        self._fixed_port = port
        self._leashed = leashed
        self.ports: tuple[int, ...] = ()
        self.pid: int | None = None
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """The port that clients connect to. Raises LocalStackError before the first start."""
        if not self.ports:
            raise LocalStackError(f"{self.name} has no port before its first start: call start() first.")
        return self.ports[0]

    @property
    def process(self) -> Process:
        """The server's process. Raises LocalStackError when it was not started or has been ended."""
        if self._process is None:
            raise LocalStackError(f"{self.name} is not running: call start() first.")
        return self._process

    @property
    def log(self) -> Path:
        """The file that takes what the server prints."""
        return self.folder / f"{self.name.lower()}.log"

    @abc.abstractmethod
    def answers(self) -> bool:
        """Whether the server does its work now, which is more than an open port."""

    @abc.abstractmethod
    def _prepare(self) -> list[str]:
        """Write what the server needs into the folder, with the ports as they are; give the command."""

    def start(self) -> None:
        """Start the server and return when it answers. Raises LocalStackError."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        attempts = 1 if self.ports or self._fixed_port is not None else _PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            if not self.ports or attempt > 1:
                self.ports = self._choose_ports()
            printed = len(self._printed())
            try:
                self._start_once()
                return
            except LocalStackError:
                if _LOST_RACE not in self._printed()[printed:] or attempt == attempts:
                    raise

    def adopt(self, pid: int, ports: tuple[int, ...]) -> None:
        """Take a server that another process started for this one, so that `answers` asks it."""
        self.pid = pid
        self.ports = ports

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self._process = None

    def stop(self) -> None:
        """End the server in order. Nothing happens when it is not running."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def detach(self) -> None:
        """Forget the server, which goes on alone. Only for one that is not leashed."""
        if self._process is not None:
            self._process.detach()
            self._process = None

    def restart(self) -> None:
        """Start again on the same port with the same data, after ending the server in order if it runs."""
        self.stop()
        self.start()

    def _start_once(self) -> None:
        command = self._prepare()
        self._process = Process(self.name, command, log=self.log, leashed=self._leashed, grace_s=self.stop_grace_s)
        self.pid = self._process.pid
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)
            self._process.wait_until(self.answers, timeout_s=self.start_timeout_s)
            undo.pop_all()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """For what is written into the folder. Raises LocalStackError."""
        try:
            yield
        except OSError as error:
            raise LocalStackError(
                f"{self.name} cannot be started, because {self.folder} cannot be written: {error.strerror}. Make room, "
                "or give the stack a folder on another disk."
            ) from error

    def _printed(self) -> bytes:
        return self.log.read_bytes() if self.log.exists() else b""

    def _choose_ports(self) -> tuple[int, ...]:
        ports = [] if self._fixed_port is None else [self._fixed_port]
        while len(ports) < self.port_count:
            port = free_port()
            if port not in ports:
                ports.append(port)
        return tuple(ports)
