"""The rows in Redis beside those of the oracle, value by value."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from scripts.flights.oracle import VIEWS, Key, Row
from sinks.redis import RedisOnlineStore
from stillwell.layout.entity_key import entity_key
from stillwell.layout.value import DecodedRow, RowLayout, decode
from stillwell.spec import ViewSpec

_ENTITIES_AT_A_TIME = 1_000
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """What the comparison of one view gave. values: compared, event times included. differences: in words, the first
    few of them."""

    view: str
    entities: int
    values: int
    differing: int
    differences: tuple[str, ...]


async def read(store: RedisOnlineStore, view: ViewSpec, keys: list[Key]) -> dict[Key, DecodedRow | None]:
    """The rows of these entities, as any reader reads them."""
    names, layout = VIEWS[view.name], RowLayout.of(view)
    found: dict[Key, DecodedRow | None] = {}
    for begin in range(0, len(keys), _ENTITIES_AT_A_TIME):
        some = keys[begin : begin + _ENTITIES_AT_A_TIME]
        packed = [entity_key(view.entity.keys, dict(zip(names, key, strict=True))) for key in some]
        for key, value in zip(some, await store.get(view.name, packed), strict=True):
            found[key] = None if value is None else decode(layout, value)
    return found


def compare(
    view: str, expected: Mapping[Key, Row], found: Mapping[Key, DecodedRow | None], entities_there: int
) -> Agreement:
    """Every value of every entity. entities_there: how many Redis holds of this view."""
    differences = list(_differences(expected, found))
    if entities_there != len(expected):
        differences.append(f"Redis holds {entities_there} entities, where {len(expected)} are expected")
    return Agreement(
        view=view,
        entities=len(expected),
        values=sum(1 + len(row.features) for row in expected.values()),
        differing=len(differences),
        differences=tuple(f"{view}: {words}" for words in itertools.islice(differences, _SHOWN)),
    )


def _differences(expected: Mapping[Key, Row], found: Mapping[Key, DecodedRow | None]) -> Iterator[str]:
    for key, row in expected.items():
        entity, other = "-".join(key), found.get(key)
        if other is None:
            yield f"{entity} is not there"
            continue
        if other.event_time != row.event_time:
            yield f"{entity}: event time is {other.event_time}, expected {row.event_time}"
        for name in row.features.keys() | other.values.keys():
            there, here = other.values.get(name), row.features.get(name)
            if there != here or type(there) is not type(here):
                yield f"{entity}: {name} is {there!r}, expected {here!r}"
