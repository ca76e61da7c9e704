"""The pictures of the pages: drawn here, from what the pages and the code say, and shown with a text in their place."""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stillwell.layout.stamp import STAMP_BYTES
from tests.pictures import LINE, Picture
from tests.unit.test_format_pages import table

ROOT = Path(__file__).parent.parent.parent
ORDERING = (ROOT / "docs/explanation/ordering.md").read_text()
PERFORMANCE = (ROOT / "docs/explanation/performance.md").read_text()


def chain() -> Picture:
    """What is at rest of a partition, and what is in hand."""
    picture = Picture(860, 330, "The commit chain of a partition: links, the files that they name, and what is in hand")
    picture.box(20, 40, 110, 54, ["genesis", "begins at 0"])
    for x, start, end in ((180, 0, 4), (360, 4, 9)):
        picture.box(x, 40, 130, 54, ["link", f"offsets {start} → {end}"], colour="good")
        picture.arrow(x, 67, x - 48, 67)
        picture.box(x - 4, 140, 66, 44, ["raw", "file"], colour="good")
        picture.box(x + 68, 140, 66, 44, ["view's", "file"], colour="good")
        picture.arrow(x + 40, 94, x + 30, 138)
        picture.arrow(x + 90, 94, x + 100, 138)
    picture.text(155, 30, "each holds the digest of the one before it", colour="faint")
    picture.box(545, 40, 130, 54, ["next link", "offsets 9 → 12"], colour="new", dashed=True)
    picture.arrow(545, 67, 492, 67, dashed=True)
    picture.box(541, 140, 66, 44, ["raw", "file"], colour="new", dashed=True)
    picture.box(613, 140, 66, 44, ["view's", "file"], colour="new", dashed=True)
    picture.box(714, 140, 130, 44, ["a dead writer's", "no link names it"], colour="bad", dashed=True)
    picture.text(700, 62, "created only when")
    picture.text(700, 62 + LINE, "1. its files are there")
    picture.text(700, 62 + 2 * LINE, "2. Redis has its rows")
    picture.text(700, 62 + 3 * LINE, "3. rejects are in Kafka")
    picture.line(180, 232, 840, 232)
    for offset, x in ((0, 180), (4, 360), (9, 545), (12, 680)):
        picture.line(x, 226, x, 238)
        picture.text(x, 254, str(offset), anchor="middle", colour="faint")
    picture.text(20, 237, "offsets in Kafka", colour="faint")
    picture.arrow(545, 290, 545, 262)
    picture.text(545, 308, "where whoever gets the partition next begins", anchor="middle")
    picture.arrow(360, 290, 360, 262)
    picture.text(352, 308, "the group's offset: a hint", anchor="end", colour="faint")
    picture.arrow(680, 290, 680, 262)
    picture.text(700, 284, "the mark in Redis", colour="faint")
    return picture


def stamp() -> Picture:
    """The stamp's fields by their bytes, and what becomes of four arrivals."""
    picture = Picture(860, 330, "The stamp of a row, and which of four arrivals Redis keeps")
    fields = [(row[0], int(row[1])) for row in table(ORDERING, "52 bytes, compared from the left")]
    names = [
        ["event", "time"],
        ["sequence"],
        ["record", "timestamp"],
        ["topic"],
        ["inc."],
        ["part."],
        ["offset"],
        ["ver."],
        ["row"],
    ]
    picture.text(
        20, 28, f"The stamp: {sum(size for _, size in fields)} bytes, compared from the left; the greater one is newer"
    )
    x, scale = 20.0, 820 / sum(size for _, size in fields)
    for number, ((_, size), lines) in enumerate(zip(fields, names, strict=True)):
        picture.box(x, 42, size * scale, 50, [], colour="new" if number < 3 else "box")
        for line, word in enumerate(lines):
            picture.text(x + size * scale / 2, 72 + line * LINE - (len(lines) - 1) * LINE / 2, word, anchor="middle")
        picture.text(x + size * scale / 2, 108, str(size), anchor="middle", colour="faint")
        x += size * scale
    picture.text(20, 130, "what people mean by newer", colour="faint")
    picture.text(400, 130, "ties: settled anyhow, but by everybody alike", colour="faint")
    picture.text(20, 168, "As they arrive", bold=True)
    for number, (offset, at, became, colour) in enumerate(
        (
            ("7", "12:01", "applied", "good"),
            ("8", "12:00", "stale: late", "bad"),
            ("7", "12:01", "duplicate", "box"),
            ("9", "12:01", "applied: a tie", "good"),
        )
    ):
        left = 20 + number * 209
        picture.box(left, 182, 150, 50, [f"offset {offset}", f"happened at {at}"])
        if number < 3:
            picture.arrow(left + 152, 207, left + 205, 207)
        picture.arrow(left + 75, 234, left + 75, 258)
        picture.box(left, 262, 150, 30, [became], colour=colour)
    picture.text(
        20, 316, "Any other order of arrival, and any repetition, ends with offset 9 in Redis as well.", colour="faint"
    )
    return picture


