"""`stillwell dlq`: the records that could not be used, and why."""

import dataclasses
import hashlib
import heapq
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NamedTuple

import click

from stillwell.cli.output import counting_progress, json_option, print_json
from stillwell.cli.values import excerpt, instant, printable, text_of

if TYPE_CHECKING:
    from stillwell.layout.dead_letter import DeadLetter
    from stillwell.progress import Advance
    from stillwell.records import Headers
    from stillwell.settings import Settings


@click.group()
def dlq() -> None:
    """Look at the dead letters: records that could not be used, and why."""


@dlq.command("list")
@click.option("--topic", help="Only records of this topic.")
@click.option("--reason", metavar="REASON", help="Only those refused for this reason, such as decode or expectation.")
@click.option("--view", help="Only those that this view refused, or that were refused for all views.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show so many of them, the newest."
)
@json_option
def list_letters(topic: str | None, reason: str | None, view: str | None, limit: int, as_json: bool) -> None:
    """List the newest dead letters, in the order in which they were written."""
    import asyncio

    from stillwell.counting import counted
    from stillwell.settings import Settings

    _require_reason(reason)

    def matches(letter: "DeadLetter") -> bool:
        return (
            topic in (None, letter.topic)
            and reason in (None, letter.reason)
            and (view is None or letter.view in (None, view))
        )

    settings = Settings.load()
    with counting_progress("offsets") as advance:
        found = asyncio.run(_newest(settings, matches, limit, advance))
    if as_json:
        print_json(
            {
                "topic": settings.dead_letter_topic,
                "matching": found.matching,
                "letters_in_topic": found.total,
                "repeated": found.repeated,
                "strangers": found.strangers,
                "letters": [_summary(each) for each in found.letters],
            }
        )
        return
    for each in found.letters:
        _print_summary(each)
    more = f"; the newest {limit} are shown, --limit shows more" if found.matching > limit else ""
    there = f"{counted(found.total, 'dead letter')} in {settings.dead_letter_topic}"
    if (topic, reason, view) != (None, None, None):
        there = f"{found.matching:,} of {there} {'matches' if found.matching == 1 else 'match'}"
    click.echo(f"{there}{more}")
    if not found.matching:
        _tell_unknown(found, topic, view)
    if found.strangers:
        click.echo(
            f"No dead letters, or of a format that this version does not know: {counted(found.strangers, 'record')} "
            "there. Something else writes to that topic",
            err=True,
        )


def _require_reason(reason: str | None) -> None:
    """Raise UsageError for a reason that no letter has."""
    from typing import get_args

    from stillwell.definitions.mistakes import did_you_mean
    from stillwell.records import TopicReason, ViewReason

    known = (*get_args(TopicReason), *get_args(ViewReason))
    if reason is not None and reason not in known:
        raise click.UsageError(f"no record is refused for the reason {reason!r}{did_you_mean(reason, known)}")


def _tell_unknown(found: "_Found", topic: str | None, view: str | None) -> None:
    """Say so where a filter names what no letter is about: a name that is spelled wrongly, mostly."""
    from stillwell.definitions.mistakes import did_you_mean

    for word, given, known in (("topic", topic, found.topics), ("view", view, found.views)):
        if given is not None and given not in known and found.total:
            click.echo(f"stillwell: no dead letter is of the {word} {given!r}{did_you_mean(given, known)}", err=True)


@dlq.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--view", help="Only what this view, or all views, said.")
@json_option
def show(topic: str, partition: int, offset: int, view: str | None, as_json: bool) -> int:
    """Show one refused record whole, and what each view had against it.

    What was too large for the dead-letter topic is taken from the raw archive.
    """
    import asyncio

    from stillwell.settings import Settings

    def matches(letter: "DeadLetter") -> bool:
        at = letter.topic, letter.partition, letter.offset
        return at == (topic, partition, offset) and (view is None or letter.view in (None, view))

    settings = Settings.load()
    with counting_progress("offsets") as advance:
        found = asyncio.run(_newest(settings, matches, _MOST_LETTERS_OF_A_RECORD, advance)).letters
    if not found:
        click.echo(f"stillwell: no dead letter is about {topic}, partition {partition}, offset {offset}", err=True)
        return 1
    newest = max(each.letter.incarnation for each in found)
    letters = [each for each in found if each.letter.incarnation == newest]
    content = _content(settings, letters[0].letter)
    if as_json:
        print_json(_whole(letters, content))
    else:
        _print_whole(letters, content)
    return 0


