"""The chain's format: what is written is read back, and nothing else is; the walk sees one chain and every damage."""

import datetime
import itertools
import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.chain import find_end
from stillwell.errors import ChainError, NotFound, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import (
    ChainEnd,
    ChainObject,
    DataFile,
    Genesis,
    Link,
    PartitionId,
    TopicIncarnation,
    ViewAccount,
)
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from tests.chain_support import DEPARTURES, NOON, Inline, a_chain, a_genesis, a_link, at_once

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

# ---- any object that can be ----

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1, max_size=12)
offsets = st.integers(0, 2**63 - 10_000)
times = st.datetimes(timezones=st.just(datetime.UTC))
sums = st.binary(min_size=32, max_size=32).map(bytes.hex)
ids = st.builds(PartitionId, topic=names, incarnation=st.integers(1, 2**16 - 1), partition=st.integers(0, 2**31))


@st.composite
def topics(draw: st.DrawFn) -> TopicIncarnation:
    return TopicIncarnation(
        created_at=draw(times),
        topic=draw(names),
        incarnation=draw(st.integers(1, 2**16 - 1)),
        topic_id=draw(words),
        partitions=draw(st.integers(0, 10_000)),
        start=draw(st.sampled_from(("earliest", "latest"))),
    )


@st.composite
def geneses(draw: st.DrawFn) -> Genesis:
    return Genesis(created_at=draw(times), id=draw(ids), start=draw(offsets), topic_id=draw(words))


@st.composite
def links(draw: st.DrawFn) -> Link:
    id, start, nonce, opened_at = draw(ids), draw(offsets), draw(words), draw(times)
    records, gaps = draw(st.tuples(st.integers(0, 100), st.integers(0, 100)).filter(any))
    end = start + records + gaps
    bare = Link(
        created_at=draw(times), id=id, start=start, end=end, nonce=nonce, previous=draw(sums), expired=True,
        opened_at=opened_at, writer=draw(words),
    )  # fmt: skip
    if draw(st.booleans()):
        return bare

    def file(dataset: str, rows: int, event_times: bool) -> DataFile | None:
        if not rows:
            return None
        first, last = sorted(draw(st.tuples(*[st.integers(-(2**50), 2**50)] * 2)))
        return DataFile(
            path=chain.data_path(dataset, opened_at.date(), id, start, end, nonce),
            size=draw(st.integers(1, 2**40)),
            sha256=draw(sums),
            rows=rows,
            first_event_time=first if event_times else None,
            last_event_time=last if event_times else None,
        )

    def account(view: str) -> ViewAccount:
        filtered, rejected = draw(st.tuples(st.integers(0, records), st.integers(0, records)).filter(
            lambda parts: sum(parts) <= records
        ))  # fmt: skip
        with_rows = records - filtered - rejected
        rows = with_rows + draw(st.integers(0, 5)) if with_rows else 0
        return ViewAccount(
            view=view, version=draw(st.integers(0, 2**16 - 1)), offsets_with_rows=with_rows, filtered=filtered,
            rejected=rejected, rows=rows, file=file(chain.view_dataset(view), rows, True),
        )  # fmt: skip

    return msgspec.structs.replace(
        bare,
        expired=False,
        records=records,
        gaps=gaps,
        raw=file(chain.raw_dataset(id.topic), records, False),
        views=tuple(account(view) for view in draw(st.lists(names, max_size=3, unique=True))),
        epoch=draw(st.text(max_size=8)),
        replication_id=draw(st.text(max_size=8)),
    )


def decode_as(value: ChainObject) -> Callable[[bytes, str], ChainObject]:
    decoders: dict[type, Callable[[bytes, str], ChainObject]] = {
        TopicIncarnation: chain.decode_topic,
        Genesis: chain.decode_genesis,
        Link: chain.decode_link,
    }
    return decoders[type(value)]


objects = st.one_of(topics(), geneses(), links())
AnyObject = TopicIncarnation | Genesis | Link


