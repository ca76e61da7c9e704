"""The object store: named bytes that are created once and never changed. A folder, or Google Cloud Storage.

Everything at rest stands on one property: `create` is *create-only*. Of any number of writers who race for one path,
exactly one succeeds and the others are told; an object is there as a whole or not at all. GCS gives it by the
precondition `ifGenerationMatch=0`, a local file system by an exclusive link.

A create has three outcomes, and callers must tell them apart: done (it returns), refused (`AlreadyExists`), and unknown
(`OutcomeUnknown`: the answer was lost; the object may be there, may still arrive, or never). Some clients repeat a
create whose answer was lost and then report "exists" for an object of their own making, so neither refusal nor doubt
says who won: only reading back does.
"""

import contextlib
import datetime
import errno
import math
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Any, Protocol

from stillwell.errors import AlreadyExists, NotFound, OutcomeUnknown, SettingsError, StoreUnavailable

PATIENCE_SECONDS = 15.0
"""How long a remote store may be silent. Less turns a slow minute of the store into errors; more lets a dead one hold
its callers, and the revocation of their partitions, for longer."""

_SLOWEST_UPLOAD = 1 << 20  # bytes a second: an upload that is slower than this is given up, and made anew by its caller
_PIECE = 8 << 20  # bytes of one read: each has the whole patience, so that a large object may take its time
_STEP = 128 << 10  # bytes of one write to a file: some kernels do nothing else on its core, which took 6 ms for 6 MB
_PAGE = 1_000  # names of one answer to a list, as many as the service gives
_ANONYMOUS = "anon"  # gcsfs' word for whoever wants to do without credentials
_NO_SUCH_RANGE = 416  # the status of a read from behind an object's end

_TEMPORARY = ".creating-"


class ObjectStore(Protocol):
    """Paths are relative to `url`, with `/` between their parts. Calls block; use them from a thread.

    No path may be the folder of another (`a/b` beside `a/b/c`): a bucket could hold both, a file system cannot.
    """

    @property
    def url(self) -> str:
        """Where the store is, as the setting names it."""

    def create(self, path: str, data: bytes) -> None:
        """Write a new object, durably. Raises AlreadyExists, OutcomeUnknown, or StoreUnavailable (not done)."""

    def read(self, path: str) -> bytes:
        """The object's bytes. Raises NotFound or StoreUnavailable."""

    def list(self, prefix: str) -> list[str]:
        """Every path that begins with the prefix (a folder's path ends in `/`), sorted. Raises StoreUnavailable."""

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error. Raises StoreUnavailable."""

    def half_written(self, before: datetime.datetime) -> tuple[str, ...]:
        """Where creates that ended half way have left bytes behind, untouched since an instant; `delete` removes them.

        They are no objects: no other method shows them. To delete one whose create is still under way does no harm:
        the create finds it gone, and counts as unknown. Raises StoreUnavailable.
        """


def open_store(url: str) -> ObjectStore:
    """The store that a URL names: `gs://bucket/prefix`, or a folder's path.

    Raises SettingsError for another scheme, and StoreUnavailable where a bucket's credentials cannot be had now. To ask
    for them may take some twenty seconds.
    """
    if url.startswith("gs://"):
        return GcsStore(url)
    if "://" in url:
        raise SettingsError(f"offline URL {url!r}: the scheme is not known; use gs://bucket/prefix or a folder's path")
    return LocalStore(url)


class LocalStore:
    """A folder as an object store. Survives a power cut as far as the file system keeps what was fsynced."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = pathlib.Path(url).expanduser().resolve()

    def create(self, path: str, data: bytes) -> None:
        """Write beside the path, then link the finished file to its name: the link is what is exclusive."""
        target = self._root / path
        temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            self._make_folder(target.parent)
            _write(temporary, data)
        except OSError as error:
            _forget(temporary)
            raise _unavailable(self.url, path, error) from error
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise AlreadyExists(f"{self.url}: {path} exists already") from error
        except OSError as error:
            # On a network file system the link may have been made all the same.
            raise OutcomeUnknown(f"{self.url}: {path} may or may not have been created: {error}") from error
        finally:
            _forget(temporary)
        try:
            self._sync_folders(target.parent)
        except OSError as error:
            raise OutcomeUnknown(f"{self.url}: {path} was written, but may not survive a power cut: {error}") from error

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{self.url}: there is no {path}") from error
        except OSError as error:
            raise _unavailable(self.url, path, error) from error

    def list(self, prefix: str) -> list[str]:
        """Every file under the prefix; what is half written has a name of its own and is left out."""
        folder, _, _ = prefix.rpartition("/")
        try:
            paths = (
                path.relative_to(self._root).as_posix()
                for path in _files(self._root / folder)
                if not path.name.startswith(_TEMPORARY)
            )
            return sorted(path for path in paths if path.startswith(prefix))
        except OSError as error:
            raise _unavailable(self.url, prefix, error) from error

    def delete(self, path: str) -> None:
        """Remove the file; folders stay."""
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                (self._root / path).unlink()
        except OSError as error:
            raise _unavailable(self.url, path, error) from error

    def half_written(self, before: datetime.datetime) -> tuple[str, ...]:
        """Temporary files whose writers were killed, by the file system's own clock."""
        try:
            return tuple(
                path.relative_to(self._root).as_posix()
                for path in sorted(_files(self._root))
                if path.name.startswith(_TEMPORARY) and _last_touched(path) < before.timestamp()
            )
        except OSError as error:
            raise _unavailable(self.url, "", error) from error

    def _make_folder(self, folder: pathlib.Path) -> None:
        missing = [each for each in (self._root, *self._root.parents) if not each.exists()]
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            _sync_folder(made.parent)
        folder.mkdir(parents=True, exist_ok=True)

    def _sync_folders(self, folder: pathlib.Path) -> None:
        """A file outlives a power cut if its name does in its folder, the folder's in its own, up to the root."""
        while folder != self._root:
            _sync_folder(folder)
            folder = folder.parent
        _sync_folder(folder)


