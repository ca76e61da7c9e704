"""What the worker shows of itself over HTTP: /metrics, /healthz and /readyz, on Faust's web server."""

import dataclasses
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST

from streams.metrics import Metrics


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """ready: every assigned partition flows, and the sinks answer. details: what is not as it should be, for people."""

    ready: bool
    details: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """An answer: its status, content type and body."""

    status: int
    content_type: str
    body: bytes


def pages(metrics: Metrics, health: Callable[[], Health]) -> dict[str, Callable[[], Page]]:
    """Every path and what it answers. Alive is whoever answers: a worker that should not be ends."""
    return {
        "/metrics": lambda: Page(200, CONTENT_TYPE_LATEST, metrics.text()),
        "/healthz": lambda: _verdict(True, health()),
        "/readyz": lambda: _verdict(health().ready, health()),
    }


def _verdict(good: bool, health: Health) -> Page:
    body = "".join(f"{line}\n" for line in ("ok" if good else "not ok", *health.details))
    return Page(200 if good else 503, "text/plain; charset=utf-8", body.encode())
