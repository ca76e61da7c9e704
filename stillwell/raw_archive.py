"""A record as it came, from the raw archive."""

import dataclasses

import pyarrow.compute as pc

from stillwell.errors import NotFound
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from stillwell.layout.parquet import read_table
from stillwell.records import Headers
from stillwell.storage import ObjectStore


@dataclasses.dataclass(frozen=True, slots=True)
class ArchivedRecord:
    """A record, and its timestamp in milliseconds."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


def find_record(store: ObjectStore, id: PartitionId, offset: int) -> ArchivedRecord:
    """The record at an offset, by a walk to the link that holds it.

    Raises NotFound, with the reason, where there is none; ChainError where what is linked is damaged.
    """
    try:
        _, links = chain.walk(store, id)
    except NotFound as error:
        raise NotFound(f"{id} has no chain: nothing of it is linked (yet)") from error
    link = next((link for link in links if link.start <= offset < link.end), None)
    if link is None:
        raise NotFound(f"offset {offset} of {id} is not linked (yet); a worker links what it has read within a window")
    if link.raw is None:
        why = "retention took it before it was read" if link.expired else "there is no record at that offset"
        raise NotFound(f"offset {offset} of {id} is not in the raw archive: {why}")
    table = read_table(chain.read_file(store, link.raw))
    found = table.filter(pc.field("_offset") == offset).to_pylist()
    if not found:
        raise NotFound(f"offset {offset} of {id} is not in the raw archive: there is no record at that offset")
    record = found[0]
    return ArchivedRecord(
        key=record["key"],
        value=record["value"],
        headers=tuple((header["name"], header["value"]) for header in record["headers"] or ()),
        timestamp=record["_timestamp"],
    )
