"""The paths by which rows are pushed: our own, and Feast's."""

from serving import described, feast, v1
from serving.as_json import encode
from serving.messages import Reply, Request
from serving.metrics import PUSHED, Metrics
from serving.openapi import ANYTHING, Names
from serving.pages import decoded
from serving.pushing import bodies
from serving.pushing.batch import Push
from serving.pushing.bodies import Mode
from serving.pushing.pusher import Pusher, Written
from serving.pushing.repeated import Repeated
from serving.web import Page
from stillwell.errors import NotDefined
from stillwell.pushing.status import PushStatus

_ACCEPTED = 202


class NoPushPages:
    """In their place where the settings have nothing pushed: says so. The OpenAPI document does not speak of it."""

    def pages(self) -> list[Page]:
        """For a site."""
        return [
            Page("POST", path, self._none, error_body, words=None)
            for path, error_body in (
                ("/v1/push", v1.error_body),
                ("/push", feast.error_body),
                ("/write-to-online-store", feast.error_body),
            )
        ]

    async def _none(self, request: Request) -> bytes:
        raise NotDefined(
            "path",
            f"{request.path} takes nothing here: STILLWELL_PUSH is false, as it is beside a `stillwell dev` over a "
            "Kafka of yours. Set it to true, run `stillwell topics create`, and start workers and this service anew",
        )


class PushPages:
    """POST /v1/push, /push and /write-to-online-store."""

    def __init__(
        self,
        pusher: Pusher,
        repeated: Repeated,
        most_rows: int,
        metrics: Metrics | None = None,
        names: Names = ANYTHING,
    ) -> None:
        """most_rows: of one push. names: what the OpenAPI document is to say that there is."""
        self._pusher = pusher
        self._repeated = repeated
        self._most_rows = most_rows
        self._metrics = metrics or Metrics()
        self._metrics.begin(PUSHED, pusher.views, [status.value for status in PushStatus])
        self._names = names
        self._columns: dict[str, bodies.RowColumns] = {}
        """By view: there are no more than those that are defined."""

    def pages(self) -> list[Page]:
        """For a site."""
        push, feast_push = described.push(self._names), described.feast_push(self._names)
        feast_write = described.feast_write(self._names)
        return [
            Page("POST", "/v1/push", self._push, v1.error_body, described=push),
            Page("POST", "/push", self._feast_push, feast.error_body, described=feast_push),
            Page("POST", "/write-to-online-store", self._feast_write, feast.error_body, described=feast_write),
        ]

    async def _push(self, request: Request) -> Reply:
        asked = decoded(bodies.push_request, request.body)
        self._pusher.view(asked.view)
        return await self._once(bodies.own(asked, self._most_rows), asked.mode, request.body)

    async def _feast_push(self, request: Request) -> Reply:
        asked = decoded(bodies.feast_push_request, request.body)
        columns = self._columns_of(asked.push_source_name, "push_source_name")
        return await self._once(bodies.of_feast(asked, columns, self._most_rows), asked.mode, request.body)

    async def _feast_write(self, request: Request) -> Reply:
        asked = decoded(bodies.feast_write_request, request.body)
        columns = self._columns_of(asked.feature_view_name, "feature_view_name")
        await self._carry_out(bodies.written_by_feast(asked, columns, self._most_rows), "sync")
        return Reply(encode(None))

    def _columns_of(self, name: str, field: str) -> bodies.RowColumns:
        """What rows of a view may have. field: what a request calls it. Raises NotDefined."""
        view = self._pusher.view(name, field).view
        columns = self._columns.get(view.name)
        if columns is None:
            columns = self._columns[view.name] = bodies.RowColumns.of(view)
        return columns

    async def _once(self, push: Push, mode: Mode, asked: bytes) -> Reply:
        """The answer to a push: that which it had, if it comes again under its idempotency key."""
        if push.idempotency_key is None:
            status, body = await self._carry_out(push, mode)
            return Reply(body, status)
        kept = await self._repeated.answer(push.view, push.idempotency_key, asked, lambda: self._carry_out(push, mode))
        return Reply(kept.body, kept.status)

    async def _carry_out(self, push: Push, mode: Mode) -> tuple[int, bytes]:
        if mode == "async":
            written = await self._pusher.append(push)
            self._metrics.count(PUSHED, len(push.values), push.view, PushStatus.ACCEPTED.value)
            return _ACCEPTED, _accepted(written, len(push.values))
        written = await self._pusher.write(push)
        self._count(push, written)
        return 200, _done(written)

    def _count(self, push: Push, written: Written) -> None:
        for status in set(written.statuses):
            self._metrics.count(PUSHED, written.statuses.count(status), push.view, status.value)


def _accepted(written: Written, rows: int) -> bytes:
    """Of rows that Kafka has acknowledged."""
    return encode({"token": _token(written), "accepted": rows})


def _done(written: Written) -> bytes:
    """Of rows that were written to Redis, or are the reason why not."""
    rejects = [{"row": each.row, "reason": each.reason, "message": each.error} for each in written.refusals]
    return encode({"token": _token(written), "statuses": written.statuses, "rejects": rejects})


def _token(written: Written) -> str | None:
    return str(written.token) if written.token else None