_MOST_LETTERS_OF_A_RECORD = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Stored:
    """A dead letter, and when it was written (ms)."""

    letter: "DeadLetter"
    written_at: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """The newest of the letters that match; how many do, and how many of those repeat another. total: all letters.
    strangers: what is no letter at all. topics, views: that any letter is about."""

    letters: tuple[_Stored, ...]
    matching: int
    repeated: int
    total: int
    strangers: int
    topics: frozenset[str]
    views: frozenset[str]


class _Ranked(NamedTuple):
    """A letter's place among the newest: the number keeps letters themselves from being compared."""

    written_at: int
    number: int
    stored: _Stored


async def _newest(
    settings: "Settings", matches: Callable[["DeadLetter"], bool], limit: int, advance: "Advance"
) -> _Found:
    """Read the whole topic; keep what matches and is newest. A crash may have repeated letters: each counts once."""
    newest: list[_Ranked] = []
    seen: set[bytes] = set()
    matching = repeated = strangers = 0
    topics: set[str] = set()
    views: set[str] = set()
    async for stored in _letters(settings, advance):
        if stored is None:
            strangers += 1
            continue
        letter = stored.letter
        identity, wanted = _identity(letter), matches(letter)
        if identity in seen:
            repeated += wanted
            continue
        seen.add(identity)
        topics.add(letter.topic)
        if letter.view is not None:
            views.add(letter.view)
        if not wanted:
            continue
        matching += 1
        ranked = _Ranked(stored.written_at, matching, stored)
        if len(newest) < limit:
            heapq.heappush(newest, ranked)
        else:
            heapq.heappushpop(newest, ranked)
    letters = tuple(ranked.stored for ranked in sorted(newest))
    return _Found(letters, matching, repeated, len(seen), strangers, frozenset(topics), frozenset(views))


def _identity(letter: "DeadLetter") -> bytes:
    """What is the same in repetitions of a letter, in 16 bytes: there may be millions of letters."""
    of = letter.topic, letter.incarnation, letter.partition, letter.offset, letter.view
    return hashlib.blake2b(repr(of).encode(), digest_size=16).digest()


async def _letters(settings: "Settings", advance: "Advance") -> AsyncIterator[_Stored | None]:
    """Every record of the dead-letter topic; None for one that is no dead letter."""
    from stillwell.errors import SettingsError
    from stillwell.kafka_connection import connection
    from stillwell.layout.dead_letter import read_dead_letter
    from streams.cluster import Cluster
    from streams.onlooker import Onlooker

    topic = settings.dead_letter_topic
    cluster = Cluster(connection(settings))
    await cluster.start()
    try:
        facts = (await cluster.topics([topic])).get(topic)
    finally:
        await cluster.stop()
    if facts is None:
        raise SettingsError(
            f"Kafka has no topic {topic}; `stillwell topics create` creates it, or correct STILLWELL_DEAD_LETTER_TOPIC"
        )
    async with Onlooker.open(connection(settings)) as onlooker:
        async for record in onlooker.records(topic, facts.partitions, advance):
            letter = read_dead_letter(record.key, record.value, record.headers)
            yield _Stored(letter, record.timestamp) if letter else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Content:
    """A record's key, value and headers, where they are from, and why they are missing if they are."""

    key: bytes | None
    value: bytes | None
    headers: "Headers"
    source: str
    missing: str = ""


