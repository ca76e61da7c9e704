"""The token that a push returns: which records of the view's push topic hold its rows.

    <View>@<incarnation>:<partition>-<offset>[,<partition>-<offset>…][;<epoch>]

    Departures@1:0-1041,3-977              a reader waits until Redis holds every row up to these offsets
    Departures@1:0-1041,3-977;5f1c0a93d2…  the rows were in Redis when the push was answered, under this epoch and by
                                           this server: a reader who finds the same in force need not wait

An offset is that of the last record of the push in its partition. Tokens are made by Stillwell and handed back as they
are; what is read here may come from anybody, and is bounded before it is looked at.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Self

from stillwell.errors import RequestError

MOST_PARTITIONS = 1_024
"""Of one token. A push of more rows than a topic has partitions names each partition once."""

MOST_CHARACTERS = 32 * 1_024
"""More than a token of so many partitions has: each takes 31 at the most."""

_TOKEN = re.compile(
    r"(?P<view>[A-Za-z_]\w{0,199})@(?P<incarnation>[0-9]{1,5})"
    r":(?P<places>[0-9]{1,10}-[0-9]{1,19}(?:,[0-9]{1,10}-[0-9]{1,19})*)(?:;(?P<epoch>[0-9A-Za-z_-]{1,64}))?",
    re.ASCII,
)
_PLACE = "[0-9]{1,9}-[0-9]{1,18}"
_MOST_INCARNATION = 2**16 - 1
_MOST_PARTITION = 2**32 - 1
_MOST_OFFSET = 2**63 - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """offsets: by partition, the last record that the push wrote there. epoch: under which epoch, and in
    which server, a synchronous push has written the rows to Redis (`stillwell.layout.online.written_under`); None where
    it did not."""

    view: str
    incarnation: int
    offsets: Mapping[int, int]
    epoch: str | None = None

    def __str__(self) -> str:
        """As it is handed out: partitions ascend, so that equal tokens are equal texts."""
        places = ",".join(f"{partition}-{self.offsets[partition]}" for partition in sorted(self.offsets))
        return f"{self.view}@{self.incarnation}:{places}" + (f";{self.epoch}" if self.epoch else "")

    @classmethod
    def of_places(cls, view: str, incarnation: int, places: Iterable[tuple[int, int]]) -> Self:
        """The token of records at these (partition, offset)."""
        offsets: dict[int, int] = {}
        for partition, offset in places:
            offsets[partition] = max(offset, offsets.get(partition, -1))
        return cls(view, incarnation, offsets)

    def applied(self, epoch: str) -> Self:
        """The same, whose rows are in Redis under this epoch and in this server."""
        return dataclasses.replace(self, epoch=epoch)

    @classmethod
    def parse(cls, text: str, field: str = "after") -> Self:
        """From its text. field: what a RequestError calls it, which is raised for anything that is no token."""
        if len(text) > MOST_CHARACTERS:
            raise RequestError(field, f"has {len(text)} characters; a token has at most {MOST_CHARACTERS}")
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise RequestError(
                field, f"must be a token as a push has returned it, <View>@1:<partition>-<offset>…, not {text[:80]!r}"
            )
        incarnation = int(match["incarnation"])
        if not 1 <= incarnation <= _MOST_INCARNATION:
            raise RequestError(field, f"names the incarnation {incarnation}; they are from 1 to {_MOST_INCARNATION}")
        return cls(match["view"], incarnation, _offsets(match["places"].split(","), field), match["epoch"])


def token_pattern(views: Collection[str] | None) -> str:
    """What tokens of these views look like, or of any, as JSON Schema has it. Incarnations, partitions and offsets of
    as many digits as the largest have are left out: no topic comes to them, and not all of them would be read."""
    view = "[A-Za-z_][A-Za-z0-9_]{0,199}" if views is None else "(" + "|".join(sorted(views)) + ")"
    return f"{view}@[1-9][0-9]{{0,3}}:{_PLACE}(,{_PLACE})*(;[0-9A-Za-z_-]{{1,64}})?"


def _offsets(places: list[str], field: str) -> dict[int, int]:
    if len(places) > MOST_PARTITIONS:
        raise RequestError(field, f"names {len(places)} partitions; a token has at most {MOST_PARTITIONS}")
    offsets: dict[int, int] = {}
    for place in places:
        partition, offset = map(int, place.split("-"))
        if partition in offsets:
            raise RequestError(field, f"names partition {partition} twice; hand the token back as it came")
        if partition > _MOST_PARTITION or offset > _MOST_OFFSET:
            raise RequestError(field, f"names the record {place}, which no topic of Kafka's can have")
        offsets[partition] = offset
    return offsets
