"""The names of everything that Stillwell keeps in Redis.

    <project>:<namespace>:
        f:{<bucket>}:<entity key>:<view>                       string   the newest row of an entity in a view
        ready                                                  string   the epoch in force; missing: the store may have
                                                                        forgotten something, nobody reads or writes
        rebuild                                                string   the epoch of a rebuild that is under way, which
                                                                        becomes `ready` in its last step
        m:<topic>@<incarnation>:<partition>:<view>:<version>   string   an applied mark: every row of that view version
                                                                        from offsets below it is in Redis
        probe:<random>[:0|:1|:moved]                           string   what `stillwell doctor` writes to learn whether
                                                                        it may; gone at once, or within a minute or so

    bucket      crc32(entity key) mod 1024, in decimal
    entity key  as `stillwell.layout.entity_key` writes it; it says where it ends, whatever bytes are in it

A row's braces are the hash tag of Redis Cluster: hundreds of entities share a bucket, and with it a slot and a call.
Only rows and probes may have a time to live; the others live for ever. Project, namespace, view and topic are of
letters, digits, `_`, `-` and `.` (and `~` and `/` in the topics of loaded batches), so that no colon or brace of theirs
can be mistaken for one of the scheme's.
"""

import re
from collections.abc import Sequence
from zlib import crc32

from stillwell.layout.online import MarkKey

BUCKETS = 1024

_NAME = re.compile(r"[a-z0-9_-]+")
_VIEW = re.compile(r"\w+")
_TOPIC = re.compile(r"[A-Za-z0-9._~/-]+")


class RedisKeys:
    """The keys of one project and namespace. Raises ValueError for a name that could be mistaken for something else."""

    def __init__(self, project: str, namespace: str) -> None:
        _require("project", project, _NAME)
        _require("namespace", namespace, _NAME)
        self.prefix = f"{project}:{namespace}:".encode()
        self.ready = self.prefix + b"ready"
        self.rebuild = self.prefix + b"rebuild"
        self.probe = self.prefix + b"probe:"
        self._buckets = [b"%bf:{%d}:" % (self.prefix, bucket) for bucket in range(BUCKETS)]

    def rows(self, view: str, entity_keys: Sequence[bytes]) -> list[bytes]:
        """Where the rows of these entities are."""
        _require("view", view, _VIEW)
        suffix = b":%b" % view.encode()
        buckets = self._buckets
        return [buckets[crc32(entity) % BUCKETS] + entity + suffix for entity in entity_keys]

    def mark(self, mark: MarkKey) -> bytes:
        """Where an applied mark is."""
        id = mark.id
        _require("view", mark.view, _VIEW)
        _require("topic", id.topic, _TOPIC)
        return b"%bm:%b" % (
            self.prefix,
            f"{id.topic}@{id.incarnation}:{id.partition}:{mark.view}:{mark.version}".encode(),
        )


def _require(what: str, name: str, allowed: re.Pattern[str]) -> None:
    if not allowed.fullmatch(name):
        raise ValueError(f"{what} {name!r} cannot stand in a Redis key: it must match {allowed.pattern}")
