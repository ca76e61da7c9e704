"""Features as a table of Arrow, for who asks by `Accept: application/vnd.apache.arrow.stream`.

A column for each key or request value that the features need, then three for each feature: `view:feature` in its own
type, `view:feature:status` (a dictionary of the statuses' names) and `view:feature:event_time`. A value that is past
its TTL is what it was. The schema's metadata says under `stillwell.at` when the rows were judged, in µs since 1970.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from stillwell.reading.features import Found
from stillwell.reading.status import Status
from stillwell.types import FieldType

STREAM: Final = "application/vnd.apache.arrow.stream"

_STATUSES: Final = pa.array([status.value for status in Status])
_PLACES: Final[Mapping[Status, int]] = {status: place for place, status in enumerate(Status)}
_TIME: Final = pa.timestamp("us", "UTC")


def answer(types: Mapping[str, FieldType], entities: Mapping[str, Sequence[object]], found: Found) -> bytes:
    """A stream of one table. types: of the entities' columns; entities: as Python values."""
    columns: dict[str, pa.Array] = {name: pa.array(values, type=types[name].arrow) for name, values in entities.items()}
    times: dict[int, pa.Array] = {}
    for column in found.columns:
        name, rows = column.output.reference, id(column.event_times)
        if rows not in times:
            times[rows] = pa.array(column.event_times, type=_TIME)
        places = pa.array([_PLACES[status] for status in column.statuses], type=pa.int8())
        columns[name] = pa.array(column.values, type=column.output.feature.type.arrow)
        columns[f"{name}:status"] = pa.DictionaryArray.from_arrays(places, _STATUSES)
        columns[f"{name}:event_time"] = times[rows]
    table = pa.table(columns).replace_schema_metadata({"stillwell.at": str(found.at_us)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
