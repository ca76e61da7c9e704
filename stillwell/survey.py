"""What lies in the folders of chains: which objects are the chain, and which one is to blame where it does not hold.

A walk stops at the first object that does not follow from the one before. That is right for readers, but does not say
what to restore from a backup: behind one altered link everything looks strange. So a survey reads all objects, and
uses that every one but a chain's last is vouched for by its successor, which holds the digest of its bytes. Where two
neighbours disagree, whoever is vouched for by others is innocent; behind a hole the survey goes on, so that one run
names all that is wrong, and each only once.

Who vouches for whom is known when all is read, and a chain may have a million links: of each a survey keeps a few
hundred bytes. Who needs more reads the link again (`read_again`).

What nobody vouches for cannot be told from a change of the same: who can write may append a link of gaps alone, or
change the last link's time.
"""

import collections
import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from stillwell.errors import ChainError, NotFound
from stillwell.layout import chain
from stillwell.layout.chain import Genesis, Link, PartitionId, TopicIncarnation
from stillwell.storage import ObjectStore
from stillwell.threads import each_in_order

_PLACE = re.compile(
    chain.ROOT + r"(?P<topic>[^/]+)@(?P<incarnation>\d{1,9})/(?:(?P<partition>\d{1,9})/)?(?P<name>[^/]+)"
)
_THREADS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, and a sentence that says what."""

    path: str
    kind: Literal["missing", "altered", "broken", "forged"]
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class KnownLink:
    """What a survey keeps of a link: the fields of that name, and the digest of its bytes."""

    start: int
    end: int
    expired: bool
    nonce: str
    previous: str
    digest: str


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """One chain as it was found.

    genesis: None where it is missing or damaged. links: those that a walk from genesis reaches, in order. behind: those
    that lie behind what is broken; nobody reads them. vouched: whether a link holds the digest of genesis.
    """

    id: PartitionId
    genesis: Genesis | None
    vouched: bool
    links: tuple[KnownLink, ...]
    behind: tuple[KnownLink, ...]
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Folders:
    """What there is below `_chain/`: the incarnations of each topic, the partitions, and what belongs to neither."""

    incarnations: dict[str, int]
    """The highest incarnation of each topic that has anything."""
    partitions: tuple[PartitionId, ...]
    strangers: tuple[str, ...]
    links: int
    """How many objects there are beside genesis in the folders of all partitions."""


HasItsFiles = Callable[[Link], bool]
"""Whether a link has files, and all of them are in place and as it says: what only its writer can have made."""


def folders(store: ObjectStore) -> Folders:
    """List everything below `_chain/`."""
    incarnations: dict[str, int] = collections.defaultdict(int)
    partitions: set[PartitionId] = set()
    strangers = []
    links = 0
    for path in store.list(chain.ROOT):
        place = _PLACE.fullmatch(path)
        if place is None:
            strangers.append(path)
            continue
        topic, number = place["topic"], int(place["incarnation"])
        id = PartitionId(topic, number, int(place["partition"] or 0))
        known = path == chain.topic_path(topic, number) if place["partition"] is None else path.startswith(id.folder)
        if not known or number < 1:
            strangers.append(path)
            continue
        incarnations[topic] = max(incarnations[topic], number)
        if place["partition"] is not None:
            partitions.add(id)
            links += path != id.genesis_path
    return Folders(dict(incarnations), tuple(sorted(partitions)), tuple(strangers), links)


def incarnations(store: ObjectStore, found: Folders, surveys: Iterable[Survey]) -> Iterator[Finding]:
    """What is wrong with the objects that say which Kafka topic an incarnation is: each, against its chains' genesis.

    A genesis that a link vouches for is believed; else `topic.json` is.
    """
    by_incarnation: dict[tuple[str, int], list[Survey]] = collections.defaultdict(list)
    for survey in surveys:
        by_incarnation[survey.id.topic, survey.id.incarnation].append(survey)
    for topic, newest in found.incarnations.items():
        for number in range(1, newest + 1):
            path = chain.topic_path(topic, number)
            try:
                said = chain.decode_topic(store.read(path), path)
            except NotFound:
                yield Finding(path, "missing", "nothing says which Kafka topic this incarnation is")
            except ChainError as error:
                yield Finding(path, "altered", _without_path(error, path))
            else:
                yield from _against_genesis(said, by_incarnation[topic, number])


def _against_genesis(said: TopicIncarnation, surveys: Iterable[Survey]) -> Iterator[Finding]:
    begun = [
        (survey.genesis, survey.vouched)
        for survey in surveys
        if survey.genesis and survey.id.genesis_path not in {finding.path for finding in survey.findings}
    ]
    topic_id = next((genesis.topic_id for genesis, vouched in begun if vouched), said.topic_id)
    if said.topic_id != topic_id:
        yield Finding(
            said.path, "altered", f"names the Kafka topic {said.topic_id}, its chains were begun in {topic_id}"
        )
    for genesis, _ in begun:
        if genesis.topic_id != topic_id:
            yield Finding(genesis.path, "altered", f"names the Kafka topic {genesis.topic_id}, which is not {topic_id}")


def survey(store: ObjectStore, id: PartitionId, has_its_files: HasItsFiles) -> Survey:
    """Survey one chain. Links that are created meanwhile may be left out."""
    return _Surveyor(store, id, has_its_files).survey()


def read_again(store: ObjectStore, id: PartitionId, known: KnownLink) -> Link:
    """A link as it was surveyed. Raises NotFound, and ChainError for one whose bytes are others by now."""
    path = id.link_path(known.start)
    data = store.read(path)
    if chain.digest(data) != known.digest:
        raise ChainError(f"{path}: was another a moment ago; somebody has altered it")
    return chain.decode_link(data, path)


@dataclasses.dataclass(frozen=True, slots=True)
class _Object:
    """Genesis or a link, as its bytes were found; value is None for one that cannot be read, and error says why."""

    path: str
    digest: str
    value: Genesis | KnownLink | None
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where the next link is looked for; before: the object that it has to follow, None where that is not known."""

    start: int
    before: _Object | None