@UNHURRIED
@given(value=objects)
def test_what_is_encoded_is_decoded_to_the_same(value: AnyObject) -> None:
    assert decode_as(value)(chain.encode(value), value.path) == value


@UNHURRIED
@given(value=objects)
def test_encoded_objects_are_canonical_json(value: AnyObject) -> None:
    """Sorted keys, no spaces, UTF-8 as it is: the bytes that Python's own json writes."""
    data = chain.encode(value)
    canonical = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data == canonical.encode()


@UNHURRIED
@given(value=objects)
def test_any_other_spelling_of_the_same_json_is_refused(value: AnyObject) -> None:
    """Else two spellings of one link would have two digests."""
    data = chain.encode(value)
    content = json.loads(data)
    spellings = [
        json.dumps(content, sort_keys=True, ensure_ascii=False),
        json.dumps(dict(reversed(content.items())), separators=(",", ":"), ensure_ascii=False),
        data.decode() + "\n",
        data.decode().replace('"format":1', '"format":1.0'),
        data.decode().replace('"format":1', '"format":1,"format":1'),
    ]
    for spelling in spellings:
        with pytest.raises(ChainError, match=r"not in canonical form|of format 1"):
            decode_as(value)(spelling.encode(), value.path)


@UNHURRIED
@given(value=objects, other=objects)
def test_an_object_in_another_place_is_refused(value: AnyObject, other: AnyObject) -> None:
    """A copy of one partition's link in another's folder is no link there."""
    if value.path != other.path:
        with pytest.raises(ChainError, match="holds what belongs at"):
            decode_as(value)(chain.encode(value), other.path)


@UNHURRIED
@given(value=objects, added=st.sampled_from([("views_of", 1), ("Format", 1), ("note", "x")]))
def test_a_field_that_is_not_known_is_refused(value: AnyObject, added: tuple[str, object]) -> None:
    """It could change the meaning of the others."""
    content = json.loads(chain.encode(value)) | dict([added])
    data = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(ChainError, match=rf"format 1: Object contains unknown field `{added[0]}`"):
        decode_as(value)(data, value.path)


@UNHURRIED
@given(value=objects)
def test_a_newer_format_says_what_to_do(value: AnyObject) -> None:
    content = json.loads(chain.encode(value)) | {"format": 2, "surprise": [1]}
    with pytest.raises(ChainError, match="is of format 2, this version of Stillwell reads 1: upgrade"):
        decode_as(value)(json.dumps(content).encode(), value.path)


@UNHURRIED
@given(
    data=st.one_of(st.binary(), st.sampled_from([b'{"x":' * 100_000, b"null", b'{"format":"2"}', b"\xef\xbb\xbf{}"]))
)
def test_other_bytes_are_no_object(data: bytes) -> None:
    for decode in (chain.decode_topic, chain.decode_genesis, chain.decode_link):
        with pytest.raises(ChainError, match=r"the/path: not a \w+ of format 1"):
            decode(data, "the/path")


def test_kinds_are_told_apart() -> None:
    genesis = a_genesis()
    with pytest.raises(ChainError, match=r"Invalid value 'genesis' - at `\$\.kind`"):
        chain.decode_link(chain.encode(genesis), genesis.path)


def test_times_are_in_utc() -> None:
    """The same instant in another zone would be other bytes."""
    east = datetime.timezone(datetime.timedelta(hours=2))
    for wrong in (NOON.replace(tzinfo=None), NOON.astimezone(east)):
        with pytest.raises(ValueError, match=r"created_at is 2026-03-01T1\d:00:00.*has to be in UTC"):
            msgspec.structs.replace(a_genesis(), created_at=wrong)
    data = chain.encode(a_genesis()).replace(b"12:00:00Z", b"14:00:00+02:00")
    with pytest.raises(ChainError, match="has to be in UTC"):
        chain.decode_genesis(data, a_genesis().path)


# ---- links that do not add up ----

SPAN = {"day": NOON.date(), "id": DEPARTURES, "start": 10, "end": 20, "nonce": "n"}


