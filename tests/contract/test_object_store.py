"""One contract, kept by a folder, a bucket and the twin in memory; then what each promises beyond it."""

import contextlib
import datetime
import errno
import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sinks.chain import settle
from stillwell.errors import AlreadyExists, NotFound, OutcomeUnknown, SettingsError, StoreError, StoreUnavailable
from stillwell.local import free_port
from stillwell.storage import PATIENCE_SECONDS, GcsStore, LocalStore, ObjectStore, open_store
from stillwell.testing.objects import Fault, MemoryStore
from tests.chain_support import Inline, at_once
from tests.services import FakeGcs, Proxy, Toxiproxy
from tests.waiting import eventually

MIB = 1 << 20
A_DAY_AHEAD = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
"""Before it lies all that has been written."""


# ---- create-only comes first: until it is proved of a double, nothing else that is tested on it counts ----


def test_a_second_create_is_refused_and_changes_nothing(store: ObjectStore) -> None:
    store.create("chain/0.json", b"first")
    with pytest.raises(AlreadyExists, match="exists already"):
        store.create("chain/0.json", b"second")
    with pytest.raises(AlreadyExists):
        store.create("chain/0.json", b"first")
    assert store.read("chain/0.json") == b"first"


def test_of_eight_racing_creates_exactly_one_wins_and_the_others_are_told(store: ObjectStore) -> None:
    for round in range(5):
        path = f"chain/{round}.json"
        together = threading.Barrier(8)

        def create(contender: int, path: str = path, together: threading.Barrier = together) -> bool:
            together.wait()
            try:
                store.create(path, str(contender).encode())
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(create, range(8)))
        assert won.count(True) == 1
        assert store.read(path) == str(won.index(True)).encode()


# ---- objects ----


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(os.urandom(8 * MIB), id="8 MiB, one piece of a read"),
        pytest.param(os.urandom(11 * MIB + 1), id="11 MiB and a byte"),
    ],
)
def test_what_was_created_is_read_back_to_the_byte(store: ObjectStore, data: bytes) -> None:
    store.create("folder/object", data)
    assert store.read("folder/object") == data
    with pytest.raises(AlreadyExists):
        store.create("folder/object", data)


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    store.create("folder/object", b"here")
    for path in ("folder/other", "other/object", "folder", "folder/object/below", "folder/objec"):
        with pytest.raises(NotFound, match=path):
            store.read(path)


def test_names_may_hold_any_letter_and_the_signs_of_urls(store: ObjectStore) -> None:
    paths = [
        "views/Verspätung/dt=2026-01-01/flüge@1-0-0-10-ab.parquet",
        "views/出発/✈ a b",
        "raw/a+b/100%25?x=1&y#3",
        "raw/flights.departures_v2-x/dt=2026-01-01/~'()*;:@,$",
    ]
    for path in paths:
        store.create(path, path.encode())
    assert store.list("") == sorted(paths)
    assert [store.read(path).decode() for path in paths] == paths
    for path in paths:
        store.delete(path)
    assert store.list("") == []


def test_an_object_is_seen_as_a_whole_or_not_at_all(store: ObjectStore) -> None:
    """A reader that keeps asking while objects are created meets none that is shorter than it will be."""
    data = os.urandom(2 * MIB)
    sizes = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for path in store.list("folder/"):
                sizes.add(len(store.read(path)))

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read)
        for number in range(5):
            store.create(f"folder/{number}", data)
        eventually(lambda: sizes)
        done.set()
        reading.result()
    assert sizes == {len(data)}


