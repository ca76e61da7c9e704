"""What the worker needs of the world, as narrow protocols. The real ones are put together in `streams/app.py`; their
twins are in `stillwell.testing` and pass the same contract suites."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import pyarrow as pa

from stillwell.layout.chain import DataFile, Genesis, Link, PartitionId, TopicIncarnation
from stillwell.layout.online import Applied, EncodedRows, MarkKey, MarkMove, OnlineServer, OnlineState
from stillwell.layout.parquet import BatchTables
from stillwell.predictions.hint import Hint
from stillwell.predictions.store import Readers
from stillwell.records import Outcome
from stillwell.spec import ViewSpec

_T = TypeVar("_T")
_Open = TypeVar("_Open", bound="OpenSpan")
_Uploaded = TypeVar("_Uploaded", bound="UploadedSpan")


class Threads(Protocol):
    """Runs blocking calls off the event loop."""

    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """What `work` returns or raises."""


class DeadLetters(Protocol):
    """Where rejected records go."""

    async def send(self, outcome: Outcome, incarnation: int) -> None:
        """Keep every reject of a batch, with its record. Repeating a call repeats them; readers tell by coordinates.

        incarnation: of the topic that the batch is of. Raises StoreUnavailable or OutcomeUnknown.
        """


class RefreshTopic(Protocol):
    """Where it is asked for that predictions are computed again."""

    async def send(self, hints: Sequence[Hint]) -> None:
        """Keep these hints. Repeating a call repeats them, which is harmless.

        Raises StoreUnavailable or OutcomeUnknown.
        """


class ReaderLists(Protocol):
    """Which predictions read rows through aliases."""

    async def readers(self, places: Sequence[bytes], each: int, most: int, epoch: bytes) -> Readers:
        """See `stillwell.predictions.store.PredictionStore`."""


class OnlineStore(Protocol):
    """The newest row of every entity and view. Every write is harmless to repeat.

    All raise StoreUnavailable or OutcomeUnknown when there is no clear answer, and StoreNotReady when the store may
    have lost data or is of another epoch.
    """

    async def apply(self, rows: Sequence[EncodedRows], moves: Sequence[MarkMove], epoch: str) -> Applied:
        """Write each row that is newer than the one in its place; then, on the same server, raise each mark to the end
        of its move, if it stands within the move."""

    async def set_marks(self, moves: Sequence[MarkMove], epoch: str) -> None:
        """Create the marks that are absent, at the start of their moves."""

    async def read_marks(self, marks: Sequence[MarkKey]) -> list[int | None]:
        """Where each mark stands; None for one that is absent."""

    async def read_state(self) -> OnlineState:
        """Which epoch is in force (None: not ready), and which server answers."""

    async def read_server(self) -> OnlineServer:
        """What the server says of itself."""

    async def initialise(self, epoch: str) -> str:
        """Make an empty store ready, if nobody did; returns the epoch in force."""


class OpenSpan(Protocol):
    """A span being filled."""

    @property
    def end(self) -> int:
        """The offset behind its last one."""

    @property
    def records(self) -> int:
        """How many records it holds."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""

    def add(self, batch: BatchTables) -> None:
        """Take the batch that begins at `end`. Blocks while it compresses: call it in a thread."""


class UploadedSpan(Protocol):
    """A span whose files are all in the store."""

    @property
    def start(self) -> int:
        """Its first offset."""

    @property
    def end(self) -> int:
        """The offset behind its last one."""

    @property
    def nonce(self) -> str:
        """Its own name, never used for another."""

    @property
    def records(self) -> int:
        """How many records it holds."""


class PartitionArchive(Protocol[_Open, _Uploaded]):
    """One partition's files and chain. Waits for the store for as long as it takes.

    Takes back its own spans alone: those that it opened, then those that it uploaded.
    """

    @property
    def id(self) -> PartitionId:
        """Which partition."""

    @property
    def end(self) -> int:
        """Where the next link begins; known after `find_end`."""

    async def find_end(self, hint: tuple[int, str] | None) -> tuple[Genesis, Link | None] | None:
        """Walk to the chain's end; genesis and the last link, or None where there is no genesis yet."""

    async def begin(self, start: int, topic_id: str) -> None:
        """Propose genesis; whoever wins, `find_end` finds it next."""

    async def expire(self, until: int) -> bool:
        """Cover the offsets that retention took, from the chain's end on. False: another writer was faster."""

    async def debut(self, view: str, version: int) -> int:
        """The offset before which no link lists a version of a view; for one that is in none, the chain's end."""

    async def registered(self, view: str, version: int) -> ViewSpec | None:
        """A version's keys, features and TTL as they are registered, whether it runs or not."""

    def links_from_end(self) -> AsyncGenerator[Link, None]:
        """The links from the chain's end back to genesis; what is not asked for is not read."""

    async def read_rows(self, file: DataFile) -> pa.Table:
        """All rows of a linked file."""

    def open_span(self, start: int) -> _Open:
        """A span to be filled from an offset on."""

    async def upload(self, span: _Open, at_leisure: bool) -> _Uploaded:
        """Create the span's files. at_leisure: nobody waits for them, while batches come."""

    async def is_superseded(self) -> bool:
        """Whether the topic is read under another incarnation by now."""

    async def link(self, span: _Uploaded, epoch: str, replication_id: str) -> bool:
        """Put the span on the chain. False: another writer's link has its place."""


class Archive(Protocol):
    """The offline store."""

    async def incarnation(self, topic: str) -> TopicIncarnation | None:
        """The newest incarnation of a topic, or None for one that was never read."""

    async def open_incarnation(
        self, topic: str, incarnation: int, topic_id: str, partitions: int, start: Literal["earliest", "latest"]
    ) -> TopicIncarnation:
        """Propose an incarnation; returns the one in force."""

    async def has_links(self) -> bool:
        """Whether any partition was ever linked here."""

    def partition(self, id: PartitionId, views: Sequence[ViewSpec]) -> PartitionArchive[Any, Any]:
        """One partition's side of it. What its spans are is between it and itself."""
