"""Apache Kafka's jars: fetched once from Maven Central, held to the hashes that ship with Stillwell, kept in a cache.

`kafka-<version>.jars` lists all that the broker needs, one `group:artifact:version bytes sha256` a line, so that every
machine runs the same broker and nothing is resolved at start. A jar is trusted because it is there: it was renamed into
place after its hash had been checked, so that an interrupted download leaves nothing behind that could be believed.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stillwell.errors import LocalStackError

KAFKA_VERSION = "4.1.2"
MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"

_CONNECTIONS = 6
_ATTEMPTS = 3
_TIMEOUT_S = 30
_LIST = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.jars")

Progress = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes to fetch in all; from several threads, one at a time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Jar:
    """One file of the broker's class path."""

    coordinate: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """`artifact-version.jar`, as Maven names it."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache_folder() -> Path:
    """Where downloads are kept between runs: $STILLWELL_CACHE, or `stillwell` in the user's cache folder."""
    if named := os.environ.get("STILLWELL_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "stillwell"


def kafka_jars() -> tuple[Jar, ...]:
    """The jars of the broker, as the list beside this file says."""
    lines = (line.split() for line in _LIST.read_text().splitlines())
    return tuple(Jar(coordinate, int(size), sha256) for coordinate, size, sha256 in lines)


def kafka_class_path(*, cache: Path | None = None, progress: Progress | None = None) -> str:
    """Java's class path for the broker; what the cache lacks is fetched first, by one process at a time.

    $STILLWELL_MAVEN_URL names a mirror to use in Maven Central's place. Raises LocalStackError.
    """
    jars = kafka_jars()
    folder = (cache or cache_folder()) / f"kafka-{KAFKA_VERSION}"
    paths = [folder / jar.file_name for jar in jars]
    if not all(path.exists() for path in paths):
        with _exclusive(folder):
            _fetch([jar for jar in jars if not (folder / jar.file_name).exists()], folder, progress)
    return os.pathsep.join(str(path) for path in paths)


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for whoever has it: the second of two starts finds the first one's jars."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115  closed below; the error worded here is for opening alone
    except OSError as error:
        raise LocalStackError(
            f"Apache Kafka's jars are kept in {folder}, but it cannot be written ({error.strerror}). Set "
            "STILLWELL_CACHE to a folder that can."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(jars: Sequence[Jar], folder: Path, progress: Progress | None) -> None:
    """Download the jars into the folder, several at once."""
    needed = sum(jar.size for jar in jars)
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise LocalStackError(
            f"Apache Kafka's jars need {needed / 1e6:.0f} MB in {folder}, where {free / 1e6:.0f} MB are free. Make "
            "room, or set STILLWELL_CACHE to a folder on another disk."
        )
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, needed)

    # Whatever a dead process left is removed here: its staging folder lies inside, and the lock says it has gone.
    for stale in folder.glob("fetch-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as staging,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        fetches = [pool.submit(_fetch_one, jar, Path(staging), folder) for jar in jars]
        try:
            for jar, fetched in zip(jars, fetches, strict=True):
                fetched.result()
                count(jar.size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(jar: Jar, staging: Path, folder: Path) -> None:
    """Download one jar, check it, and move it into place.

    Raises LocalStackError when it cannot be fetched, or is not the file that the list names.
    """
    # Imported here, because only a first start needs it: it brings an HTTP client of its own.
    import requests
    from jgo.maven import MavenContext

    url = os.environ.get("STILLWELL_MAVEN_URL", MAVEN_CENTRAL).rstrip("/")
    group, artifact, version = jar.coordinate.split(":")
    problem = ""
    for attempt in range(_ATTEMPTS):
        maven = MavenContext(
            repo_cache=staging / f"{jar.sha256}-{attempt}", remote_repos={"central": url}, timeout=_TIMEOUT_S
        )
        try:
            downloaded = maven.resolver.download(maven.project(group, artifact).at_version(version).artifact())
        except (requests.RequestException, RuntimeError, OSError) as error:
            problem = str(error)
            continue
        if downloaded is None:
            problem = "there is no such file"
            continue
        came = hashlib.sha256(downloaded.read_bytes()).hexdigest()
        if came != jar.sha256:
            problem = f"the file that came has SHA-256 {came} instead of {jar.sha256}"
            continue
        downloaded.replace(folder / jar.file_name)
        return
    raise LocalStackError(
        f"Apache Kafka's jar {jar.coordinate} could not be fetched from {url}: {problem}. Check the network and "
        "HTTPS_PROXY, and REQUESTS_CA_BUNDLE if a proxy shows a certificate of its own; set STILLWELL_MAVEN_URL to a "
        f"mirror of Maven Central, or copy the folder {folder} from a machine that has it."
    )
