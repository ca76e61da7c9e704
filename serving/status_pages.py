"""What the service says of itself: to probes, and to whoever collects metrics."""

from collections.abc import Callable

from serving import metrics, v1
from serving.answers import encode
from serving.pages import Features
from serving.siblings import Siblings
from serving.web import Page, Reply, Request
from stillwell.errors import StoreUnavailable


class StatusPages:
    """Alive, ready, and in numbers."""

    def __init__(self, features: Features, siblings: Siblings, metrics_type: str) -> None:
        """metrics_type: the content type of the page of metrics."""
        self._features = features
        self._siblings = siblings
        self._type = metrics_type
        self.ending: Callable[[], bool] = lambda: False
        """Whether the service has been told to end."""

    def pages(self) -> list[Page]:
        """For a site."""
        return [
            Page("GET", "/healthz", self._alive, v1.error_body, vital=True),
            Page("GET", "/readyz", self._ready, v1.error_body, vital=True),
            Page("GET", "/metrics", self._metrics, v1.error_body, words=None, vital=True),
        ]

    async def _alive(self, request: Request) -> bytes:
        """200 for as long as the process answers."""
        return encode({"status": "alive"})

    async def _ready(self, request: Request) -> bytes:
        """200 where it is to get requests: features can be read, and it has not been told to end."""
        if self.ending():
            raise StoreUnavailable("the service has been told to end")
        await self._features.check()
        return encode({"status": "ready"})

    async def _metrics(self, request: Request) -> Reply:
        """Those of all processes of the service."""
        return Reply(metrics.page(await self._siblings.snapshots()), type=self._type)
