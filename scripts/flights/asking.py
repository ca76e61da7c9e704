"""What the demo asks over HTTP, as any program may: of the query service, and of the model server itself."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from scripts.flights.ending import DemoFailed
from scripts.flights.model import MODEL

Route = tuple[str, str]
"""Origin and destination."""

Columns = Mapping[str, Sequence[Any]]

_PATIENCE = aiohttp.ClientTimeout(total=30)
_QUOTED = 300
_BUSY, _TRIES, _PAUSE = 503, 5, 1.0


def columns(routes: Sequence[Route]) -> dict[str, list[str]]:
    """Routes as the entities of a request."""
    return {"origin": [origin for origin, _ in routes], "dest": [dest for _, dest in routes]}


class Asking:
    """Asks the query service at a URL; `close` it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = aiohttp.ClientSession(timeout=_PATIENCE)

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    async def features(self, names: Sequence[str], routes: Sequence[Route], **more: object) -> Any:
        """The answer of POST /v1/features. more: other words of the request, as `after`."""
        asked = {"features": list(names), "entities": columns(routes), **more}
        return await self.post(f"{self.url}/v1/features", asked)

    async def predictions(self, routes: Sequence[Route]) -> list[Any]:
        """What /v1/predictions says of each route; a read has stale ones computed."""
        if not routes:
            return []
        answer = await self.post(f"{self.url}/v1/predictions", {"model": MODEL, "entities": columns(routes)})
        return list(answer["predictions"])

    async def push(self, view: str, rows: Sequence[Mapping[str, object]], mode: str) -> Any:
        """The answer of POST /v1/push."""
        return await self.post(f"{self.url}/v1/push", {"view": view, "rows": list(rows), "mode": mode})

    async def post(self, url: str, body: object) -> Any:
        """The answer to a request, which is JSON. Raises DemoFailed where it is none, or an error.

        Asks again after a 503, as that wants: the machine is busy with all of the demo at once.
        """
        try:
            for _ in range(_TRIES):
                async with self._session.post(url, json=body) as answer:
                    if answer.status in (200, 202):
                        return await answer.json()
                    status, text = answer.status, await answer.text()
                if status != _BUSY:
                    break
                await asyncio.sleep(_PAUSE)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise DemoFailed(f"{url} gives no answer: {error!r}") from error
        raise DemoFailed(f"{url} answered {status}: {text[:_QUOTED]}")
