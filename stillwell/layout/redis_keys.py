"""The names of everything that Stillwell keeps in Redis.

    <project>:<namespace>:
        f:{<bucket>}:<entity key>:<view>                       string   the newest row of an entity in a view
        p:{<bucket>}:<entity key>:<model>:<version>[:<digest>] string   the prediction of a model for an entity; digest:
                                                                        of the request values, where it has any
        l:{<bucket>}:<entity key>:<model>:<version>[:<digest>]:<fingerprint>
                                                               string   who asks the model now, for these inputs
        r:{<bucket>}:<entity key>:<view>:<model>:<version>     zset     the entities whose predictions read this row
                                                                        through an alias, no more than so many
        ready                                                  string   the epoch in force; missing: the store may have
                                                                        forgotten something, nobody reads or writes
        rebuild                                                string   the epoch of a rebuild that is under way, which
                                                                        becomes `ready` in its last step
        m:<topic>@<incarnation>:<partition>:<view>:<version>   string   an applied mark: every row of that view version
                                                                        from offsets below it is in Redis
        a:<view>:<digest>                                      string   what a push was answered, for who sends it again
                                                                        under the same idempotency key; digest: its
                                                                        SHA-256. Gone after ten minutes
        probe:<random>[:0|:1|:moved|:readers]                  any      what `stillwell doctor` writes to learn whether
                                                                        it may; gone at once, or within a minute or so

    bucket      crc32(entity key) mod 1024, in decimal
    entity key  as `stillwell.layout.entity_key` writes it; it says where it ends, whatever bytes are in it

A row's braces are the hash tag of Redis Cluster: hundreds of entities share a bucket, and with it a slot and a call.
Ready, rebuild and marks live for ever, and so may rows; all others have a time to live. Project, namespace, view,
model, version and topic are of letters, digits, `_`, `-` and `.` (and `~` and `/` in the topics of loaded batches), so
that no colon or brace of theirs can be mistaken for one of the scheme's.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from stillwell.layout.online import MarkKey

BUCKETS = 1024

_NAME = re.compile(r"[a-z0-9_-]+")
_VIEW = re.compile(r"\w+")
_TOPIC = re.compile(r"[A-Za-z0-9._~/-]+")
_VERSION = re.compile(r"[A-Za-z0-9._-]+")


class PredictionsOf(NamedTuple):
    """Whose predictions: a model's name and its version."""

    model: str
    version: str