def a_file(dataset: str, rows: int, *, nonce: str = "n", event_times: tuple[int, int] | None = None) -> DataFile:
    first, last = event_times or (None, None)
    return DataFile(
        path=chain.data_path(dataset, NOON.date(), DEPARTURES, 10, 20, nonce),
        size=100,
        sha256="0" * 64,
        rows=rows,
        first_event_time=first,
        last_event_time=last,
    )


VIEW_FILE = a_file("views/Late", 7, event_times=(1, 2))
ACCOUNT = ViewAccount(view="Late", version=1, offsets_with_rows=5, filtered=2, rejected=1, rows=7, file=VIEW_FILE)
RAW_FILE = a_file("raw/flights.departures", 8)
GOOD = a_link(10, 20, nonce="n", previous="0" * 64, raw=RAW_FILE, views=(ACCOUNT,))


def of_account(**changed: object) -> Link:
    return msgspec.structs.replace(GOOD, views=(msgspec.structs.replace(ACCOUNT, **changed),))


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (msgspec.structs.replace(GOOD, end=10), "ends at 10, which is not after its start"),
        (msgspec.structs.replace(GOOD, gaps=1), "8 records [+] 1 gap do not make 10 offsets"),
        (msgspec.structs.replace(GOOD, raw=None), "the raw archive: 8 rows, but no file"),
        (msgspec.structs.replace(GOOD, raw=a_file("raw/flights.departures", 7)), "its file has 7 of 8 rows"),
        (msgspec.structs.replace(GOOD, expired=True), "is expired, but claims records"),
        (
            msgspec.structs.replace(GOOD, records=0, gaps=10, raw=a_file("raw/flights.departures", 0), views=()),
            "its file has 0 of 0 rows",
        ),
        (of_account(filtered=3), "Late version 1: 5 with rows [+] 3 filtered [+] 1 rejected do not make 8 records"),
        (of_account(rows=6), "its file has 7 of 6 rows"),
        (of_account(file=None), "Late version 1: 7 rows, but no file"),
        (of_account(rows=4), "5 records cannot give 4 rows"),
        (of_account(offsets_with_rows=0, filtered=7), "0 records cannot give 7 rows"),
        (of_account(file=a_file("views/Late", 7)), "does not say which event times it spans"),
        (of_account(file=a_file("views/Late", 7, nonce="m", event_times=(1, 2))), "names the file .*-m.parquet, where"),
        (of_account(file=a_file("views/Other", 7, event_times=(1, 2))), "names the file views/Other/"),
        (msgspec.structs.replace(GOOD, raw=a_file("raw/other", 8)), "names the file raw/other/"),
        (msgspec.structs.replace(GOOD, views=(ACCOUNT, ACCOUNT)), "accounts for the same records of a view twice"),
        (
            msgspec.structs.replace(GOOD, views=(ACCOUNT, msgspec.structs.replace(ACCOUNT, version=2))),
            "accounts for the same records of a view twice",
        ),
        (msgspec.structs.replace(GOOD, records=11, gaps=-1), "Expected `int` >= 0 - at `[$].gaps`"),
        (of_account(filtered=-1), "Expected `int` >= 0"),
    ],
)  # fmt: skip
def test_a_link_that_does_not_add_up_is_refused(link: Link, says: str) -> None:
    """Each breaks one sum alone, which would hide a lost or doubled record."""
    assert chain.decode_link(chain.encode(GOOD), GOOD.path) == GOOD
    with pytest.raises(ChainError, match=says):
        chain.decode_link(chain.encode(link), link.path)


def test_a_link_without_records_has_neither_files_nor_rows() -> None:
    """A span of transaction markers alone is linked too, with a zero for each view."""
    none = ViewAccount(view="Late", version=1, offsets_with_rows=0, filtered=0, rejected=0, rows=0, file=None)
    link = a_link(10, 12, nonce="n", previous="0" * 64, views=(none,))
    assert chain.decode_link(chain.encode(link), link.path).files == ()


