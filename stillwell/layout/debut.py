"""From where on a version of a view may be in a chain: what tells a mark that was lost from one that was never set.

    <root>/_debuts/<topic>@<incarnation>/<partition>/<view>/<version>.json

Created once, create-only, before the first link of the partition that lists the version, by whoever opens the partition
with it: so a chain of a million links need not be read to know that none of them does. The start is the chain's end as
it was found then. Later links alone can list the version, for who lists it has found this object, or made it, before.
"""

from typing import Final

import msgspec

from stillwell.errors import ChainError
from stillwell.layout.chain import ChainObject, Count, PartitionId

ROOT: Final = "_debuts/"
"""Below it are all debuts, and nothing else."""


class Debut(ChainObject, frozen=True, kw_only=True, tag="debut"):
    """No link of the partition that begins before `start` lists this version of the view."""

    id: PartitionId
    view: str
    version: Count
    start: Count

    @property
    def path(self) -> str:
        """Where this object is."""
        id = self.id
        return f"{ROOT}{id.topic}@{id.incarnation}/{id.partition}/{self.view}/{self.version}.json"


_DEBUT = msgspec.json.Decoder(Debut)
"""Made once, as those of the chain are, and for the same reason."""


def decode_debut(data: bytes, path: str) -> Debut:
    """Raises ChainError for anything but a debut that belongs at this path."""
    try:
        debut = _DEBUT.decode(data)
    except msgspec.DecodeError as error:
        raise ChainError(f"{path}: not a Debut that this version of Stillwell can read: {error}") from error
    if debut.path != path:
        raise ChainError(f"{path}: holds what belongs at {debut.path}")
    return debut