def test_many_read_at_the_same_time(store: ObjectStore) -> None:
    contents = {f"folder/{number}": os.urandom(MIB // 4) for number in range(8)}
    for path, data in contents.items():
        store.create(path, data)
    asked = list(contents) * 4
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(store.read, asked)) == [contents[path] for path in asked]


# ---- lists ----


def test_a_list_has_every_path_that_begins_with_the_prefix_and_no_other(store: ObjectStore) -> None:
    """A prefix is text: it may end in the middle of a name; only one that ends in `/` means a folder."""
    paths = ["a/b-1", "a/b/c", "a/b/c.json/d", "a/bc", "a/c", "ab", "b/a"]
    for path in reversed(paths):
        store.create(path, b"x")
    for prefix in ("", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c.", "a/bc", "ab", "b", "a/b/c.json/d", "c", "a/b-1/"):
        assert store.list(prefix) == [path for path in paths if path.startswith(prefix)], prefix


def test_a_list_shows_what_others_did_a_moment_ago(store: ObjectStore) -> None:
    assert store.list("folder/") == []
    store.create("folder/a", b"x")
    assert store.list("folder/") == ["folder/a"]
    store.create("folder/b", b"x")
    assert store.list("folder/") == ["folder/a", "folder/b"]
    store.delete("folder/a")
    assert store.list("folder/") == ["folder/b"]


def test_deleting_twice_or_what_never_was_is_no_error(store: ObjectStore) -> None:
    store.create("folder/object", b"first")
    store.create("folder/other", b"stays")
    store.delete("folder/object")
    store.delete("folder/object")
    for never in ("folder/never", "never/object", "folder/other/below", "folder"):
        store.delete(never)
    with pytest.raises(NotFound):
        store.read("folder/object")
    assert store.list("") == ["folder/other"]
    store.create("folder/object", b"second")
    assert store.read("folder/object") == b"second"


# ---- the twin's faults ----


@pytest.mark.parametrize(
    ("fault", "error", "carried_out"),
    [
        ("refused", StoreUnavailable, False),
        ("lost answer", OutcomeUnknown, True),
        ("lost call", OutcomeUnknown, False),
    ],
)
def test_the_twin_breaks_calls_on_cue(fault: Fault, error: type[StoreError], carried_out: bool) -> None:
    store = MemoryStore()
    store.create("old", b"x")
    store.faults = lambda operation, path: fault
    with pytest.raises(error):
        store.create("new", b"x")
    for call in (lambda: store.read("old"), lambda: store.list("")):
        with pytest.raises(StoreUnavailable):
            call()
    with pytest.raises(StoreUnavailable):
        store.delete("old")
    assert set(store.objects) == ({"new"} if carried_out else {"old"})


def test_the_twin_does_not_tell_a_taken_place_when_the_answer_is_lost() -> None:
    """Else a test would learn from the twin what no real store tells."""
    store = MemoryStore(lambda operation, path: "lost answer" if operation == "create" else None)
    store.objects["taken"] = b"theirs"
    with pytest.raises(OutcomeUnknown):
        store.create("taken", b"ours")
    assert store.read("taken") == b"theirs"


# ---- what is half written ----


def test_what_is_half_written_is_no_object_and_an_object_is_never_half_written(store: ObjectStore) -> None:
    store.create("folder/object", b"whole")
    assert store.half_written(A_DAY_AHEAD) == ()


# ---- a folder ----

CRASH_BEFORE_THE_LINK = """
import os, signal, sys
from stillwell.storage import LocalStore
os.link = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
LocalStore(sys.argv[1]).create("chain/0.json", b"half" * 1000)
"""


def test_a_crash_between_writing_and_linking_leaves_nothing_visible(tmp_path: pathlib.Path) -> None:
    died = subprocess.run([sys.executable, "-c", CRASH_BEFORE_THE_LINK, str(tmp_path)], timeout=30)
    assert died.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "chain").iterdir()
    assert left.stat().st_size == 4000
    store = LocalStore(str(tmp_path))
    assert store.list("") == store.list("chain/") == store.list("chain/.") == []
    with pytest.raises(NotFound):
        store.read("chain/0.json")
    store.create("chain/0.json", b"whole")
    assert store.list("") == ["chain/0.json"]


def test_what_a_killed_writer_left_is_found_once_it_is_old_and_can_be_removed(tmp_path: pathlib.Path) -> None:
    died = subprocess.run([sys.executable, "-c", CRASH_BEFORE_THE_LINK, str(tmp_path)], timeout=30)
    assert died.returncode == -signal.SIGKILL
    store = LocalStore(str(tmp_path))
    store.create("chain/1.json", b"whole")
    assert store.half_written(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)) == ()
    (left,) = store.half_written(A_DAY_AHEAD)
    assert left.startswith("chain/.creating-")
    store.delete(left)
    assert store.half_written(A_DAY_AHEAD) == ()
    assert [path.name for path in (tmp_path / "chain").iterdir()] == ["1.json"]