def test_a_links_files_are_the_raw_one_and_those_of_its_views() -> None:
    assert GOOD.files == (RAW_FILE, VIEW_FILE)


# ---- places ----


def test_places_are_as_documented() -> None:
    assert DEPARTURES.genesis_path == "_chain/flights.departures@1/3/genesis.json"
    assert DEPARTURES.link_path(1042) == "_chain/flights.departures@1/3/00000000000000001042.json"
    assert chain.data_path("views/Late", NOON.date(), DEPARTURES, 0, 9, "ab") == (
        "views/Late/dt=2026-03-01/flights.departures@1-3-0-9-ab.parquet"
    )


@UNHURRIED
@given(id=ids, start=offsets, length=st.integers(1, 2**40), nonce=st.binary(min_size=16, max_size=16).map(bytes.hex))
def test_the_name_of_a_file_tells_its_span(id: PartitionId, start: int, length: int, nonce: str) -> None:
    for dataset in (chain.view_dataset("Late"), chain.raw_dataset(id.topic)):
        path = chain.data_path(dataset, NOON.date(), id, start, start + length, nonce)
        assert chain.span_name(path) == chain.SpanName(id, start, start + length, nonce)


@pytest.mark.parametrize(
    "path",
    [
        "raw/t/notes.txt",
        "raw/t/dt=2026-03-01/t@1-0-0-9-ab.parquet.part",
        "raw/t/dt=2026-03-01/t@1-0-00-9-ab.parquet",
        "raw/t/dt=2026-03-01/t@0-0-0-9-ab.parquet",
        "raw/t/dt=today/t@1-0-0-9-ab.parquet",
        "raw/t/t@1-0-0-9-ab.parquet",
        "t@1-0-0-9-ab.parquet",
        "_chain/t@1/0/genesis.json",
    ],
)
def test_a_name_that_no_span_gives_is_told_apart(path: str) -> None:
    assert chain.span_name(path) is None


@UNHURRIED
@given(starts=st.lists(offsets, min_size=2, unique=True))
def test_links_sort_by_their_start(starts: list[int]) -> None:
    """The walk reads a listing in order; numbers are padded to the longest that an offset can be."""
    assert sorted(map(DEPARTURES.link_path, starts)) == [DEPARTURES.link_path(start) for start in sorted(starts)]


def test_partitions_are_found_by_whatever_they_hold() -> None:
    """A chain that has lost its genesis is found too, so that it can be told."""
    store = MemoryStore()
    ids = [PartitionId("t", 1, 0), PartitionId("t", 1, 10), PartitionId("t", 2, 0), PartitionId("t@1", 1, 0)]
    for id in ids:
        a_chain(store, [5], id=id)
    store.delete(ids[1].genesis_path)
    topic = TopicIncarnation(
        created_at=NOON, topic="t", incarnation=2, topic_id="x", partitions=1, start="earliest"
    )  # fmt: skip
    store.create(topic.path, chain.encode(topic))
    assert chain.partitions(store) == ids


@pytest.mark.parametrize(
    "path", ["_chain/genesis.json", "_chain/t@1/x/genesis.json", "_chain/t@01/0/a", "_chain/t/0/b"]
)
def test_an_object_in_no_chains_place_is_named(path: str) -> None:
    store = MemoryStore()
    store.create(path, b"x")
    with pytest.raises(ChainError, match=f"{path}: no chain has an object in this place"):
        chain.partitions(store)


def test_the_newest_incarnation_has_the_highest_number() -> None:
    store = MemoryStore()
    assert chain.newest_incarnation(store, "t") is None
    for number in range(1, 12):
        topic = TopicIncarnation(
            created_at=NOON, topic="t", incarnation=number, topic_id=f"id {number}", partitions=3, start="latest"
        )  # fmt: skip
        store.create(topic.path, chain.encode(topic))
        assert chain.newest_incarnation(store, "t") == topic
    assert chain.newest_incarnation(store, "other") is None