class GcsStore:
    """A bucket, or a prefix in one, on Google Cloud Storage, by gcsfs. Zonal buckets are not supported.

    gcsfs repeats what fails, up to 34 s long, and without bounds waits for what is silent. So every exchange has a
    deadline: `patience`, in seconds, and for an upload the time that its bytes may take.

    Where it finds no credentials it goes on without any, and is refused for ever after: a pod's metadata server may be
    silent for its first seconds. So there is no store without credentials, unless that is asked for: to make one
    raises StoreUnavailable, and may work later.
    """

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS) -> None:
        # Not `gcsfs.GCSFileSystem`: that is by default a subclass which asks for the kind of bucket first, over another
        # protocol, and in a zonal bucket overwrites whatever the mode says.
        from gcsfs.core import GCSFileSystem

        self.url = url.rstrip("/")
        self._bucket, _, prefix = self.url.removeprefix("gs://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience
        try:
            # Made anew each time: fsspec would keep the one that had found no credentials.
            self._files = GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)
        except Exception as error:
            raise self._no_credentials(f": {error!r}") from error
        found = self._files.credentials
        if found.credentials is None and found.token != _ANONYMOUS:
            raise self._no_credentials("")

    def create(self, path: str, data: bytes) -> None:
        """One upload under `ifGenerationMatch=0`. Whatever is not a clear answer counts as unknown."""
        deadline = self._patience + len(data) / _SLOWEST_UPLOAD
        try:
            self._files.pipe_file(self._address(path), data, mode="create", timeout=deadline)
        except FileExistsError as error:
            raise AlreadyExists(f"{self.url}: {path} exists already") from error
        except FileNotFoundError as error:
            raise self._no_bucket() from error
        except Exception as error:
            raise OutcomeUnknown(f"{self.url}: no answer to the creation of {path}: {error!r}") from error

    def read(self, path: str) -> bytes:
        """The object's bytes, piece by piece; they cannot change in between."""
        try:
            url = self._files.url(self._address(path))
            pieces = [b""]
            read, size = 0, 1
            while read < size:
                headers, piece = self._ask("GET", url, headers={"Range": f"bytes={read}-{read + _PIECE - 1}"})
                pieces.append(piece)
                read += len(piece)
                size = int(headers["Content-Range"].rpartition("/")[2]) if "Content-Range" in headers else read
        except FileNotFoundError as error:
            raise NotFound(f"{self.url}: there is no {path}") from error
        except Exception as error:
            if getattr(error, "code", None) == _NO_SUCH_RANGE:
                return b""  # an empty object has not even a first byte
            raise _unavailable(self.url, path, error) from error
        return b"".join(pieces)

    def list(self, prefix: str) -> list[str]:
        """Every object under the prefix, page by page; shows what others created a moment ago."""
        names: list[str] = []
        page = None
        try:
            while True:
                answer = self._ask(
                    "GET",
                    "b/{}/o",
                    self._bucket,
                    prefix=self._prefix + prefix,
                    fields="items(name),nextPageToken",
                    maxResults=_PAGE,
                    pageToken=page,
                    json_out=True,
                )
                names += [item["name"] for item in answer.get("items", ())]
                page = answer.get("nextPageToken")
                if not page:
                    break
        except FileNotFoundError as error:
            raise self._no_bucket() from error
        except Exception as error:
            raise _unavailable(self.url, prefix, error) from error
        return sorted(name[len(self._prefix) :] for name in names)

    def delete(self, path: str) -> None:
        """Remove the object."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._ask("DELETE", "b/{}/o/{}", self._bucket, self._prefix + path)
        except Exception as error:
            raise _unavailable(self.url, path, error) from error

    def half_written(self, before: datetime.datetime) -> tuple[str, ...]:
        """None: the service forgets an upload that is not finished within a week."""
        return ()

    def _ask(self, *request: str, **parameters: Any) -> Any:
        return self._files.call(*request, timeout=self._patience, **parameters)

    def _address(self, path: str) -> str:
        return f"{self._bucket}/{self._prefix}{path}"

    def _no_credentials(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.url}: Google gives no credentials{why}; name a service account, by workload identity or "
            f"GOOGLE_APPLICATION_CREDENTIALS; an emulator is asked without any by FSSPEC_GCS_TOKEN={_ANONYMOUS}"
        )

    def _no_bucket(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.url}: there is no bucket {self._bucket}; create it, the worker goes on by itself"
        )


def _unavailable(url: str, path: str, error: Exception) -> StoreUnavailable:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StoreUnavailable(f"{url}: no space is left for {path}; free some, the worker goes on by itself")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return StoreUnavailable(
            f"{url}: {path} cannot be written, the disk there is read-only; mount it otherwise, or name another folder"
        )
    return StoreUnavailable(f"{url}: {path or 'the root'} cannot be reached: {error!r}")


def _write(path: pathlib.Path, data: bytes) -> None:
    left = memoryview(data)
    with path.open("xb", buffering=0) as file:
        while left:
            left = left[file.write(left[:_STEP]) :]
        os.fsync(file.fileno())


def _forget(temporary: pathlib.Path) -> None:
    # What stays behind takes room, but is never listed nor read: no reason to hide what became of the create.
    with contextlib.suppress(OSError):
        temporary.unlink()


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent, _, names in os.walk(folder, onerror=_fail_unless_absent):
        yield from (pathlib.Path(parent) / name for name in names)


def _last_touched(path: pathlib.Path) -> float:
    """Seconds since the epoch; for a file that has gone meanwhile, the end of all time."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _fail_unless_absent(error: OSError) -> None:
    # Left to itself, os.walk takes a folder that it cannot read for an empty one.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
