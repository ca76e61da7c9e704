"""The commit chain: which offsets of a Kafka partition are at rest, in which files, and what became of every one.

    <root>/_chain/<topic>@<incarnation>/topic.json                            which Kafka topic this incarnation is
    <root>/_chain/<topic>@<incarnation>/<partition>/genesis.json              where the chain begins
    <root>/_chain/<topic>@<incarnation>/<partition>/<start, 20 digits>.json   one link: the offsets [start, end)

Every object is created once, create-only, and never changed. The first link starts at genesis' start, every other at
its predecessor's end; so of any number of writers exactly one can extend a chain. Everybody walks from genesis; what
the walk does not reach does not exist. Each link holds the SHA-256 of its predecessor's bytes, so that no object can be
altered unseen but the last one. `docs/reference/chain.md` describes the format for other languages; this module is the
only code that reads or writes it.
"""

import concurrent.futures
import dataclasses
import datetime
import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from stillwell.counting import counted
from stillwell.errors import ChainError, NotFound
from stillwell.storage import ObjectStore

ROOT: Final = "_chain/"
"""Below it are all chains, and nothing else."""

_FORMAT: Final = 1
_READ_THREADS = 16
_READ_AHEAD = 256

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things, or an offset."""


class PartitionId(msgspec.Struct, frozen=True, order=True):
    """One partition of one incarnation of a topic: what a chain belongs to."""

    topic: str
    incarnation: Annotated[int, msgspec.Meta(ge=1)]
    partition: Count

    @property
    def folder(self) -> str:
        """Where the chain's objects are, ending in a slash."""
        return f"{incarnation_folder(self.topic, self.incarnation)}{self.partition}/"

    @property
    def genesis_path(self) -> str:
        """Where genesis is."""
        return f"{self.folder}genesis.json"

    def link_path(self, start: int) -> str:
        """Where the link that begins at an offset is."""
        return f"{self.folder}{start:020d}.json"

    def __str__(self) -> str:
        return f"{self.topic}@{self.incarnation}-{self.partition}"


class ChainObject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the objects of a chain have in common: a version of the format, and when they were made (UTC)."""

    format: Literal[1] = _FORMAT
    created_at: datetime.datetime

    def __post_init__(self) -> None:
        """Raises ValueError for a time that is not in UTC: it would give other bytes for the same instant."""
        _check_utc("created_at", self.created_at)


class TopicIncarnation(ChainObject, frozen=True, kw_only=True, tag="topic"):
    """Binds an incarnation, a counter of ours, to one Kafka topic.

    A topic that was deleted and made anew has another topic_id and begins again at offset 0, so it gets the next
    incarnation. partitions: how many there were when this was written; those added later begin at offset 0 whatever
    the definition's `start` says. start: where the first of them begin.
    """

    topic: str
    incarnation: Annotated[int, msgspec.Meta(ge=1)]
    topic_id: str
    partitions: Count
    start: Literal["earliest", "latest"]

    @property
    def path(self) -> str:
        """Where this object is."""
        return topic_path(self.topic, self.incarnation)


class Genesis(ChainObject, frozen=True, kw_only=True, tag="genesis"):
    """Where a chain begins, and of which Kafka topic its offsets are."""

    id: PartitionId
    start: Count
    topic_id: str

    @property
    def path(self) -> str:
        """Where this object is."""
        return self.id.genesis_path


class DataFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Parquet file: path below the root, size and checksum of its bytes, rows, and the event times that they span.

    Event times are microseconds since the epoch, both ends inclusive; None in the raw archive, which knows none.
    """

    path: str
    size: Count
    sha256: str
    rows: Count
    first_event_time: int | None = None
    last_event_time: int | None = None


class ViewAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of a link's records in one version of one view.

    Each record counts once: it gave rows, was filtered (by `where`, or a `@rows` function gave none), or was rejected.
    file is None where there are no rows.
    """

    view: str
    version: Count
    offsets_with_rows: Count
    filtered: Count
    rejected: Count
    rows: Count
    file: DataFile | None


class Link(ChainObject, frozen=True, kw_only=True, tag="link"):
    """One link: the offsets [start, end) are at rest.

    An `expired` link covers offsets that retention took before anybody read them: no files, no accounts. nonce is the
    writer's own name for this span, never used again; it is in its files' names, so that no file can be in two links.
    records + gaps = end - start, and in each account offsets_with_rows + filtered + rejected = records. epoch and
    replication_id tell which state of Redis acknowledged the rows. previous is the SHA-256 of the bytes of the link
    before, or of genesis.
    """

    id: PartitionId
    start: Count
    end: Count
    nonce: str
    previous: str
    expired: bool = False
    records: Count = 0
    gaps: Count = 0
    raw: DataFile | None = None
    views: tuple[ViewAccount, ...] = ()
    epoch: str = ""
    replication_id: str = ""
    opened_at: datetime.datetime
    writer: str

    def __post_init__(self) -> None:
        """Raises ValueError for a time that is not in UTC."""
        _check_utc("created_at", self.created_at)
        _check_utc("opened_at", self.opened_at)

    @property
    def path(self) -> str:
        """Where this object is."""
        return self.id.link_path(self.start)

    @property
    def files(self) -> tuple[DataFile, ...]:
        """Every file of this link, the raw archive's first."""
        of_views = tuple(account.file for account in self.views if account.file)
        return (self.raw, *of_views) if self.raw else of_views


@dataclasses.dataclass(frozen=True, slots=True)
class ChainEnd:
    """The place where the next link goes: its start, and the digest of the object before it."""

    offset: int
    digest: str


_Placed = TypeVar("_Placed", TopicIncarnation, Genesis, Link)


def incarnation_folder(topic: str, incarnation: int) -> str:
    """Where the chains of one incarnation are, ending in a slash."""
    return f"{ROOT}{topic}@{incarnation}/"


def topic_path(topic: str, incarnation: int) -> str:
    """Where the object is that says which Kafka topic an incarnation is."""
    return f"{incarnation_folder(topic, incarnation)}topic.json"


def view_dataset(view: str) -> str:
    """The dataset that holds the rows of all versions of a view."""
    return f"views/{view}"


def raw_dataset(topic: str) -> str:
    """The dataset that holds a topic's records as they came."""
    return f"raw/{topic}"


def data_path(dataset: str, day: datetime.date, id: PartitionId, start: int, end: int, nonce: str) -> str:
    """The name of a span's file in a dataset; day is the one on which the span was opened (UTC)."""
    return f"{dataset}/dt={day.isoformat()}/{id}-{start}-{end}-{nonce}.parquet"


@dataclasses.dataclass(frozen=True, slots=True)
class SpanName:
    """What the name of a span's file tells: whose records, the offsets [start, end), and the span's nonce."""

    id: PartitionId
    start: int
    end: int
    nonce: str


_DATA_PATH = re.compile(
    r"(?P<dataset>(?:views|raw)/[^/]+)/dt=(?P<day>\d{4}-\d\d-\d\d)/(?P<topic>[^/@]+)@(?P<incarnation>\d+)"
    r"-(?P<partition>\d+)-(?P<start>\d+)-(?P<end>\d+)-(?P<nonce>[0-9a-z]+)\.parquet"
)


def span_name(path: str) -> SpanName | None:
    """What a path that `data_path` has given tells; None for any other."""
    found = _DATA_PATH.fullmatch(path)
    if found is None or int(found["incarnation"]) < 1:
        return None
    id = PartitionId(found["topic"], int(found["incarnation"]), int(found["partition"]))
    name = SpanName(id, int(found["start"]), int(found["end"]), found["nonce"])
    same = f"{found['dataset']}/dt={found['day']}/{id}-{name.start}-{name.end}-{name.nonce}.parquet"
    return name if path == same else None