def test_only_a_link_counts_as_one() -> None:
    store = MemoryStore()
    genesis = a_genesis()
    store.create(genesis.path, chain.encode(genesis))
    store.create("_chain/flights.departures@1/topic.json", b"x")
    assert not chain.has_links(store)
    store.create(DEPARTURES.link_path(0), b"x")
    assert chain.has_links(store)


# ---- the walk ----


def walked(store: ObjectStore) -> list[Link]:
    """Every link, by the walk that reads ahead and by the one that does not, which agree."""
    genesis, ahead = chain.walk(store, DEPARTURES)
    at = ChainEnd(genesis.start, chain.digest(chain.encode(genesis)))
    links = list(ahead)
    assert links == list(chain.follow(store, DEPARTURES, at))
    return links


@UNHURRIED
@given(lengths=st.lists(st.integers(1, 9), max_size=8), start=st.integers(0, 50))
def test_the_walk_gives_every_link_in_order(lengths: list[int], start: int) -> None:
    store = MemoryStore()
    ends = [start + sum(lengths[: n + 1]) for n in range(len(lengths))]
    links = a_chain(store, ends, start=start)
    assert walked(store) == links
    for n, link in enumerate(links):
        assert list(chain.walk_from(store, DEPARTURES, chain.end_at(link))) == links[n + 1 :]


def test_the_walk_reads_long_chains_in_many_pieces() -> None:
    store = MemoryStore()
    links = a_chain(store, list(range(10, 10_000, 10)))
    assert walked(store) == links


def test_without_genesis_there_is_no_walk() -> None:
    with pytest.raises(NotFound):
        chain.walk(MemoryStore(), DEPARTURES)


def test_what_the_walk_does_not_reach_does_not_exist() -> None:
    """Behind the end, in the middle of a span, before genesis, in other folders: damaged or not, it is not read."""
    store = MemoryStore()
    links = a_chain(store, [15, 20, 30], start=10)
    for start in (5, 12, 25, 31, 10**15):
        stray = a_link(start, start + 5, nonce="stray", previous="0" * 64)
        store.create(stray.path, chain.encode(stray) if start % 2 else b"damaged")
    store.create(f"{DEPARTURES.folder}notes.txt", b"x")
    a_chain(store, [15, 20], start=10, id=PartitionId(DEPARTURES.topic, 1, 30))
    assert walked(store) == links


def test_the_walk_finds_what_was_linked_since_it_began() -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10])
    _, walk = chain.walk(store, DEPARTURES)
    seen = [next(walk)]
    last = a_link(10, 12, nonce="last", previous=chain.end_at(links[-1]).digest)
    store.create(last.path, chain.encode(last))
    assert seen + list(walk) == [*links, last]


def test_a_link_that_was_listed_and_then_is_gone_is_no_end() -> None:
    """The chain would look shorter than it is, and its next writer would fork it."""
    store = MemoryStore()
    a_chain(store, [5, 10, 15])

    class Forgetful(MemoryStore):
        def read(self, path: str) -> bytes:
            if path == DEPARTURES.link_path(5):
                raise NotFound(path)
            return super().read(path)

    forgetful = Forgetful()
    forgetful.objects = store.objects
    with pytest.raises(ChainError, match="somebody has removed it"):
        list(chain.walk(forgetful, DEPARTURES)[1])


def test_a_store_that_fails_on_the_way_is_no_end_either() -> None:
    store = MemoryStore()
    a_chain(store, [5, 10, 15])
    for broken in (DEPARTURES.link_path(10), DEPARTURES.link_path(15), DEPARTURES.folder):
        store.faults = lambda operation, path, broken=broken: "refused" if path == broken else None  # type: ignore[misc]
        with pytest.raises(StoreUnavailable):
            list(chain.walk(store, DEPARTURES)[1])


def unreached(store: MemoryStore, links: list[Link]) -> set[str]:
    return {path for path in store.objects if path.endswith("0.json")} - {link.path for link in links}


