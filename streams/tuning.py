"""What the worker sets for its whole process: it moves batches of megabytes, which is not what the defaults are for.

What each is worth: docs/explanation/performance.md.
"""

import ctypes
import gc
import os

_OBJECTS_BETWEEN_COLLECTIONS = 50_000

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 128 << 20
_MAPPED_BYTES = 32 << 20  # the most that glibc takes


def tune() -> None:
    """Call it before anything imports Polars or Arrow, which read their settings only then, and before any thread."""
    # Frames of a few thousand rows: handing them to a pool of threads costs more than the pool saves, and the cores
    # have other work. Whoever has wide views and idle cores may set it otherwise.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    # Arrow's own allocator gives pages back at once and gets them again, zeroed, for the next batch. So does glibc's
    # with what is larger than 128 KiB, and with the end of each thread's own heap, unless it is told to keep some.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _keep_freed_memory()
    # A batch is thousands of records, each an object that the collector tracks, and none of them is in a cycle. By
    # default it looks at them every 700 objects.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def settle() -> None:
    """Call it once everything is imported and made: what is there now stays, and need not be looked at any more."""
    gc.collect()
    gc.freeze()


def _keep_freed_memory() -> None:
    """Where the C library is glibc, that is: others have no such settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