def test_a_create_whose_bytes_are_removed_meanwhile_is_in_doubt_and_can_be_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer slept for a day, say, and woke up after a sweep."""
    store, link = LocalStore(str(tmp_path)), os.link

    def swept(temporary: pathlib.Path, target: pathlib.Path) -> None:
        for path in store.half_written(A_DAY_AHEAD):
            store.delete(path)
        link(temporary, target)

    monkeypatch.setattr(os, "link", swept)
    with pytest.raises(OutcomeUnknown):
        store.create("chain/0.json", b"whole")
    monkeypatch.undo()
    assert store.list("") == []
    store.create("chain/0.json", b"whole")
    assert store.read("chain/0.json") == b"whole"


def test_a_file_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """The limit on the size of a file stands for a full disk: the write stops half way."""
    store = LocalStore(str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match=r"folder/object cannot be reached.*File too large"):
            store.create("folder/object", b"x" * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "folder").iterdir()) == []
    store.create("folder/object", b"x" * MIB)
    assert store.read("folder/object") == b"x" * MIB


def _fails(error: int) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def _of_folders(flush: Callable[[int], None], instead: Callable[..., None]) -> Callable[[int], None]:
    return lambda file: instead(file) if stat.S_ISDIR(os.fstat(file).st_mode) else flush(file)


def test_a_full_disk_is_told_in_plain_words(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems notice only when the file is flushed."""
    store = LocalStore(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fails(errno.ENOSPC))
        with pytest.raises(StoreUnavailable, match="no space is left for folder/object; free some"):
            store.create("folder/object", b"x")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_disk_that_is_read_only_is_told_in_plain_words(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pathlib.Path, "mkdir", lambda *_, **__: _fails(errno.EROFS)())
    with pytest.raises(StoreUnavailable, match="folder/object cannot be written, the disk there is read-only; mount"):
        LocalStore(str(tmp_path)).create("folder/object", b"x")


