"""What the service says of itself: to probes, and to whoever collects metrics."""

from collections.abc import Callable, Sequence

from serving import described, metrics, v1
from serving.as_json import encode
from serving.features import Features
from serving.messages import Reply, Request
from serving.openapi import Names, document
from serving.processes.siblings import Siblings
from serving.web import Page
from stillwell.errors import StoreUnavailable


class StatusPages:
    """Alive, ready, and in numbers."""

    def __init__(self, features: Features, siblings: Siblings, metrics_type: str, ending: Callable[[], bool]) -> None:
        """metrics_type: the content type of the page of metrics. ending: whether the service has been told to end."""
        self._features = features
        self._siblings = siblings
        self._type = metrics_type
        self._ending = ending

    def pages(self) -> list[Page]:
        """For a site."""
        alive = described.state("alive", "Whether the process answers", 422, 500)
        ready = described.state("ready", "Whether it is to get requests", 422, 500, 503)
        numbers = described.text("metrics", "Metrics of all processes")
        return [
            Page("GET", "/healthz", self._alive, v1.error_body, vital=True, described=alive),
            Page("GET", "/readyz", self._ready, v1.error_body, vital=True, described=ready),
            Page("GET", "/metrics", self._metrics, v1.error_body, words=None, vital=True, described=numbers),
        ]

    async def _alive(self, request: Request) -> bytes:
        """200 for as long as the process answers."""
        return encode({"status": "alive"})

    async def _ready(self, request: Request) -> bytes:
        """200 where it is to get requests: features can be read, and it has not been told to end."""
        if self._ending():
            raise StoreUnavailable("the service has been told to end")
        await self._features.check()
        return encode({"status": "ready"})

    async def _metrics(self, request: Request) -> Reply:
        """Those of all processes of the service."""
        return Reply(metrics.page(await self._siblings.snapshots()), type=self._type)


def openapi_page(pages: Sequence[Page], names: Names) -> Page:
    """The document of these pages, and of its own."""

    async def answer(request: Request) -> bytes:
        return written

    page = Page("GET", "/openapi.json", answer, v1.error_body, described=described.itself())
    written = encode(document([*pages, page], described.schemas(names)))
    return page
