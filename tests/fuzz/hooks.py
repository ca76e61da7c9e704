"""What the fuzzer does that the OpenAPI document cannot say; in the fuzzer's environment, which lacks Stillwell."""

import re
import zlib
from collections.abc import MutableMapping
from typing import Any

import schemathesis  # type: ignore[import-not-found]

_MOST_WAIT_MS = 20
"""What no push has written is waited for in vain, by each of some hundred requests."""

_ROW = {"customer": "a", "amount": 1.5, "number": 7}
_ORDER = {"at": "2026-01-01T00:00:00Z", **_ROW}
_COLUMNS = {name: [value] for name, value in {"event_timestamp": "2026-01-01T00:00:00Z", **_ROW}.items()}


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(context: Any, case: Any, arguments: Any) -> None:
    """Of a token that names a partition twice, which is refused, leave the first; wait shortly; and have events among
    what is pushed that the definitions of the deployment take."""
    is_positive = case.meta is not None and case.meta.generation.mode.is_positive
    for place, after, timeout, shortly in (
        (case.body, "after", "timeout_ms", _MOST_WAIT_MS),
        (case.query, "after", "timeout_ms", _MOST_WAIT_MS),
        (case.headers, "Stillwell-After", "Stillwell-Timeout-Ms", str(_MOST_WAIT_MS)),
    ):
        if not isinstance(place, MutableMapping):
            continue
        if re.fullmatch("[0-9]{3,5}", str(place.get(timeout))):  # what is wrong may be elsewhere, and nowhere for us
            place[timeout] = type(place[timeout])(shortly)
        if is_positive and isinstance(place.get(after), str):
            place[after] = re.sub(r"(?<=:)[^;: ]+", _once, place[after])
            place[timeout] = shortly
    if not is_positive:
        return
    # Of few examples all are made good, of many every second one.
    is_made_good = case.meta.phase.name.value != "fuzzing" or zlib.crc32(repr(case.body).encode()) % 2 == 0
    if case.operation.path == "/v1/push" and isinstance(rows := case.body.get("rows"), list):
        step = 1 if is_made_good else 2
        rows[::step] = [_ORDER] * len(rows[::step])
    if case.operation.path in ("/push", "/write-to-online-store") and is_made_good:
        case.body["df"] = _COLUMNS


def _once(places: "re.Match[str]") -> str:
    first: dict[int, str] = {}
    for place in places[0].split(","):
        first.setdefault(int(place.split("-")[0]), place)
    return ",".join(first.values())