class RedisKeys:
    """The keys of one project and namespace. Raises ValueError for a name that could be mistaken for something else."""

    def __init__(self, project: str, namespace: str) -> None:
        _require("project", project, _NAME)
        _require("namespace", namespace, _NAME)
        self.prefix = f"{project}:{namespace}:".encode()
        self.ready = self.prefix + b"ready"
        self.rebuild = self.prefix + b"rebuild"
        self.probe = self.prefix + b"probe:"
        self._buckets = self._buckets_of(b"f")
        self._predictions = self._buckets_of(b"p")
        self._leases = self._buckets_of(b"l")
        self._readers = self._buckets_of(b"r")

    def _buckets_of(self, kind: bytes) -> list[bytes]:
        return [b"%b%b:{%d}:" % (self.prefix, kind, bucket) for bucket in range(BUCKETS)]

    def rows(self, view: str, entity_keys: Sequence[bytes]) -> list[bytes]:
        """Where the rows of these entities are."""
        suffix = self.suffix(view)
        return [place + suffix for place in self.places(entity_keys)]

    def places(self, entity_keys: Sequence[bytes]) -> list[bytes]:
        """What the keys of all rows of these entities begin with; behind it stands a view's suffix."""
        buckets = self._buckets
        return [buckets[crc32(entity) % BUCKETS] + entity for entity in entity_keys]

    def suffix(self, view: str) -> bytes:
        """What the keys of a view's rows end with."""
        return _suffix(view)

    def predictions(
        self, of: PredictionsOf, entity_keys: Sequence[bytes], digests: Sequence[bytes] = ()
    ) -> list[bytes]:
        """Where a model's predictions for these entities are. digests: of each one's request values, if it has any."""
        return self._of_model(self._predictions, of, _numbers(entity_keys), entity_keys, digests)

    def predictions_and_rows(
        self, of: PredictionsOf, views: Sequence[str], entity_keys: Sequence[bytes], digests: Sequence[bytes] = ()
    ) -> list[bytes]:
        """Where a model's predictions for these entities are, and behind them, view by view, the rows of the same
        entities. The bucket of each is worked out once."""
        if len(entity_keys) == 1:  # as for most reads: in half of the time
            (entity,), number = entity_keys, crc32(entity_keys[0]) % BUCKETS
            key = self._predictions[number] + entity + _suffix_of_model(of)
            place = self._buckets[number] + entity
            return [b"%b:%b" % (key, digests[0]) if digests else key, *[place + _suffix(view) for view in views]]
        numbers, rows = _numbers(entity_keys), self._buckets
        keys = self._of_model(self._predictions, of, numbers, entity_keys, digests)
        places = [rows[number] + entity for number, entity in zip(numbers, entity_keys, strict=True)]
        return keys + [place + suffix for suffix in map(_suffix, views) for place in places]

    def leases(
        self,
        of: PredictionsOf,
        entity_keys: Sequence[bytes],
        fingerprints: Sequence[bytes],
        digests: Sequence[bytes] = (),
    ) -> list[bytes]:
        """Where it stands who asks the model for these entities, given the fingerprint of each one's inputs."""
        keys = self._of_model(self._leases, of, _numbers(entity_keys), entity_keys, digests)
        return [b"%b:%b" % (key, print.hex().encode()) for key, print in zip(keys, fingerprints, strict=True)]

    def readers(self, of: PredictionsOf, view: str, entity_keys: Sequence[bytes]) -> list[bytes]:
        """Where it stands which of a model's predictions read the rows of these entities, of another entity than the
        model's own."""
        _require("view", view, _VIEW)
        _require("model", of.model, _VIEW)
        _require("version", of.version, _VERSION)
        buckets, suffix = self._readers, f":{view}:{of.model}:{of.version}".encode()
        return [buckets[crc32(entity) % BUCKETS] + entity + suffix for entity in entity_keys]

    def _of_model(
        self,
        buckets: Sequence[bytes],
        of: PredictionsOf,
        numbers: Sequence[int],
        entity_keys: Sequence[bytes],
        digests: Sequence[bytes],
    ) -> list[bytes]:
        """numbers: of the entities' buckets."""
        suffix = _suffix_of_model(of)
        keys = [buckets[number] + entity + suffix for number, entity in zip(numbers, entity_keys, strict=True)]
        return [b"%b:%b" % each for each in zip(keys, digests, strict=True)] if digests else keys

    def answer(self, view: str, digest: str) -> bytes:
        """Where it stands what a push was answered. digest: of its idempotency key, in hexadecimal."""
        _require("view", view, _VIEW)
        _require("digest", digest, _VIEW)
        return b"%ba:%b" % (self.prefix, f"{view}:{digest}".encode())

    def mark(self, mark: MarkKey) -> bytes:
        """Where an applied mark is."""
        id = mark.id
        _require("view", mark.view, _VIEW)
        _require("topic", id.topic, _TOPIC)
        return b"%bm:%b" % (
            self.prefix,
            f"{id.topic}@{id.incarnation}:{id.partition}:{mark.view}:{mark.version}".encode(),
        )


def _numbers(entity_keys: Sequence[bytes]) -> list[int]:
    """Of the entities' buckets."""
    return [crc32(entity) % BUCKETS for entity in entity_keys]


@functools.lru_cache(maxsize=10_000)
def _suffix(view: str) -> bytes:
    """Made once for a view: to look at its name would take longer than to make a key."""
    _require("view", view, _VIEW)
    return b":%b" % view.encode()


@functools.lru_cache(maxsize=1_000)
def _suffix_of_model(of: PredictionsOf) -> bytes:
    _require("model", of.model, _VIEW)
    _require("version", of.version, _VERSION)
    return f":{of.model}:{of.version}".encode()


def _require(what: str, name: str, allowed: re.Pattern[str]) -> None:
    if not allowed.fullmatch(name):
        raise ValueError(f"{what} {name!r} cannot stand in a Redis key: it must match {allowed.pattern}")
