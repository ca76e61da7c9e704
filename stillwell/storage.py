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
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Protocol

from stillwell.errors import AlreadyExists, NotFound, OutcomeUnknown, SettingsError, StoreUnavailable

_TEMPORARY = ".creating-"
_CALL_TIMEOUT_SECONDS = 60.0


class ObjectStore(Protocol):
    """Paths are relative to `url`, with `/` between their parts. Calls block; use them from a thread."""

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


def open_store(url: str) -> ObjectStore:
    """The store that a URL names: `gs://bucket/prefix`, `file:///folder`, or a folder's path.

    Raises SettingsError for another scheme.
    """
    if url.startswith("gs://"):
        return GcsStore(url)
    if "://" in url and not url.startswith("file://"):
        raise SettingsError(
            f"offline URL {url!r}: the scheme is not known; use gs://bucket/prefix, file:///folder or a folder's path"
        )
    return LocalStore(url)


class LocalStore:
    """A folder as an object store. Survives a power cut as far as the file system keeps what was fsynced."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = pathlib.Path(url.removeprefix("file://")).expanduser().resolve()

    def create(self, path: str, data: bytes) -> None:
        """Write beside the path, then link the finished file to its name: the link is what is exclusive."""
        target = self._root / path
        temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unavailable(self.url, path, error) from error
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise AlreadyExists(f"{self.url}: {path} exists already") from error
        except OSError as error:
            raise _unavailable(self.url, path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        try:
            _sync_folder(target.parent)
        except OSError as error:
            raise OutcomeUnknown(f"{self.url}: {path} was written, but may not survive a power cut: {error}") from error

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{self.url}: there is no {path}") from error
        except OSError as error:
            raise _unavailable(self.url, path, error) from error

    def list(self, prefix: str) -> list[str]:
        """Every file under the prefix; what is half written has a name of its own and is left out."""
        folder, _, _ = prefix.rpartition("/")
        try:
            return sorted(path for path in self._walk(self._root / folder) if path.startswith(prefix))
        except OSError as error:
            raise _unavailable(self.url, prefix, error) from error

    def delete(self, path: str) -> None:
        """Remove the file; folders stay."""
        try:
            (self._root / path).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(self.url, path, error) from error

    def _walk(self, folder: pathlib.Path) -> Iterator[str]:
        for parent, _, names in os.walk(folder):
            for name in names:
                if not name.startswith(_TEMPORARY):
                    yield (pathlib.Path(parent) / name).relative_to(self._root).as_posix()


class GcsStore:
    """A bucket, or a prefix in one, on Google Cloud Storage, by gcsfs."""

    def __init__(self, url: str) -> None:
        import gcsfs

        self.url = url.rstrip("/")
        self._root = self.url.removeprefix("gs://")
        # Listings must show what other writers did a moment ago.
        self._files = gcsfs.GCSFileSystem(use_listings_cache=False, requests_timeout=_CALL_TIMEOUT_SECONDS)

    def create(self, path: str, data: bytes) -> None:
        """One upload under `ifGenerationMatch=0`. Whatever is not a clear answer counts as unknown."""
        try:
            self._files.pipe_file(f"{self._root}/{path}", data, mode="create")
        except FileExistsError as error:
            raise AlreadyExists(f"{self.url}: {path} exists already") from error
        except Exception as error:
            raise OutcomeUnknown(f"{self.url}: no answer to the creation of {path}: {error!r}") from error

    def read(self, path: str) -> bytes:
        """The object's bytes."""
        try:
            data: bytes = self._files.cat_file(f"{self._root}/{path}")
        except FileNotFoundError as error:
            raise NotFound(f"{self.url}: there is no {path}") from error
        except Exception as error:
            raise _unavailable(self.url, path, error) from error
        return data

    def list(self, prefix: str) -> list[str]:
        """Every object under the prefix, by one paged listing of its folder."""
        folder, _, _ = prefix.rpartition("/")
        try:
            found = self._files.find(f"{self._root}/{folder}".rstrip("/"))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _unavailable(self.url, prefix, error) from error
        paths = (path[len(self._root) + 1 :] for path in found)
        return sorted(path for path in paths if path.startswith(prefix))

    def delete(self, path: str) -> None:
        """Remove the object."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(f"{self._root}/{path}")
        except Exception as error:
            raise _unavailable(self.url, path, error) from error


def _unavailable(url: str, path: str, error: Exception) -> StoreUnavailable:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StoreUnavailable(f"{url}: no space is left for {path}; free some, the worker goes on by itself")
    return StoreUnavailable(f"{url}: {path or 'the root'} cannot be reached: {error!r}")


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
