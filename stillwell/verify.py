"""Proof that every offset consumed is at rest exactly once, or a list of what is wrong.

Reads every object of every chain (`stillwell.survey`) and every file that a link names. It trusts nothing that it can
count again: checksums are computed from bytes, accounts from rows, coverage from offsets. It needs the offline store
and nothing else.

One chain is held at a time, and of each of its links a few hundred bytes, for which every link is read twice; and the
name of every file until its link has been read.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwell import survey
from stillwell.counting import counted
from stillwell.errors import ChainError, FormatError, NotFound
from stillwell.layout import chain
from stillwell.layout.chain import DataFile, Link, PartitionId, ViewAccount
from stillwell.layout.parquet import EVENT_TIMESTAMP, RAW_SCHEMA, TO, TO_FIELD, TO_TYPE, event_time_range, read_table
from stillwell.progress import Advance, unseen
from stillwell.pushing import record
from stillwell.registry import registered
from stillwell.storage import ObjectStore
from stillwell.survey import Finding, KnownLink, Survey
from stillwell.threads import each_in_order
from stillwell.types import TIMESTAMP

_THREADS = 8

_ROW_SCHEMA = pa.schema(
    [
        *(field for field in RAW_SCHEMA if field.name.startswith("_")),
        pa.field(EVENT_TIMESTAMP, TIMESTAMP.arrow),
        pa.field("_row", pa.uint32()),
        pa.field("_version", pa.uint16()),
    ]
)
"""The columns that every view's files have, whatever its keys and features."""


@dataclasses.dataclass(slots=True)
class ViewTotals:
    """What became of a partition's records in one version of a view."""

    links: int = 0
    offsets_with_rows: int = 0
    filtered: int = 0
    rejected: int = 0
    rows: int = 0


@dataclasses.dataclass(slots=True)
class PartitionTotals:
    """One chain: offsets [start, end) = records + gaps + expired."""

    id: PartitionId
    start: int = 0
    end: int = 0
    links: int = 0
    files: int = 0
    size: int = 0
    records: int = 0
    gaps: int = 0
    expired: int = 0
    views: dict[tuple[str, int], ViewTotals] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Overlap:
    """Offsets [start, end) of one and the same partition in Kafka that are at rest under two incarnations.

    No fault: `topics adopt` reads a log anew that has lost its end.
    """

    earlier: PartitionId
    later: PartitionId
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The outcome. unlinked: files that no link names, left behind by crashes or on their way; nobody reads them."""

    partitions: tuple[PartitionTotals, ...]
    findings: tuple[Finding, ...]
    unlinked: tuple[str, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(store: ObjectStore, advance: Advance = unseen) -> Report:
    """Check everything below the store's root. Raises StoreUnavailable.

    advance: told of links.
    """
    # Listed before the chains: what is linked in the meantime must not look unlinked.
    unlinked = {*store.list("views/"), *store.list("raw/")}
    found = survey.folders(store)
    done = itertools.count(1)

    def linked(link: Link) -> None:
        unlinked.difference_update(file.path for file in link.files)
        at = next(done)
        advance(at, max(at, found.links))

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        chains = [_verify_chain(store, id, threads, linked) for id in found.partitions]
    findings = [Finding(path, "forged", "no chain has an object in this place") for path in found.strangers]
    findings += survey.incarnations(store, found, [each.found for each in chains])
    findings += itertools.chain.from_iterable(each.findings for each in chains)
    left = sorted(unlinked, key=lambda path: (path.startswith("raw/"), path))
    findings += _without_chains(left, found.partitions)
    overlaps = _overlaps(each.span for each in chains if each.span)
    return Report(tuple(each.totals for each in chains), tuple(findings), tuple(left), tuple(overlaps))


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """The offsets [start, end) of a Kafka topic's partition that are at rest under a chain."""

    id: PartitionId
    topic_id: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Chain:
    """What is kept of a chain once all its links have been read. found: the survey, without its links."""

    found: Survey
    totals: PartitionTotals
    findings: list[Finding]
    span: _Span | None


def _verify_chain(
    store: ObjectStore, id: PartitionId, threads: concurrent.futures.Executor, linked: Callable[[Link], None]
) -> _Chain:
    """Survey a chain, and check the files of its links; `linked` is told of each link."""
    found = survey.survey(store, id, lambda link: _has_its_files(store, link))
    totals, findings = _begun(found), list(found.findings)
    links = itertools.chain(found.links, found.behind)
    read = each_in_order(threads, functools.partial(_read_and_check, store, id), links)
    for number, (_, (link, wrong)) in enumerate(read):
        findings += wrong
        if link is not None:
            if number < len(found.links):
                _add(totals, link)
            linked(link)
    return _Chain(dataclasses.replace(found, links=(), behind=()), totals, findings, _span(found))


