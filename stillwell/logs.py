"""One log: structlog's lines and those of the libraries below, in one format, through one handler, without secrets.

Modules take a logger with `structlog.get_logger(__name__)` and write an event with its facts:
`log.info("link created", topic=…, partition=…, end=…)`. Nothing is written until `configure` was called by whoever owns
the process: the worker, a command, a test.
"""

import logging
import sys
import time
from collections.abc import Callable, Hashable
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from stillwell.redaction import HIDDEN, hide_password, names_a_secret

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# At info these tell of every fetch, join and service; what a person must know they say as warnings.
_TALKATIVE = ("aiokafka", "faust", "mode", "kafka", "aiohttp", "asyncio", "fsspec", "gcsfs", "urllib3", "google")


_REPEATED_EVERY_S = 10.0
"""How soon a library, or a service, may say the same again: as soon as a worker does (`streams/retry.py`)."""
_MOST_REPEATED = 500


class _OurHandler(logging.StreamHandler[TextIO]):
    """The handler that `configure` sets, told from those that others have set."""


class _Seldom(logging.Filter):
    """Lets a library say a thing once in a while; the next time it adds how often it was said meanwhile.

    While Kafka is away aiokafka tells of every fetch that fails, ten in a second, among which ours would not be found.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _TALKATIVE:
            return True
        now, thing = self._clock(), (record.name, str(record.msg))
        last, left_out = self._said.get(thing, (-_REPEATED_EVERY_S, 0))
        if now - last < _REPEATED_EVERY_S:
            self._said[thing] = last, left_out + 1
            return False
        if len(self._said) >= _MOST_REPEATED:
            self._said.clear()
        self._said[thing] = now, 0
        if left_out:
            record.msg = f"{record.msg} (and {left_out} times more in {now - last:.0f} s)"
        return True


class LogLimit:
    """Lets each kind of thing be said once in a while: what a thousand requests a second find wrong is not logged a
    thousand times."""

    def __init__(self, every: float = _REPEATED_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        """every: seconds between two of a kind."""
        self._every = every
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def times(self, kind: Hashable = None) -> int | None:
        """How often this was not said since it was last said, if it may be said now; None where it may not."""
        now = self._clock()
        last = self._kinds.get(kind)
        if last and now < last[0] + self._every:
            self._kinds[kind] = last[0], last[1] + 1
            return None
        if last is None and len(self._kinds) >= _MOST_REPEATED:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return last[1] if last else 0


def configure(
    format: Format, level: Level, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> None:
    """Send all logging of this process to stream (by default stderr). Called again, it replaces what it set.

    clock: seconds, by which repetitions of libraries are left out; at debug level all are written.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers made at import would otherwise keep the configuration of the first line that they wrote.
        cache_logger_on_first_use=False,
    )
    handler = _OurHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(format, handler.stream))
    )
    if level != "debug":
        handler.addFilter(_Seldom(clock))
    root = logging.getLogger()
    for earlier in [handler for handler in root.handlers if isinstance(handler, _OurHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO if level == "debug" else max(logging.WARNING, _LEVELS[level]))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide passwords in URLs in every text, and the whole of what is named as a secret."""
    for name, value in event.items():
        if names_a_secret(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = hide_password(value)
    return event


def _rendering(format: Format, stream: TextIO) -> list[Processor]:
    """Last steps: an exception becomes text before secrets are hidden, so that they are hidden in it too.

    Local variables are never part of a traceback: they would show what no pattern can find.
    """
    renderer: Processor
    if format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact,
        renderer,
    ]
