"""Features for requests of any interface: a request's plan, its bounds, and what is found for it."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from serving.limits import Limits
from serving.lru import LruCache
from serving.metrics import ENTITIES, LATE_ROWS, LAYOUTS, OBJECTIVE_ROWS, VALUES, Metrics
from serving.openapi import Names
from stillwell.errors import FormatError, RequestError
from stillwell.layout.projection import UnknownLayout
from stillwell.predictions.columns import ModelReaders
from stillwell.reading import entities
from stillwell.reading.after import After, Marks
from stillwell.reading.catalog import Catalog
from stillwell.reading.entities import RequestColumns
from stillwell.reading.features import FeatureReader, Found
from stillwell.reading.known import Known
from stillwell.reading.plan import Plan
from stillwell.reading.provenance import by_digest
from stillwell.spec import DefinitionsSpec, ViewSpec

_log = structlog.get_logger(__name__)

MOST_PLANS = 1_000
"""Plans that are remembered. A plan of a hundred features is made in one to two milliseconds."""


class Features:
    """Reads features by the definitions, and by every version of them that is known."""

    def __init__(
        self,
        definitions: DefinitionsSpec,
        reader: FeatureReader,
        limits: Limits,
        metrics: Metrics | None = None,
        *,
        models: ModelReaders | None = None,
        marks: Marks | None = None,
        pushed: Iterable[str] = (),
        registered: Callable[[], Sequence[ViewSpec]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """models: what reads predictions, if there are models. marks: what reads wait for that come behind a push;
        without, they are refused. pushed: topics of pushes that rows may have been made from. registered: every
        registered version of views, if there is a registry; it may wait for a store, and is called in a thread. clock:
        the seconds that lie between two such calls are counted by it.
        """
        self._definitions = definitions
        self._reader = reader
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._models = models
        self._marks = marks
        self.topics: Mapping[bytes, str] = by_digest((*(topic.topic for topic in definitions.topics), *pushed))
        """Topics that rows may have been made from, by the digests that stand in their stamps."""
        self.known = Known(definitions, registered, self._know, met=self._met_unknown, looked=self._looked, clock=clock)
        """The versions of views, and where others are looked for."""
        self._plans: LruCache[Plan] = LruCache(MOST_PLANS)
        if marks:
            marks.late = self.known.begin
        self._metrics.begin_objectives(view.name for view in definitions.views if view.freshness)

    def _know(self, versions: Sequence[ViewSpec]) -> None:
        """Read rows of these versions too, in the place of those that were told before.

        Raises DefinitionError for two that share the id of their layouts by chance.
        """
        if self._models:
            self._models.know(versions)
        if self._marks:
            self._marks.know(versions)
        self._plans = LruCache(MOST_PLANS)

    @property
    def catalog(self) -> Catalog:
        """All that can be asked for."""
        return self.known.catalog

    @property
    def names(self) -> Names:
        """What requests may name."""
        return Names.of(self._definitions, self.catalog.keys, self._limits)

    def plan(self, references: Sequence[str]) -> Plan:
        """The plan for a list of features: each is made once, and of many the last ones used are kept.

        Raises RequestError.
        """
        if len(references) > self._limits.features:
            raise RequestError(
                "features", f"{len(references)} in one request; at most {self._limits.features} are allowed"
            )
        return self._plans.get(tuple(references), lambda: self.catalog.plan(references))

    def row_count(self, asked: RequestColumns) -> int:
        """How many entities a request has. Raises RequestError for too many, and columns of several lengths."""
        return entities.row_count(asked, self._limits.rows)

    async def find(self, plan: Plan, asked: RequestColumns) -> Found:
        """What a plan finds for the entities of a request. Raises RequestError, and what the reader raises."""
        rows, outputs = self.row_count(asked), len(plan.outputs)
        if rows * outputs > self._limits.values:
            raise entities.too_many_values(rows, outputs, self._limits.values)
        columns = entities.typed(plan, asked, self.catalog.keys)
        self._metrics.count(ENTITIES, rows)
        self._metrics.count(VALUES, rows * outputs)
        try:
            found = await self._reader.read(plan, columns)
        except UnknownLayout as error:
            # Not `Known.reading`: the plan was made before, and a read behind a token has waited with it.
            await self.known.learn(error, plan.catalog)
            found = await self._reader.read(self.plan([output.reference for output in plan.outputs]), columns)
        if plan.objectives:
            for view, rows, late in found.against_objectives():
                self._metrics.count(OBJECTIVE_ROWS, rows, view)
                self._metrics.count(LATE_ROWS, late, view)
        return found

    def _met_unknown(self) -> None:
        self._metrics.count(LAYOUTS)

    def _looked(self, came: int | Exception) -> None:
        if isinstance(came, FormatError):
            # The store answers: to wait for it, as the other line says, would be for ever.
            _log.warning(
                "rows of other versions cannot be read: the registry holds what is unknown here", error=str(came)
            )
        elif isinstance(came, Exception):
            _log.warning("rows of other versions cannot be read until the offline store can", error=str(came))
        else:
            _log.info("registered versions are known", versions=came)
        self._metrics.version_load(not isinstance(came, Exception))

    def find_after(
        self,
        plan: Plan,
        asked: RequestColumns,
        after: After | None,
        waits: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Awaitable[Found]:
        """The same, once what was pushed is there. waits: entered while it is waited for. Raises Behind where it is not
        there in time."""
        if after is None:
            return self.find(plan, asked)
        if self._marks is None:
            raise RequestError("after", "names what was pushed, and reads wait for no pushes here: leave it away")
        return self._marks.read_after(after, lambda: self.find(plan, asked), waits)

    async def check(self) -> None:
        """Raise what keeps features from being read."""
        await self._reader.check()