def _span(found: Survey) -> _Span | None:
    """What a walk from genesis reaches of offsets that were read; None if there is nothing."""
    read = [link for link in found.links if not link.expired]
    if not found.genesis or not read:
        return None
    return _Span(found.id, found.genesis.topic_id, read[0].start, read[-1].end)


def _overlaps(spans: Iterable[_Span]) -> Iterator[Overlap]:
    """Between chains of one partition whose geneses name the same Kafka topic."""
    of_kafka: dict[tuple[str, str, int], list[_Span]] = collections.defaultdict(list)
    for span in spans:
        of_kafka[span.id.topic, span.topic_id, span.id.partition].append(span)
    for chains in of_kafka.values():
        for earlier, later in itertools.combinations(sorted(chains, key=lambda span: span.id), 2):
            start, end = max(earlier.start, later.start), min(earlier.end, later.end)
            if start < end:
                yield Overlap(earlier.id, later.id, start, end)


def _without_chains(unlinked: Iterable[str], partitions: Iterable[PartitionId]) -> Iterator[Finding]:
    """A writer begins a chain before it creates any file: files of a partition without one say that it is gone."""
    named = {name.id for name in map(chain.span_name, unlinked) if name}
    for id in sorted(named - set(partitions)):
        yield Finding(id.genesis_path, "missing", "there are files of this partition, but nothing of its chain")


def _begun(found: Survey) -> PartitionTotals:
    """Totals before any link: of what a walk from genesis reaches, since nobody reads what lies behind a hole."""
    start = found.genesis.start if found.genesis else 0
    return PartitionTotals(found.id, start, start)


def _add(total: PartitionTotals, link: Link) -> None:
    total.end = link.end
    total.links += 1
    total.files += len(link.files)
    total.size += sum(file.size for file in link.files)
    total.records += link.records
    total.gaps += link.gaps
    total.expired += link.end - link.start if link.expired else 0
    for account in link.views:
        view = total.views.setdefault((account.view, account.version), ViewTotals())
        view.links += 1
        view.offsets_with_rows += account.offsets_with_rows
        view.filtered += account.filtered
        view.rejected += account.rejected
        view.rows += account.rows


def _has_its_files(store: ObjectStore, link: Link) -> bool:
    return bool(link.files) and not any(_check(store, link))


def _read_and_check(store: ObjectStore, id: PartitionId, known: KnownLink) -> tuple[Link | None, list[Finding]]:
    """A link and what is wrong with its files; None where it is no longer what it was when it was surveyed."""
    path = id.link_path(known.start)
    try:
        link = survey.read_again(store, id, known)
    except NotFound:
        return None, [Finding(path, "missing", "was there a moment ago, now it is gone; somebody has removed it")]
    except ChainError as error:
        return None, [Finding(path, "altered", str(error).removeprefix(f"{path}: "))]
    return link, list(_check(store, link))


def _check(store: ObjectStore, link: Link) -> Iterator[Finding]:
    """What is wrong with a link's files."""
    raw, archived = None, None
    if link.raw:
        raw, wrong = _read(store, link.raw, RAW_SCHEMA, link)
        yield from wrong
        if raw is not None:
            archived = _offsets(raw)
            yield from (Finding(link.raw.path, "broken", error) for error in _wrong_with_raw(raw, link))
    for account in link.views:
        if account.file:
            table, wrong = _read(store, account.file, _ROW_SCHEMA, link)
            yield from wrong
            if table is not None:
                errors = [*_wrong_with_rows(table, account, account.file, link, archived)]
                if TO in table.column_names:
                    errors += _wrong_with_to(table, raw)
                elif _is_pushed(store, link, account):
                    errors.append(f"does not have {TO}, though its rows were pushed")
                yield from (Finding(account.file.path, "broken", error) for error in errors)