def digest(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def encode(value: ChainObject) -> bytes:
    """Canonical JSON: keys sorted, no spaces, UTF-8; equal values give equal bytes."""
    return msgspec.json.encode(value, order="sorted")


def decode_topic(data: bytes, path: str) -> TopicIncarnation:
    """Raises ChainError for anything but a topic's incarnation that belongs at this path."""
    return _decode(data, path, _TOPIC)


def decode_genesis(data: bytes, path: str) -> Genesis:
    """Raises ChainError for anything but a genesis that belongs at this path."""
    return _decode(data, path, _GENESIS)


def decode_link(data: bytes, path: str) -> Link:
    """Raises ChainError for anything but a link that belongs at this path, adds up, and names files of its own."""
    link = _decode(data, path, _LINK)
    for broken in itertools.chain(_broken_sums(link), _wrong_files(link)):
        raise ChainError(f"{path}: {broken}")
    return link


def newest_incarnation(store: ObjectStore, topic: str) -> TopicIncarnation | None:
    """The incarnation of a topic with the highest number, or None for a topic that was never read here."""
    newest = None
    for number in itertools.count(1):
        path = topic_path(topic, number)
        try:
            newest = decode_topic(store.read(path), path)
        except NotFound:
            break
    return newest


def partitions(store: ObjectStore) -> list[PartitionId]:
    """Every partition that has an object of a chain, be it genesis or not, in order.

    Raises ChainError for an object in a place where no chain has one.
    """
    return sorted({_partition_of(path) for path in store.list(ROOT) if not path.endswith("/topic.json")})


def has_links(store: ObjectStore) -> bool:
    """Whether there is any link below this root."""
    return any(not path.endswith(("/genesis.json", "/topic.json")) for path in store.list(ROOT))


def read_file(store: ObjectStore, file: DataFile) -> bytes:
    """The bytes of a linked file. Raises ChainError when they are missing or not those that were linked."""
    try:
        data = store.read(file.path)
    except NotFound as error:
        raise ChainError(f"{file.path}: is linked, but missing") from error
    if (len(data), digest(data)) != (file.size, file.sha256):
        raise ChainError(f"{file.path}: has been altered: its bytes are not those that were linked")
    return data


def walk(store: ObjectStore, id: PartitionId) -> tuple[Genesis, Iterator[Link]]:
    """Genesis, and every link that can be reached from it, in order.

    Raises NotFound where there is no genesis. The iterator raises ChainError at an object that is damaged or does not
    follow from its predecessor, and StoreUnavailable.
    """
    data = store.read(id.genesis_path)
    genesis = decode_genesis(data, id.genesis_path)
    return genesis, walk_from(store, id, ChainEnd(genesis.start, digest(data)))


def walk_from(store: ObjectStore, id: PartitionId, at: ChainEnd) -> Iterator[Link]:
    """The links from a place that is known to be on the chain, read many at a time; raises as `walk` does."""
    listed = [path for path in store.list(id.folder) if path >= id.link_path(at.offset) and path != id.genesis_path]
    with concurrent.futures.ThreadPoolExecutor(_READ_THREADS) as threads:
        for first in range(0, len(listed), _READ_AHEAD):
            chunk = listed[first : first + _READ_AHEAD]
            for path, data in zip(chunk, threads.map(lambda path: _read(store, path), chunk), strict=True):
                if path == id.link_path(at.offset):
                    if data is None:
                        raise ChainError(f"{path}: was there a moment ago, now it is gone; somebody has removed it")
                    link, at = _follow(data, path, at)
                    yield link
    yield from follow(store, id, at)  # what was linked since the listing


def follow(store: ObjectStore, id: PartitionId, at: ChainEnd) -> Iterator[Link]:
    """The links from a place that is known to be on the chain, read one by one: for a short way; raises as `walk`."""
    while True:
        path = id.link_path(at.offset)
        data = _read(store, path)
        if data is None:
            return
        link, at = _follow(data, path, at)
        yield link


def end_at(link: Link) -> ChainEnd:
    """The place behind a link."""
    return ChainEnd(link.end, digest(encode(link)))


def _read(store: ObjectStore, path: str) -> bytes | None:
    try:
        return store.read(path)
    except NotFound:
        return None


def _partition_of(path: str) -> PartitionId:
    folder, _, _ = path.rpartition("/")
    incarnation, _, partition = folder.removeprefix(ROOT).partition("/")
    topic, _, number = incarnation.rpartition("@")
    try:
        id = PartitionId(topic, int(number), int(partition))
    except ValueError:
        id = None
    if id is None or f"{folder}/" != id.folder:
        raise ChainError(f"{path}: no chain has an object in this place, something other than Stillwell wrote it")
    return id


def _follow(data: bytes, path: str, at: ChainEnd) -> tuple[Link, ChainEnd]:
    link = decode_link(data, path)
    if link.previous != at.digest:
        raise ChainError(f"{path}: does not follow from the object before it, one of the two has been altered")
    return link, ChainEnd(link.end, digest(data))


def _decode(data: bytes, path: str, decoder: msgspec.json.Decoder[_Placed]) -> _Placed:
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        newer = _format_of(data)
        if newer > _FORMAT:
            raise ChainError(
                f"{path}: is of format {newer}, this version of Stillwell reads {_FORMAT}: upgrade"
            ) from None
        raise ChainError(f"{path}: not a {decoder.type.__name__} of format {_FORMAT}: {error}") from error
    if value.path != path:
        raise ChainError(f"{path}: holds what belongs at {value.path}")
    if encode(value) != data:
        raise ChainError(f"{path}: is not in canonical form, something other than Stillwell wrote it")
    return value


class _Format(msgspec.Struct):
    format: int = 0


# Made here, once: msgspec 0.22 reads a struct's fields when it first needs them, and crashes the process where two
# threads do so at the same time. `msgspec.json.decode(…, type=…)` is that first need.
_TOPIC = msgspec.json.Decoder(TopicIncarnation)
_GENESIS = msgspec.json.Decoder(Genesis)
_LINK = msgspec.json.Decoder(Link)
_FORMATS = msgspec.json.Decoder(_Format)


def _format_of(data: bytes) -> int:
    """The format that an object claims to be of, or 0."""
    try:
        return _FORMATS.decode(data).format
    except (msgspec.DecodeError, RecursionError):
        return 0


def _check_utc(name: str, at: datetime.datetime) -> None:
    if at.utcoffset() != datetime.timedelta(0):
        raise ValueError(f"{name} is {at.isoformat()}, it has to be in UTC")


def _broken_sums(link: Link) -> Iterator[str]:
    if link.end <= link.start:
        yield f"ends at {link.end}, which is not after its start"
    if link.expired:
        if link.files or link.views or link.records or link.gaps:
            yield "is expired, but claims records"
        return
    if link.records + link.gaps != link.end - link.start:
        made = f"{counted(link.records, 'record')} + {counted(link.gaps, 'gap')}"
        yield f"{made} do not make {counted(link.end - link.start, 'offset')}"
    yield from _broken_file("the raw archive", link.raw, link.records)
    for view in link.views:
        what = f"{view.view} version {view.version}"
        if view.offsets_with_rows + view.filtered + view.rejected != link.records:
            yield (
                f"{what}: {view.offsets_with_rows} with rows + {view.filtered} filtered + {view.rejected} rejected "
                f"do not make {counted(link.records, 'record')}"
            )
        if view.rows < view.offsets_with_rows or (view.rows > 0) != (view.offsets_with_rows > 0):
            with_rows = counted(view.offsets_with_rows, "record")
            yield f"{what}: {with_rows} cannot give {counted(view.rows, 'row')}"
        yield from _broken_file(what, view.file, view.rows)
        if view.file and (view.file.first_event_time is None or view.file.last_event_time is None):
            yield f"{what}: its file does not say which event times it spans"


def _broken_file(what: str, file: DataFile | None, rows: int) -> Iterator[str]:
    if file is None and rows:
        yield f"{what}: {counted(rows, 'row')}, but no file"
    elif file and (file.rows != rows or not rows):
        yield f"{what}: its file has {file.rows} of {counted(rows, 'row')}"


def _wrong_files(link: Link) -> Iterator[str]:
    """A file's name is that of its dataset and its link: so a link cannot claim another's file, nor one file twice."""
    of_views = ((view_dataset(account.view), account.file) for account in link.views)
    for dataset, file in ((raw_dataset(link.id.topic), link.raw), *of_views):
        if file:
            own = data_path(dataset, link.opened_at.date(), link.id, link.start, link.end, link.nonce)
            if file.path != own:
                yield f"names the file {file.path}, where its own is {own}"
    versions = [(account.view, account.version) for account in link.views]
    if len(set(versions)) < len(versions) or len({file.path for file in link.files}) < len(link.files):
        yield "accounts for the same records of a view twice"
