"""A small project to begin with: the files in `project/`, and some orders of the last hours."""

import datetime
import json
import pathlib
from collections.abc import Mapping

_FILES = pathlib.Path(__file__).parent / "project"
_NAMES = {"gitignore": ".gitignore"}
"""What would mean something in our own repository is called otherwise there."""

_BUYERS = ("ada", "bob", "cyd", "dan", "eve")
_COUNTRIES = ("DE", "FR", None)


def files(project: str, now: datetime.datetime) -> Mapping[pathlib.PurePosixPath, str]:
    """The content of every file, by its place. now: the orders are of the hours before."""
    made = {
        _place(path): path.read_text().replace("PROJECT", project)
        for path in sorted(_FILES.rglob("*"))
        if _is_file(path)
    }
    return {**made, pathlib.PurePosixPath("events/orders.ndjson"): _orders(now)}


def _is_file(path: pathlib.Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


def _place(path: pathlib.Path) -> pathlib.PurePosixPath:
    relative = path.relative_to(_FILES)
    return pathlib.PurePosixPath(relative.with_name(_NAMES.get(relative.name, relative.name)).as_posix())


def _orders(now: datetime.datetime) -> str:
    """Forty orders, the oldest first, but for a late one; four of them cannot be used."""
    lines = [json.dumps(_order(now - datetime.timedelta(minutes=5 * (40 - number)), number)) for number in range(40)]
    lines[11] = json.dumps({**json.loads(lines[11]), "amount": -3.5})
    lines[17] = json.dumps({**json.loads(lines[17]), "items": "two"})
    lines[23] = lines[23][:-9]
    lines[29] = json.dumps({**json.loads(lines[29]), "buyer": None})
    lines.append(json.dumps(_order(now - datetime.timedelta(hours=9), 0)))
    return "".join(f"{line}\n" for line in lines)


def _order(placed_at: datetime.datetime, number: int) -> dict[str, object]:
    country = _COUNTRIES[number % 3]
    order: dict[str, object] = {
        "placed_at": placed_at.isoformat(timespec="seconds"),
        "buyer": {"id": _BUYERS[number % 5], **({"address": {"country": country}} if country else {})},
        "amount": 12.5 + number * 37 % 150,
        "items": 1 + number % 4,
    }
    return order | ({"coupon": "SPRING"} if number % 6 == 0 else {})
