"""What crashes and overtaken writers have left behind: files that no link names, and none ever will.

A file may be removed when every offset in its name is on the chain, in links that hold records, and its own span is not
among them. No clock is asked and no writer, since neither has to be believed:

- A link is created at the chain's end alone, and create-only; the chain never gets shorter. Whoever has uploaded a file
  whose offsets the chain has passed finds the place of its link taken, however late he wakes up. What begins at the end
  or behind it stays: its writer may be about to link it.
- Links and end are those of one walk. With an end that is younger than the links, a file that was linked between would
  look passed and unlinked.
- The last link does not count, since no other vouches for it: were it altered, its own files would look unlinked.
- Of a chain in which anything is missing or altered all stays: it may be what the chain is restored with.
- A file with offsets that an `expired` link covers stays: it may be all that is left of those records.
- An upload that arrives after the sweep leaves its file behind once more. Nobody reads it; the next sweep finds it.

`tests/model` explores this with writers who wake up at any time, and shows that a sweep of every unlinked file, or one
by two walks, loses files that are linked.
"""

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence

from stillwell import survey
from stillwell.layout.chain import PartitionId, SpanName, span_name
from stillwell.progress import Advance, unseen
from stillwell.storage import ObjectStore
from stillwell.survey import KnownLink


@dataclasses.dataclass(frozen=True, slots=True)
class LeftBehind:
    """What no link names.

    files: those that none ever will. half_written: what creates that ended half way have left. kept: those that stay,
    since they may be linked or needed yet, or are none of ours. damaged: chains in which something is wrong, of whose
    files nothing is told.
    """

    files: tuple[str, ...]
    half_written: tuple[str, ...]
    kept: tuple[str, ...]
    damaged: tuple[PartitionId, ...]


def find_left_behind(
    store: ObjectStore, half_written_before: datetime.datetime, advance: Advance = unseen
) -> LeftBehind:
    """Look for what may be removed, and remove nothing. Raises StoreUnavailable.

    advance: told of chains.
    """
    by_chain: dict[PartitionId, dict[str, SpanName]] = defaultdict(dict)
    files: list[str] = []
    kept: list[str] = []
    for path in (*store.list("views/"), *store.list("raw/")):
        name = span_name(path)
        if name:
            by_chain[name.id][path] = name
        else:
            kept.append(path)
    begun = set(survey.folders(store).partitions)
    damaged: list[PartitionId] = []
    for done, (id, names) in enumerate(sorted(by_chain.items()), 1):
        links = _links(store, id) if id in begun else ()
        if links is None:
            damaged.append(id)
        else:
            passed, others = _unlinked(names, links)
            files += passed
            kept += others
        advance(done, len(by_chain))
    half_written = store.half_written(half_written_before)
    return LeftBehind(tuple(sorted(files)), tuple(half_written), tuple(sorted(kept)), tuple(damaged))


def remove(store: ObjectStore, found: LeftBehind) -> None:
    """Remove what may be. Can be cut short and repeated at any time. Raises StoreUnavailable."""
    for path in (*found.files, *found.half_written):
        store.delete(path)


def _links(store: ObjectStore, id: PartitionId) -> tuple[KnownLink, ...] | None:
    """A chain by one walk; None where something is wrong with it."""
    found = survey.survey(store, id, lambda link: False)
    return None if found.findings else found.links


def _unlinked(names: Mapping[str, SpanName], links: Sequence[KnownLink]) -> tuple[list[str], list[str]]:
    """Of the files of one chain those that no link names: what may be removed, and what stays."""
    nonces = {link.nonce for link in links}
    unlinked = {path: name for path, name in names.items() if name.nonce not in nonces}
    passed = [path for path, name in unlinked.items() if _is_passed(name, links[:-1])]
    return passed, [path for path in unlinked if path not in passed]


def _is_passed(name: SpanName, links: Sequence[KnownLink]) -> bool:
    """Whether every offset of a span lies in these links, which follow one another, and none of them is expired."""
    over = [link for link in links if link.start < name.end and name.start < link.end]
    return (
        bool(over)
        and over[0].start <= name.start
        and name.end <= over[-1].end
        and not any(link.expired for link in over)
    )