def _read(store: ObjectStore, file: DataFile, columns: pa.Schema, link: Link) -> tuple[pa.Table | None, list[Finding]]:
    """A linked file's rows, or what is wrong with its bytes or columns."""
    try:
        data = store.read(file.path)
    except NotFound:
        return None, [Finding(file.path, "missing", f"is named by {link.path}, but is not there")]
    if len(data) != file.size or chain.digest(data) != file.sha256:
        return None, [Finding(file.path, "altered", f"its bytes are not those that {link.path} names")]
    try:
        table = read_table(data)
    except (pa.ArrowException, OSError) as error:
        return None, [Finding(file.path, "broken", f"is no Parquet file: {error}")]
    types = {field.name: field.type for field in table.schema}
    if lacks := [field.name for field in columns if types.get(field.name) != field.type]:
        return None, [Finding(file.path, "broken", f"does not have, or not in their types: {', '.join(lacks)}")]
    return table, []


def _wrong_with_raw(table: pa.Table, link: Link) -> Iterator[str]:
    yield from _wrong_with_coordinates(table, link)
    if table.num_rows != link.records:
        yield f"has {counted(table.num_rows, 'record')}, its link says {link.records}"
    if len(np.unique(_offsets(table))) != table.num_rows:
        yield "has an offset twice"


def _wrong_with_rows(
    table: pa.Table, account: ViewAccount, file: DataFile, link: Link, archived: npt.NDArray[np.int64] | None
) -> Iterator[str]:
    if not table.num_rows:
        yield f"has no rows, its link says {account.rows}"
        return
    yield from _wrong_with_coordinates(table, link)
    offsets = np.unique(_offsets(table))
    if table.num_rows != account.rows:
        yield f"has {counted(table.num_rows, 'row')}, its link says {account.rows}"
    if len(offsets) != account.offsets_with_rows:
        yield f"has rows of {counted(len(offsets), 'offset')}, its link says {account.offsets_with_rows}"
    if archived is not None and not np.isin(offsets, archived).all():
        yield "has rows of offsets that the raw archive does not hold"
    if table.select(["_offset", "_row"]).group_by(["_offset", "_row"]).aggregate([]).num_rows != table.num_rows:
        yield "has a row twice"
    if set(table.column("_version").unique().to_pylist()) != {account.version}:
        yield f"has rows of other versions than {account.version}"
    if event_time_range(table) != (file.first_event_time, file.last_event_time):
        yield "has event times that its link does not say"


def _wrong_with_to(table: pa.Table, raw: pa.Table | None) -> Iterator[str]:
    """Where pushed rows go, against what their records say, as far as those are there."""
    column = table.column(TO)
    if column.type != TO_FIELD.type or column.null_count:
        yield f"has {TO} in another type, or without a value"
        return
    words = column.cast(pa.string()).to_numpy()
    if strange := set(words) - set(TO_TYPE.categories):
        yield f"has rows whose {TO} is {min(strange)}"
    elif raw is not None:
        said = _said_to(raw)
        expected = [said.get(offset, record.To.BOTH.value) for offset in _offsets(table).tolist()]
        if (words != np.array(expected, dtype=object)).any():
            yield f"has rows whose {TO} is not what their records say"


def _said_to(raw: pa.Table) -> dict[int, str]:
    """Which records say where they go, by their offsets."""
    headers = raw.column("headers").combine_chunks()
    names, values = (pc.list_flatten(headers).field(name) for name in ("name", "value"))
    of = pc.list_parent_indices(headers).to_numpy()
    places = np.flatnonzero(pc.equal(names, record.TO).to_numpy(zero_copy_only=False))
    last = {int(of[place]): values[int(place)].as_py() for place in places}
    offsets = _offsets(raw)
    return {int(offsets[at]): value.decode(errors="replace") for at, value in last.items() if value is not None}


def _is_pushed(store: ObjectStore, link: Link, account: ViewAccount) -> bool:
    """Whether a link is of a view's push topic: by its name, unless the view was ever computed from it."""
    if not link.id.topic.endswith(record.push_topic("", account.view)):
        return False
    try:
        return all(document.topic != link.id.topic for document in registered(store, account.view))
    except FormatError:
        return True


def _wrong_with_coordinates(table: pa.Table, link: Link) -> Iterator[str]:
    offsets = _offsets(table)
    if len(offsets) and not (link.start <= offsets.min() and offsets.max() < link.end):
        yield f"has offsets outside of {link.start}→{link.end}"
    for column, expected in (("_topic", link.id.topic), ("_partition", link.id.partition)):
        if table.column(column).unique().to_pylist() != [expected]:
            yield f"has rows whose {column} is not {expected}"


def _offsets(table: pa.Table) -> npt.NDArray[np.int64]:
    offsets: npt.NDArray[np.int64] = table.column("_offset").to_numpy()
    return offsets
