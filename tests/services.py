"""Services that only the tests need: a fake of Google Cloud Storage, and a proxy that breaks connections on cue."""

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwell.local import Part, free_port

TOOLS = Path(os.environ.get("STILLWELL_TOOLS") or Path(__file__).parent.parent / ".tools")
"""Where `scripts/test` builds the tools that are written in Go."""

Json = dict[str, object]


def tool(name: str) -> str:
    """The path of a tool. Where it was not built the test is skipped, which in CI is a failure."""
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{path} is missing: install Go and run scripts/test, which builds it")
    return str(path)


class FakeGcs(Part):
    """fake-gcs-server with its objects in memory.

    It names its own address in the answers that begin a resumable upload. proxied_port: the port of a proxy to name
    there instead, so that an upload does not go round it.
    """

    def __init__(self, folder: Path, *, proxied_port: int | None = None) -> None:
        super().__init__("fake-gcs-server", folder)
        self._proxied_port = proxied_port

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """What STORAGE_EMULATOR_HOST has to say: the proxy's address, if there is one."""
        return f"http://127.0.0.1:{self._proxied_port or self.port}"

    def answers(self) -> bool:
        """Whether it lists its buckets."""
        return _answers(f"http://{self.address}/storage/v1/b?project=tests")

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        _call("POST", f"http://{self.address}/storage/v1/b?project=tests", {"name": name})

    def _prepare(self) -> list[str]:
        options = {
            "backend": "memory",
            "scheme": "http",
            "host": "127.0.0.1",
            "port": str(self.port),
            "public-host": self.address,
            "external-url": self.endpoint,
            "log-level": "warn",
        }
        return [tool("fake-gcs-server"), *(word for name, value in options.items() for word in (f"-{name}", value))]


class Toxiproxy(Part):
    """A toxiproxy server, to be told over its own HTTP interface what to do to whose connections."""

    def __init__(self, folder: Path) -> None:
        super().__init__("toxiproxy", folder)

    def answers(self) -> bool:
        """Whether it says its version."""
        return _answers(f"{self._api}/version")

    def create(self, upstream: str, *, port: int | None = None) -> "Proxy":
        """A proxy on 127.0.0.1 that leads to upstream (`host:port`), by default on a free port."""
        port = port or free_port()
        proxy = {"name": f"proxy-{port}", "listen": f"127.0.0.1:{port}", "upstream": upstream, "enabled": True}
        _call("POST", f"{self._api}/proxies", proxy)
        return Proxy(f"{self._api}/proxies/proxy-{port}", port)

    def _prepare(self) -> list[str]:
        return [tool("toxiproxy-server"), "-host", "127.0.0.1", "-port", str(self.port)]

    @property
    def _api(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Proxy:
    """One proxy. Its toxics: https://github.com/Shopify/toxiproxy#toxics."""

    def __init__(self, api: str, port: int) -> None:
        self._api = api
        self.port = port

    @property
    def address(self) -> str:
        """`host:port` that clients connect to."""
        return f"127.0.0.1:{self.port}"

    def down(self) -> None:
        """End all connections and refuse new ones."""
        _call("POST", self._api, {"enabled": False})

    def up(self) -> None:
        """Accept connections again."""
        _call("POST", self._api, {"enabled": True})

    def add_toxic(self, kind: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int) -> str:
        """Disturb what flows to the client ('downstream') or from it ('upstream'); gives the toxic's name.

        A `timeout` of 0 swallows all data and leaves connections open, as a lost network does.
        """
        name = f"{kind}-{stream}"
        toxic: Json = {"name": name, "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        _call("POST", f"{self._api}/toxics", toxic)
        return name

    def remove_toxic(self, name: str) -> None:
        """Let the data flow as before."""
        _call("DELETE", f"{self._api}/toxics/{name}")

    @contextlib.contextmanager
    def toxic(
        self, kind: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> Iterator[None]:
        """A toxic for the length of a `with`."""
        name = self.add_toxic(kind, stream=stream, toxicity=toxicity, **attributes)
        try:
            yield
        finally:
            self.remove_toxic(name)

    def delete(self) -> None:
        """End the proxy and its connections."""
        _call("DELETE", self._api)


def _call(method: str, url: str, body: Json | None = None) -> None:
    request = urllib.request.Request(url, method=method, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=10):
        pass


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