def test_no_byte_of_any_object_but_the_last_link_can_be_altered_unseen() -> None:
    """Every byte of genesis and three links, each turned into another letter or digit: either the walk stops at the
    damage, or it leaves links unreached, which no honest chain has."""
    store = MemoryStore()
    links = a_chain(store, [20, 40, 60, 80])
    originals = dict(store.objects)
    for path in [DEPARTURES.genesis_path, *[link.path for link in links[:-1]]]:
        for at, byte in enumerate(originals[path]):
            other = b"7" if chr(byte).isdigit() and byte != ord("7") else b"x" if byte != ord("x") else b"y"
            store.objects[path] = originals[path][:at] + other + originals[path][at + 1 :]
            try:
                seen = walked(store)
            except ChainError:
                continue
            assert unreached(store, seen), f"{path}, byte {at}"
        store.objects[path] = originals[path]


@pytest.mark.parametrize(
    "changed", [{"writer": "x"}, {"nonce": "x"}, {"epoch": "x"}, {"created_at": NOON.replace(year=2027)}]
)
def test_an_altered_link_in_good_form_breaks_the_walk_at_the_next_one(changed: dict[str, object]) -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10, 15])
    store.objects[links[1].path] = chain.encode(msgspec.structs.replace(links[1], **changed))
    _, walk = chain.walk(store, DEPARTURES)
    assert next(walk) == links[0]
    next(walk)
    with pytest.raises(ChainError, match=r"00000000000000000010\.json: does not follow from the object before it"):
        next(walk)


# ---- hints ----


async def end_by(store: ObjectStore, hint: tuple[int, str] | None) -> tuple[ChainEnd, Link | None]:
    found = await find_end(Inline(store), at_once, DEPARTURES, hint)
    assert found is not None
    _, end, last = found
    return end, last


@pytest.mark.parametrize("ends", [[], [5], [5, 10, 15, 20]])
async def test_no_hint_changes_what_is_found(ends: list[int]) -> None:
    """Right, stale, wrong, of another chain: the end is the one that the whole walk finds."""
    store = MemoryStore()
    links = a_chain(store, ends)
    stray = a_link(3, 100, nonce="stray", previous="0" * 64)  # nobody could link it; its nonce is in no hint
    store.create(stray.path, chain.encode(stray))
    end = chain.end_at(links[-1]) if links else ChainEnd(0, chain.digest(chain.encode(a_genesis())))
    hints = [
        None,
        *[(link.start, link.nonce) for link in links],
        *[(link.start, "another nonce") for link in links],
        *itertools.product((0, 3, 5, 20, 1_000), ("n0", "n1", "", "x")),
    ]
    for hint in hints:
        assert await end_by(store, hint) == (end, links[-1] if links else None), hint


async def test_a_hint_to_something_damaged_is_ignored_and_the_walk_tells() -> None:
    store = MemoryStore()
    links = a_chain(store, [5, 10])
    store.objects[links[1].path] = b"damaged"
    with pytest.raises(ChainError, match=f"{links[1].path}: not a Link"):
        await end_by(store, (5, "n1"))


async def test_a_right_hint_saves_the_walk() -> None:
    """Genesis, the link that it names, and nothing behind it: three reads instead of a thousand, and no listing."""
    store = MemoryStore()
    links = a_chain(store, list(range(10, 10_000, 10)))
    calls: list[tuple[str, str]] = []
    store.faults = lambda operation, path: calls.append((operation, path))
    assert await end_by(store, (links[-1].start, links[-1].nonce)) == (chain.end_at(links[-1]), links[-1])
    paths = [DEPARTURES.genesis_path, links[-1].path, DEPARTURES.link_path(links[-1].end)]
    assert calls == [("read", path) for path in paths]


async def test_without_genesis_a_hint_finds_nothing() -> None:
    """As after the offline store was changed for an empty one, while the group's offsets stayed."""
    store = MemoryStore()
    assert await find_end(Inline(store), at_once, DEPARTURES, (5, "n1")) is None
    a_chain(store, [5, 10])
    store.delete(DEPARTURES.genesis_path)
    assert await find_end(Inline(store), at_once, DEPARTURES, (5, "n1")) is None
