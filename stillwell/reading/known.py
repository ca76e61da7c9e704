"""What reads go by: a catalog of every version of the views that is known, made anew whenever more of them are found.

A read that meets a row of a version which nobody knows has it looked for, and reads again. One whose catalog is not the
newest any more only reads again: somebody else has looked while it waited, for a push or for the store.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from stillwell.layout.projection import UnknownLayout
from stillwell.reading.catalog import Catalog
from stillwell.reading.versions import Versions
from stillwell.spec import DefinitionsSpec, ViewSpec

_T = TypeVar("_T")


class Known:
    """The catalog of a reader, and what makes it anew; for one event loop."""

    def __init__(
        self,
        definitions: DefinitionsSpec,
        load: Callable[[], Sequence[ViewSpec]] | None,
        told: Callable[[Sequence[ViewSpec]], None],
        *,
        met: Callable[[], None] = lambda: None,
        looked: Callable[[int | Exception], None] = lambda came: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """load, looked, clock: see `Versions`; without `load` there is no registry. told: has others read rows of these
        versions too, in the place of those that they were told before; it may raise DefinitionError. met: called for
        each read that met a row which nobody knew."""
        self.catalog = Catalog(definitions)
        self.versions = Versions(load, self._found, looked, clock) if load else None
        """Where other versions are looked for, if anywhere."""
        self._definitions = definitions
        self._told = told
        self._met = met

    async def reading(self, read: Callable[[], Awaitable[_T]]) -> _T:
        """What is read by the catalog as it stands; again, where rows are of a version that it did not have."""
        catalog = self.catalog
        try:
            return await read()
        except UnknownLayout as error:
            await self.learn(error, catalog)
            return await read()

    async def learn(self, error: UnknownLayout, catalog: object) -> None:
        """Look for the version of a row that a read by this catalog did not know, unless another one is there by now.

        Raises the error where there is no more to know of it.
        """
        self._met()
        if self.catalog is not catalog:
            return
        if self.versions is None:
            raise error
        await self.versions.learn(error)

    def begin(self) -> None:
        """Begin to look for versions; what is defined can be read at once."""
        if self.versions:
            self.versions.begin()

    async def close(self) -> None:
        """Look no more."""
        if self.versions:
            await self.versions.close()

    def _found(self, versions: Iterable[ViewSpec]) -> None:
        versions = tuple(versions)
        self._told(versions)  # first: where that fails, nobody must take this for a newer catalog
        self.catalog = Catalog(self._definitions, versions)