class _Surveyor:
    def __init__(self, store: ObjectStore, id: PartitionId, has_its_files: HasItsFiles) -> None:
        self._store = store
        self._id = id
        self._has_its_files = has_its_files
        self._findings: list[Finding] = []
        self._links: list[KnownLink] = []
        self._behind: list[KnownLink] = []
        self._visited: set[str] = {id.genesis_path}
        paths = store.list(id.folder)
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
            self._found = {path: found for path, found in each_in_order(threads, self._read, paths) if found}
        self._starts = [start for path in self._found if (start := self._start_of(path)) is not None]
        self._vouched = {each.value.previous for each in self._found.values() if isinstance(each.value, KnownLink)}

    def survey(self) -> Survey:
        genesis = self._found.get(self._id.genesis_path)
        place = self._begin(genesis)
        while place:
            place = self._step(place)
        for path in sorted(self._found.keys() - self._visited):
            self._blame(path, "forged", "is in the chain's folder, but no walk from genesis reaches it")
        return Survey(
            id=self._id,
            genesis=genesis.value if genesis and isinstance(genesis.value, Genesis) else None,
            vouched=genesis is not None and genesis.digest in self._vouched,
            links=tuple(self._links),
            behind=tuple(self._behind),
            findings=tuple(self._findings),
        )

    def _begin(self, genesis: _Object | None) -> _Place | None:
        if genesis is None:
            self._blame(self._id.genesis_path, "missing", "nothing says where the chain begins")
            return self._next_genuine(0)
        if not isinstance(genesis.value, Genesis):
            self._blame(genesis.path, "altered", genesis.error)
            return self._next_genuine(0)
        start = genesis.value.start
        earlier = self._next_genuine(0, start)
        if earlier:
            self._blame(genesis.path, "altered", f"begins the chain at {start}, but it has a link at {earlier.start}")
        return earlier or _Place(start, genesis)

    def _step(self, place: _Place) -> _Place | None:
        """Look at the link in one place; gives the next place, or None at the chain's end."""
        path = self._id.link_path(place.start)
        # Read anew if it was not listed: a listing of a folder may miss an object that is made meanwhile.
        found = self._found.get(path) or self._read(path)
        if found is None:
            later = self._next_genuine(place.start)
            if later:
                first = self._id.link_path(later.start)
                self._blame(path, "missing", f"no link begins here, but there are links behind it, from {first} on")
            return later
        self._visited.add(path)
        link = found.value
        if not isinstance(link, KnownLink):
            self._blame(path, "altered", found.error)
            return self._next_genuine(place.start + 1)
        before: _Object | None = found
        if place.before and place.before.digest != link.previous:
            culprit = self._culprit(place.before, found, link)
            if culprit is None:
                self._blame(path, "forged", f"does not follow from {place.before.path}")
                return None
            what = (
                f"does not follow from {place.before.path}" if culprit is found else f"{path} does not follow from it"
            )
            self._blame(culprit.path, "altered", what)
            before = None if culprit is found else found
        (self._behind if self._findings else self._links).append(link)
        inside = None if found.digest in self._vouched else self._next_genuine(link.start + 1, link.end)
        if inside:
            self._blame(path, "altered", f"ends at {link.end}, but there is a link that begins at {inside.start}")
        return inside or _Place(link.end, before)

    def _culprit(self, before: _Object, found: _Object, link: KnownLink) -> _Object | None:
        """Which of two neighbours that disagree is to blame; None if the second is not of this chain at all."""
        if found.digest in self._vouched:
            return before
        if self._id.link_path(link.end) in self._found:
            return found  # its successor does not vouch for it either: one altered object explains both
        return before if self._is_genuine(link) else None

    def _next_genuine(self, first: int, end: int | None = None) -> _Place | None:
        """The first place in [first, end) with a link that can be trusted: what is before it is not known."""
        for start in self._starts:
            found = self._found[self._id.link_path(start)]
            link = found.value
            if start < first or (end is not None and start >= end) or not isinstance(link, KnownLink):
                continue
            if found.digest in self._vouched or self._is_genuine(link):
                return _Place(start, None)
        return None

    def _is_genuine(self, known: KnownLink) -> bool:
        """Whether a link that nobody vouches for has its files."""
        try:
            return self._has_its_files(read_again(self._store, self._id, known))
        except (NotFound, ChainError):
            return False

    def _blame(self, path: str, kind: Literal["missing", "altered", "forged"], error: str) -> None:
        self._findings.append(Finding(path, kind, error))

    def _read(self, path: str) -> _Object | None:
        try:
            data = self._store.read(path)
        except NotFound:
            return None
        digest = chain.digest(data)
        try:
            value = self._decode(data, path, digest)
        except ChainError as error:
            return _Object(path, digest, None, _without_path(error, path))
        return _Object(path, digest, value, "")

    def _decode(self, data: bytes, path: str, digest: str) -> Genesis | KnownLink:
        if path == self._id.genesis_path:
            return chain.decode_genesis(data, path)
        link = chain.decode_link(data, path)
        return KnownLink(link.start, link.end, link.expired, link.nonce, link.previous, digest)

    def _start_of(self, path: str) -> int | None:
        digits = path.removeprefix(self._id.folder).removesuffix(".json")
        return int(digits) if digits.isdecimal() and path == self._id.link_path(int(digits)) else None


def _without_path(error: ChainError, path: str) -> str:
    return str(error).removeprefix(f"{path}: ")