def _content(settings: "Settings", letter: "DeadLetter") -> _Content:
    """What the letter carries, or, where it carries no value, what the raw archive has."""
    from stillwell.errors import ChainError, NotFound, StoreUnavailable
    from stillwell.layout.chain import PartitionId
    from stillwell.raw_archive import find_record
    from stillwell.storage import open_store

    if letter.value is not None:
        return _Content(letter.key, letter.value, letter.headers, "dead letter")
    id = PartitionId(letter.topic, letter.incarnation, letter.partition)
    try:
        record = find_record(open_store(settings.offline_root), id, letter.offset)
    except (NotFound, ChainError, StoreUnavailable) as error:
        return _Content(letter.key, None, letter.headers, "dead letter", str(error))
    return _Content(record.key, record.value, record.headers, "raw archive")


def _encoded(data: bytes | None) -> dict[str, str] | None:
    if data is None:
        return None
    text, encoding = text_of(data)
    return {"encoding": encoding, "text": text}


def _summary(stored: _Stored) -> dict[str, object]:
    letter = stored.letter
    return {
        "topic": letter.topic,
        "incarnation": letter.incarnation,
        "partition": letter.partition,
        "offset": letter.offset,
        "view": letter.view,
        "reason": letter.reason,
        "error": letter.error,
        "record_timestamp": instant(letter.timestamp),
        "written_at": instant(stored.written_at),
        "by_reference": letter.by_reference,
        "excerpt": excerpt(letter.value),
    }


def _whole(letters: list[_Stored], content: _Content) -> dict[str, object]:
    first = letters[0].letter
    return {
        "topic": first.topic,
        "incarnation": first.incarnation,
        "partition": first.partition,
        "offset": first.offset,
        "record_timestamp": instant(first.timestamp),
        "rejects": [
            {
                "view": each.letter.view,
                "reason": each.letter.reason,
                "error": each.letter.error,
                "written_at": instant(each.written_at),
            }
            for each in letters
        ],
        "key": _encoded(content.key),
        "headers": [{"name": name, "value": _encoded(value)} for name, value in content.headers],
        "value": _encoded(content.value),
        "source": content.source,
        "missing": content.missing or None,
    }


def _print_summary(stored: _Stored) -> None:
    letter = stored.letter
    whom = f"view {letter.view}" if letter.view else "all views"
    place = f"{letter.topic} {letter.partition} {letter.offset}"
    click.echo(f"{instant(stored.written_at)}  {printable(place)}  {letter.reason}, for {printable(whom)}")
    click.echo(f"    {printable(letter.error)}")
    begin = excerpt(letter.value)
    click.echo(f"    {'by reference: see `stillwell dlq show`' if letter.by_reference else begin or 'no value'}")


def _print_whole(letters: list[_Stored], content: _Content) -> None:
    first = letters[0].letter
    click.echo(
        f"{printable(first.topic)}, partition {first.partition}, offset {first.offset} of incarnation "
        f"{first.incarnation}; record of {instant(first.timestamp)}"
    )
    from stillwell.counting import counted

    for each in letters:
        whom = f"view {each.letter.view}" if each.letter.view else "all views"
        click.echo(f"{each.letter.reason}, for {printable(whom)}, written {instant(each.written_at)}")
        click.echo(f"    {printable(each.letter.error)}")
    click.echo(f"key: {_pretty(content.key)}")
    for name, value in content.headers:
        click.echo(f"header {printable(name)}: {_pretty(value)}")
    if content.missing:
        click.echo(f"value: not here ({printable(content.missing)})")
        return
    size = "" if content.value is None else f" ({counted(len(content.value), 'byte')}, from the {content.source})"
    click.echo(f"value{size}:\n{_pretty(content.value)}")


def _pretty(data: bytes | None) -> str:
    """Bytes for people: indented if they are JSON, base64 if they are no text."""
    import msgspec

    if data is None:
        return "none"
    text, encoding = text_of(data)
    if encoding != "utf-8":
        return f"{encoding}: {text}"
    try:
        # Number by number as it stands: what is looked for may be in a digit that a parser would round away.
        return printable(msgspec.json.format(text, indent=2))
    except (msgspec.DecodeError, RecursionError):
        return printable(text)
