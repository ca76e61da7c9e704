"""What reads go by: learnt by the first who lacks it, and by nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from stillwell.errors import DefinitionError
from stillwell.layout.projection import UnknownLayout
from stillwell.reading.known import Known
from stillwell.spec import ViewSpec
from tests.served import DEFINITIONS, USERS

NEWER = USERS.model_copy(update={"version": 2})


class Registry:
    """What is registered, and how often it was asked."""

    def __init__(self) -> None:
        self.looks = 0

    def load(self) -> Sequence[ViewSpec]:
        self.looks += 1
        return [NEWER]


async def test_who_read_by_an_older_catalog_reads_again_and_has_nobody_look() -> None:
    registry, told = Registry(), list[Sequence[ViewSpec]]()
    known = Known(DEFINITIONS, registry.load, told.append)
    first, waiting, go_on = known.catalog, asyncio.Event(), asyncio.Event()

    async def read() -> str:
        if waiting.is_set():
            return "a row"
        waiting.set()
        await go_on.wait()
        raise UnknownLayout("of version 2")

    slow = asyncio.create_task(known.reading(read))
    await waiting.wait()
    await known.learn(UnknownLayout("of version 2"), first)
    assert (registry.looks, told, known.catalog is first) == (1, [(NEWER,)], False)
    go_on.set()
    assert await slow == "a row"
    assert registry.looks == 1
    await known.close()


async def test_a_version_that_cannot_be_told_leaves_the_catalog_as_it_was() -> None:
    def refuse(versions: Sequence[ViewSpec]) -> None:
        raise DefinitionError("two layouts share an id")

    met: list[None] = []
    known = Known(DEFINITIONS, Registry().load, refuse, met=lambda: met.append(None))
    before = known.catalog

    async def read() -> None:
        raise UnknownLayout("of version 2")

    with pytest.raises(UnknownLayout):
        await known.reading(read)
    assert (known.catalog is before, len(met)) == (True, 1)
    await known.close()
