"""An object store in memory, with faults on demand: the twin of the real ones, under the same contract."""

import datetime
import threading
from collections.abc import Callable
from typing import Literal

from stillwell.errors import AlreadyExists, NotFound, OutcomeUnknown, StoreUnavailable

Operation = Literal["create", "read", "list", "delete"]
Fault = Literal["refused", "lost answer", "lost call"]
FaultPlan = Callable[[Operation, str], Fault | None]
"""Asked before each call: None lets it pass; `refused` fails it without effect and says so; `lost answer` carries it
out and `lost call` does not, and the caller cannot tell which (for a read or a list, both mean unavailable)."""


def no_faults(operation: Operation, path: str) -> Fault | None:
    """Every call succeeds."""
    return None


class MemoryStore:
    """Objects in a dictionary. Safe to use from several threads, as the real stores are."""

    def __init__(self, faults: FaultPlan = no_faults) -> None:
        self.url = "memory://"
        self.objects: dict[str, bytes] = {}
        self.faults = faults
        self._lock = threading.Lock()

    def create(self, path: str, data: bytes) -> None:
        """Keep the bytes under a path that is not taken."""
        fault = self._fault("create", path)
        if fault == "lost call":
            raise OutcomeUnknown(f"no answer to the creation of {path}")
        with self._lock:
            taken = path in self.objects
            if not taken:
                self.objects[path] = bytes(data)
        if fault == "lost answer":
            raise OutcomeUnknown(f"no answer to the creation of {path}")
        if taken:
            raise AlreadyExists(f"{path} exists already")

    def read(self, path: str) -> bytes:
        """The bytes under a path."""
        self._unavailable_on_fault("read", path)
        try:
            return self.objects[path]
        except KeyError:
            raise NotFound(f"there is no {path}") from None

    def list(self, prefix: str) -> list[str]:
        """The paths that begin with the prefix, sorted."""
        self._unavailable_on_fault("list", prefix)
        with self._lock:
            return sorted(path for path in self.objects if path.startswith(prefix))

    def delete(self, path: str) -> None:
        """Forget a path."""
        fault = self._fault("delete", path)
        if fault != "lost call":
            self.objects.pop(path, None)
        if fault:
            raise StoreUnavailable(f"no answer to the deletion of {path}")

    def half_written(self, before: datetime.datetime) -> tuple[str, ...]:
        """None: an object is kept as a whole."""
        return ()

    def _fault(self, operation: Operation, path: str) -> Fault | None:
        fault = self.faults(operation, path)
        if fault == "refused":
            raise StoreUnavailable(f"{operation} {path}: refused by the test")
        return fault

    def _unavailable_on_fault(self, operation: Operation, path: str) -> None:
        if self._fault(operation, path):
            raise StoreUnavailable(f"{operation} {path}: no answer")