def freshness() -> Picture:
    """A row, its prediction, and what reads say of it, as time goes."""
    picture = Picture(860, 300, "A prediction between two writes of a row that it reads: FRESH, STALE, and FRESH again")
    for y, name in ((58, "row in Redis"), (128, "prediction"), (198, "a read says")):
        picture.text(20, y, name, bold=True)
    picture.box(150, 34, 330, 38, ["stamp A"], colour="box")
    picture.box(480, 34, 360, 38, ["stamp B"], colour="new")
    picture.box(230, 104, 390, 38, ["of A"], colour="box")
    picture.box(620, 104, 220, 38, ["of B"], colour="new")
    picture.box(150, 174, 80, 38, ["MISSING"], colour="bad")
    picture.box(230, 174, 250, 38, ["FRESH"], colour="good")
    picture.box(480, 174, 140, 38, ["STALE"], colour="bad")
    picture.box(620, 174, 220, 38, ["FRESH"], colour="good")
    picture.arrow(480, 20, 480, 32)
    picture.text(490, 24, "a write, which hints to compute it again", colour="faint")
    picture.arrow(500, 74, 612, 104, dashed=True)
    picture.text(
        20,
        244,
        "A read compares what the prediction is of with the stamps of the rows beside it: no clock has a part in that.",
    )
    picture.text(
        20, 244 + LINE, "An answer of A that comes late, behind that of B, changes nothing: the newer inputs win."
    )
    picture.text(20, 244 + 2 * LINE, "One that is older than max_staleness is STALE too, though no row has changed.")
    return picture


def time_spent() -> Picture:
    """Where the processor's time goes: bars of the page's own figures."""
    backlog = [
        (re.split(r"[:,]", row[1])[0], float(row[0].removesuffix(" %")))
        for row in table(PERFORMANCE, "process over a backlog")
    ]
    push = [
        ("read it, write JSON", 0.2),
        ("judge, make records", 0.9),
        ("encode for Redis", 0.3),
        ("the clients of Kafka and Redis: the rest", 2.2 - 0.2 - 0.9 - 0.3),
    ]
    read = [("the interpreter", 7 / 10), ("the system", 1 / 7), ("the rest", 1 - 7 / 10 - 1 / 7)]
    bars: Sequence[tuple[str, list[tuple[str, float]], Callable[[float], str]]] = (
        ("A worker, of a backlog: share of its processor time", backlog, lambda share: f"{share:g} %"),
        (
            "A read of ten features at full load: share of the service's processor time",
            read,
            lambda part: {7 / 10: "seven tenths", 1 / 7: "a seventh"}.get(part, ""),
        ),
        (
            "A synchronous push of a hundred rows: 2.2 ms of processor time",
            push,
            lambda ms: f"{ms:g} ms" if ms in (0.2, 0.9, 0.3) else "",
        ),
    )
    picture = Picture(860, 480, "Where the processor's time goes: in a worker, in a read, and in a push")
    y = 30
    for title, parts, spelled in bars:
        picture.text(20, y, title, bold=True)
        y += 12
        whole = sum(size for _, size in parts)
        for name, size in parts:
            picture.text(270, y + 14, name, anchor="end")
            width = max(2.0, size / whole * 480)
            picture.box(280, y + 2, width, 16, [], colour="new")
            picture.text(288 + width, y + 15, spelled(size), colour="faint")
            y += 22
        y += 34
    return picture


PICTURES: dict[str, Callable[[], Picture]] = {
    "chain.svg": chain,
    "stamp.svg": stamp,
    "freshness.svg": freshness,
    "time-spent.svg": time_spent,
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_as_it_is_drawn(name: str, page: Callable[[str, str], None]) -> None:
    page(f"images/{name}", PICTURES[name]().svg())


def shown() -> list[tuple[Path, str, str]]:
    """Every picture in a page: the page, the text in its place, and where it is."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    found = ((page, re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())) for page in pages)
    return [(page, text, target) for page, pictures in found for text, target in pictures]


def test_every_picture_is_there_shown_once_and_told_to_who_cannot_see_it() -> None:
    targets = [(page.parent / target).resolve() for page, _, target in shown()]
    assert sorted(targets) == sorted(file.resolve() for file in (ROOT / "docs/images").iterdir())
    assert [text for _, text, _ in shown() if len(text.split()) < 10] == []


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_reads_in_light_and_dark_and_loads_nothing(name: str) -> None:
    svg = PICTURES[name]().svg()
    ElementTree.fromstring(svg)
    light, dark = svg.split("@media (prefers-color-scheme: dark)")
    used = set(itertools.chain.from_iterable(each.split() for each in re.findall(r'class="([^"]+)"', svg)))
    for palette in (light, dark.partition("</style>")[0]):
        assert used <= set(re.findall(r"\.(\w+)", palette))
    assert re.findall(r"(?:href|src|url)\W+\w+:", svg) == []


def test_figures_of_pictures_are_those_of_the_pages() -> None:
    assert [int(row[1]) for row in table(ORDERING, "52 bytes, compared from the left")] == [8, 8, 8, 8, 2, 4, 8, 2, 4]
    assert STAMP_BYTES == 52
    for told in (
        "seven tenths of the processor\ntime were the interpreter's, and a seventh the system's",
        "What is left of the 2.2 ms of a hundred rows: 0.2 to read the request and write each row's JSON",
        "0.9 to judge the rows and write them as records",
        "0.3 to encode them for Redis, and the rest goes",
    ):
        assert " ".join(told.split()) in " ".join(PERFORMANCE.split())