async def test_a_link_without_a_clear_answer_is_unknown_and_settled_by_reading(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may make the link and lose its answer, or tell its own repetition that it exists."""
    link = os.link
    for number, (error, expected) in enumerate([(errno.EIO, OutcomeUnknown), (errno.EEXIST, AlreadyExists)]):
        store = LocalStore(str(tmp_path / str(number)))

        def linked_but_told_otherwise(*paths: str, error: int = error) -> None:
            link(*paths)
            raise OSError(error, os.strerror(error))

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", linked_but_told_otherwise)
            with pytest.raises(expected):
                store.create("chain/0.json", b"ours")
        assert store.list("") == ["chain/0.json"]
        assert await settle(Inline(store), at_once, "chain/0.json", b"ours") == b"ours"


def test_a_name_that_may_not_outlive_a_power_cut_is_not_called_created(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    monkeypatch.setattr(os, "fsync", _of_folders(os.fsync, _fails(errno.EIO)))
    with pytest.raises(OutcomeUnknown, match="may not survive a power cut"):
        store.create("chain/0.json", b"x")


def test_every_name_on_the_way_to_a_new_object_is_flushed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could take the folder of a link that its writer was told is durable."""
    flushed = []
    fsync = os.fsync

    def flush(file: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    root = tmp_path / "offline" / "project" / "namespace"
    monkeypatch.setattr(os, "fsync", flush)
    LocalStore(str(root)).create("_chain/t@1/0/genesis.json", b"x")
    folders = [root / "_chain/t@1/0", root / "_chain/t@1", root / "_chain", root]
    assert flushed[:3] == [str(tmp_path), str(tmp_path / "offline"), str(tmp_path / "offline" / "project")]
    assert pathlib.Path(flushed[3]).name.startswith(".creating-")
    assert flushed[4:] == [str(folder) for folder in folders]


@contextlib.contextmanager
def _unprivileged(*folders: pathlib.Path) -> Iterator[None]:
    """Without the powers of root, if we have them: those may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    for folder in folders:
        os.chown(folder, nobody, nobody)
    # The folders that pytest makes are closed to everybody else.
    closed = [parent for parent in folders[0].parents if not parent.stat().st_mode & stat.S_IXOTH]
    modes = [parent.stat().st_mode for parent in closed]
    for parent, mode in zip(closed, modes, strict=True):
        parent.chmod(mode | stat.S_IXOTH)
    os.setegid(nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        for parent, mode in zip(closed, modes, strict=True):
            parent.chmod(mode)


def test_a_folder_that_may_not_be_written_or_read_is_unavailable_and_never_empty(tmp_path: pathlib.Path) -> None:
    """A list that left out what it may not read would show a chain as shorter than it is."""
    store = LocalStore(str(tmp_path / "root"))
    store.create("folder/object", b"x")
    folder = tmp_path / "root" / "folder"
    with _unprivileged(tmp_path / "root", folder, folder / "object"):
        folder.chmod(0o500)
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            store.create("folder/other", b"x")
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            store.delete("folder/object")
        assert store.list("") == ["folder/object"]
        folder.chmod(0o000)
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            store.read("folder/object")
        for prefix in ("", "folder/"):
            with pytest.raises(StoreUnavailable, match="Permission denied"):
                store.list(prefix)
        folder.chmod(0o700)
        assert store.read("folder/object") == b"x"


def test_a_folder_cannot_hold_an_object_below_an_object(tmp_path: pathlib.Path) -> None:
    """The one thing that a bucket could do more; no name of ours needs it, and it is refused in words of ours."""
    store = LocalStore(str(tmp_path))
    store.create("a/b", b"x")
    with pytest.raises(StoreUnavailable, match="a/b/c"):
        store.create("a/b/c", b"x")
    assert store.list("") == ["a/b"]


# ---- a bucket ----


def test_a_bucket_may_hold_an_object_below_an_object(gcs: str) -> None:
    store = GcsStore(gcs)
    for path in ("a/b", "a/b/c", "a/bc"):
        store.create(path, path.encode())
    assert store.list("a/b") == ["a/b", "a/b/c", "a/bc"]
    assert store.list("a/b/") == ["a/b/c"]
    assert store.read("a/b") == b"a/b"


def test_prefixes_of_one_bucket_do_not_see_each_other(gcs: str) -> None:
    one, two = GcsStore(f"{gcs}/team"), GcsStore(f"{gcs}/team-2")
    one.create("a", b"one")
    two.create("a", b"two")
    assert (one.list(""), two.list("")) == (["a"], ["a"])
    one.delete("a")
    assert two.read("a") == b"two"


def test_an_object_so_large_that_it_is_sent_in_chunks_is_create_only_too(gcs: str) -> None:
    """From 50 MiB on the upload is another one, which asks for the condition at its beginning and its end."""
    store = GcsStore(gcs)
    data = os.urandom(MIB) * 51
    store.create("large", data)
    with pytest.raises((AlreadyExists, OutcomeUnknown)):
        store.create("large", b"y" * len(data))
    assert store.read("large") == data


def test_a_list_goes_on_from_page_to_page(gcs: str) -> None:
    """A store answers with at most a thousand names at a time."""
    store = GcsStore(gcs)
    paths = [f"folder/{number:04d}" for number in range(1_010)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda path: store.create(path, b"x"), paths))
    assert store.list("folder/") == paths


def test_a_bucket_that_is_not_there_is_named(gcs: str) -> None:
    """It is no empty bucket: somebody has mistyped its name, or has removed it."""
    store = GcsStore(f"{gcs}-not")
    with pytest.raises(StoreUnavailable, match=r"there is no bucket bucket-\w+-not; create it"):
        store.create("a", b"x")
    with pytest.raises(StoreUnavailable, match="there is no bucket"):
        store.list("")


PATIENCE = 1.0


@pytest.fixture
def cut(toxiproxy: Toxiproxy, tmp_path: pathlib.Path, gcs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["Cut"]:
    """A bucket behind a proxy, and the server that holds it."""
    port = free_port()
    server = FakeGcs(tmp_path / "gcs", proxied_port=port)
    server.start()
    server.create_bucket("bucket")
    proxy = toxiproxy.create(server.address, port=port)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
    yield Cut(server, proxy)
    proxy.delete()
    server.stop()


class Cut:
    """A bucket that can be cut off."""

    def __init__(self, server: FakeGcs, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.store = GcsStore("gs://bucket", patience=PATIENCE)

    def holds(self, path: str) -> bool:
        """Whether the server has an object, asked behind the proxy's back."""
        try:
            with urllib.request.urlopen(f"http://{self.server.address}/storage/v1/b/bucket/o/{path}", timeout=5):
                return True
        except urllib.error.HTTPError:
            return False


def _every_call(store: ObjectStore) -> list[tuple[type[Exception], float]]:
    """What each kind of call raises, and after how many seconds; all at the same time."""
    calls: list[Callable[[], object]] = [
        lambda: store.create("new", b"x"),
        lambda: store.read("old"),
        lambda: store.list(""),
        lambda: store.delete("old"),
    ]

    def time_to_fail(call: Callable[[], object]) -> tuple[type[Exception], float]:
        began = time.monotonic()
        try:
            call()
        except StoreError as error:
            return type(error), time.monotonic() - began
        raise AssertionError("a store that is cut off has answered")

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(time_to_fail, calls))


@pytest.mark.parametrize("how", ["server killed", "connections refused", "all data swallowed", "answers swallowed"])
def test_a_dead_bucket_is_reported_within_its_patience(cut: Cut, how: str) -> None:
    """Nobody can tell what became of the create; the other calls were not answered. It then recovers by itself."""
    cut.store.create("old", b"old")
    with contextlib.ExitStack() as mend:
        match how:
            case "server killed":
                cut.server.kill()
            case "connections refused":
                cut.proxy.down()
                mend.callback(cut.proxy.up)
            case "all data swallowed":
                mend.enter_context(cut.proxy.toxic("timeout", stream="upstream", timeout=0))
            case _:
                mend.enter_context(cut.proxy.toxic("timeout", timeout=0))
        answers = _every_call(cut.store)
    assert [error for error, _ in answers] == [OutcomeUnknown, *[StoreUnavailable] * 3]
    assert max(seconds for _, seconds in answers) < PATIENCE + 4
    if how != "server killed":
        cut.store.create("later", b"x")
        assert "later" in cut.store.list("")


def test_the_patience_that_is_usual_is_a_quarter_of_a_minute() -> None:
    assert PATIENCE_SECONDS == 15.0


async def test_an_answer_lost_after_the_create_took_effect_is_settled_as_ours(cut: Cut) -> None:
    with (
        cut.proxy.toxic("timeout", timeout=0),
        pytest.raises(OutcomeUnknown, match=r"no answer to the creation of 0\.json"),
    ):
        cut.store.create("0.json", b"ours")
    assert cut.holds("0.json")
    assert await settle(Inline(cut.store), at_once, "0.json", b"ours") == b"ours"
    assert await settle(Inline(cut.store), at_once, "0.json", b"another's") == b"ours"


async def test_a_create_that_the_client_repeated_is_refused_by_its_own_object_and_settled_as_ours(
    cut: Cut, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection breaks before the answer; the client asks again, and meets what it has just made."""
    caplog.set_level("DEBUG", "gcsfs")
    store = GcsStore("gs://bucket")
    with ThreadPoolExecutor(1) as threads:
        toxic = cut.proxy.add_toxic("limit_data", bytes=1)
        creating = threads.submit(store.create, "0.json", b"ours")
        eventually(lambda: "retrying after exception" in caplog.text, what="the client's second attempt")
        assert cut.holds("0.json")
        cut.proxy.remove_toxic(toxic)
        with pytest.raises(AlreadyExists):
            creating.result(PATIENCE_SECONDS)
    assert await settle(Inline(store), at_once, "0.json", b"ours") == b"ours"


# ---- which store a URL means ----


def test_a_url_names_its_store(tmp_path: pathlib.Path, gcs: str) -> None:
    stores = [open_store(url) for url in (str(tmp_path), gcs)]
    assert [type(store) for store in stores] == [LocalStore, GcsStore]
    for store in stores:
        store.create("a", b"x")
        assert store.list("") == ["a"]
    with pytest.raises(SettingsError, match=r"s3://bucket.*scheme is not known; use gs://"):
        open_store("s3://bucket")
