"""The commit chain of one partition as a model, small enough to be explored whole, with all that may happen around it.

    log         a few offsets, a letter each: r gives rows, x is rejected, f is filtered, - is a gap; retention moves
                the log's start at any time
    store       create-only objects (a link per start, genesis) and files; each single operation is atomic
    in flight   a create whose answer was lost: it arrives at any later time, even after its sender died, or never
    writers     each walks the chain and works whenever it likes, knowing only what it has read, as zombies do; so the
                consumer group needs no state. Crash, revocation and a new assignment are one step: what a writer knew
                is gone. It may come at any time, without bound
    ahead       a writer may go on from the end of a span that is not linked yet, even another writer's
    views       a writer knows view version 1, or 1 and 2 (a rolling release, or its way back); its link lists what it
                knew
    sweep       decides after one walk which file to remove, and removes it at any later time
    progress    from every state each writer, left alone and without faults, brings the chain to the end of the log

Left out: applied marks, failover of Redis but for one flaw, chains of a backfill, compaction, incarnations, several
files of one span, uploads that arrive late (their names hold a nonce that nobody else has), and the code: that is run
by `schedules.py`. The sinks of a span are written in one order, since nothing but what must hold ever looks at them.

Each `Flaw` is the protocol without one of its rules. States are told apart by 64 bits of hash after what cannot matter
was taken out of them: writers are sorted, nonces numbered anew, and what nobody can reach any more is forgotten. With a
million states, a chance of one in thirty million that two are taken for one.
"""

import enum
import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

DEAD_LETTERS, FILES, REDIS = 1, 2, 4
"""What a span may still have to do before it is linked, as bits."""

FRESH = 99
"""A nonce that nobody holds; numbered anew at once."""


class Flaw(enum.StrEnum):
    """The rule that is left out."""

    NONE = "none"
    NAMES_WITHOUT_NONCE = "files are named without a nonce"
    LOSER_DELETES_BY_NAME = "the loser deletes files by start and end"
    NONCE_PER_PROCESS = "a process uses one nonce for all its spans"
    LINK_BEFORE_REDIS = "a link may come before Redis has acknowledged its rows"
    NO_GENESIS = "the chain begins at its first link, there is no genesis"
    START_AT_FIRST_RECORD = "a span begins at its first record, not at the position"
    RESUME_FROM_GROUP = "work goes on from the group's offset, not from the chain's end"
    LINK_AHEAD = "a span is linked before the chain has reached its start"
    DOUBT_IS_LOSS = "a create without an answer is taken for a loss"
    REFUSAL_IS_LOSS = "a refused create is taken for a loss"
    ABSENCE_IS_LOSS = "reading back nothing is taken for a loss"
    REVOKED_DELETES = "who is revoked deletes the file of a span that it finds unlinked"
    SWEEP_ANYTHING_UNLINKED = "the sweep removes every unlinked file"
    SWEEP_BY_TWO_WALKS = "the sweep takes the links from one walk and the end from a later one"
    ONE_REFILL = "after a failover Redis is refilled from linked files once, spans in hand are not applied again"
    HOPE_REDIS_IS_NO_FURTHER = "no flaw: Redis is asked to hold no row that files lack, which nothing promises"


class Wrong(enum.StrEnum):
    """What must never happen."""

    VIEW_WENT_BACK = "a link that was reached once is no longer reached"
    FORK = "a link that the walk does not reach"
    GROUP_AHEAD = "the group's offset is beyond the chain's end"
    FILE_GONE = "a linked file is gone, or holds other bytes"
    SINK_LACKS = "a link covers a row or a reject that its sink does not hold"
    FALSELY_EXPIRED = "a link calls expired what the log still holds"
    REDIS_IS_FURTHER = "Redis holds a row that no file will hold"
    STUCK = "a writer that is left alone never gets on"


class Link(NamedTuple):
    """views: 2 stands for view versions 1 and 2; 0 for an expired link, and for genesis, whose end is its start."""

    end: int
    nonce: int
    views: int


class File(NamedTuple):
    """The offsets in its name, the nonce in its name, and the nonce of the writer whose bytes it holds."""

    start: int
    end: int
    name: int
    content: int


class Writer(NamedTuple):
    """What one process knows of its span. next: the step that it takes next, a method of Protocol."""

    next: str = "walk_chain"
    start: int = 0
    end: int = 0
    views: int = 0
    todo: int = 0
    nonce: int = 0


Objects = tuple[Link | None, ...]
Effect = tuple[int, int]
Step = tuple[str, Writer, Mapping[str, Any]]
Event = tuple[int | None, str]


class State(NamedTuple):
    """objects: the link at each start, then genesis. in_flight: links and where they go. sinks: what Redis holds, as
    (offset, version), and the dead letters, as (offset, 0). sweeping: the file that the sweep has decided on."""

    writers: tuple[Writer, ...]
    objects: Objects
    files: frozenset[File] = frozenset()
    in_flight: frozenset[tuple[int, Link]] = frozenset()
    sinks: frozenset[Effect] = frozenset()
    sweeping: File | None = None
    log_start: int = 0
    group: int = 0


class Found(NamedTuple):
    """How many states were seen, what is wrong, if anything is, and the shortest way there."""

    states: int
    wrong: Wrong | None
    trace: tuple[str, ...]


class Protocol:
    """The protocol within bounds, but for one rule.

    retention: offsets that the log may lose. losses: creates that may be in flight at the same time. A writer's steps
    give what they are called, the writer after it, and what else has changed; the best comes first.
    """

    def __init__(
        self,
        *,
        log: str = "r-x",
        writers: int = 2,
        retention: int = 1,
        losses: int = 1,
        ahead: bool = False,
        flaw: Flaw = Flaw.NONE,
    ) -> None:
        self.log = log
        self.genesis = len(log)  # its place among the objects
        self.retention = retention
        self.losses = losses
        self.ahead = ahead
        self.flaw = flaw
        self.first = State((Writer(),) * writers, (None,) * (len(log) + 1))
        self.walk = functools.cache(self._walk)
        self.linked_files = functools.cache(self._linked_files)
        self.effects = functools.cache(self._effects)
        acts = (self.walk_chain, self.fetch, self.fill_sinks, self.create, self.read_back, self.commit, self.clean_up)
        self._acts: Mapping[str, Callable[[State, Writer], Iterator[Step]]] = {act.__name__: act for act in acts}

    # ---- what the store says ----

    def _walk(self, objects: Objects) -> tuple[dict[int, Link], int]:
        """The chain as everybody sees it, and its end."""
        *links, genesis = objects
        chain: dict[int, Link] = {}
        end = genesis.end if genesis else len(links)
        if self.flaw is Flaw.NO_GENESIS:
            end = next((start for start, link in enumerate(links) if link), len(links))
        while end < len(links) and (link := links[end]):
            chain[end] = link
            end = link.end
        return chain, end if chain or genesis else 0

    def _linked_files(self, objects: Objects) -> set[File]:
        chain, _ = self.walk(objects)
        with_records = ((start, link) for start, link in chain.items() if self._records(start, link.end))
        return {self._file(start, link.end, link.nonce) for start, link in with_records if link.views}

    def _file(self, start: int, end: int, nonce: int) -> File:
        return File(start, end, 0 if self.flaw is Flaw.NAMES_WITHOUT_NONCE else nonce, nonce)

    def _effects(self, start: int, end: int, views: int, todo: int = 0) -> frozenset[Effect]:
        """What the sinks hold of these offsets and versions once a writer has but this left to do."""
        rows = [(at, view) for at in range(start, end) for view in range(1, views + 1) if self.log[at] == "r"]
        rejects = [(at, 0) for at in range(start, end) if self.log[at] == "x"]
        return frozenset(rows * (not todo & REDIS) + rejects * (not todo & DEAD_LETTERS))

    def _records(self, start: int, end: int) -> str:
        return self.log[start:end].strip("-")

    # ---- the steps of a writer ----

    def walk_chain(self, s: State, w: Writer) -> Iterator[Step]:
        """Find the end, or propose where to begin."""
        chain, end = self.walk(s.objects)
        genesis = s.objects[self.genesis]
        if not genesis and self.flaw is not Flaw.NO_GENESIS:
            yield f"finds no genesis, the log starts at {s.log_start}", Writer("create", self.genesis, s.log_start), {}
            return
        start = end if chain or genesis else s.log_start
        if self.flaw is Flaw.RESUME_FROM_GROUP and genesis:
            start = max(s.group, genesis.end)
        nonce = FRESH if self.flaw is Flaw.NONCE_PER_PROCESS else 0
        yield f"walks, begins at {start}", Writer("fetch", start, nonce=nonce), {}
        if self.ahead:
            for end in {other.end for other in s.writers if other.views and other.end < len(self.log)}:
                yield f"prepares ahead, from {end}", Writer("fetch", end), {}

    def fetch(self, s: State, w: Writer) -> Iterator[Step]:
        """Take records in, up to any later offset."""
        if w.start < s.log_start:
            yield f"is out of range, the log starts at {s.log_start}", Writer("create", w.start, s.log_start), {}
            return
        for end in range(len(self.log), w.start, -1):
            span, start = self.log[w.start : end], w.start
            if self.flaw is Flaw.START_AT_FIRST_RECORD and span.strip("-"):
                start = end - len(span.lstrip("-"))
            todo = DEAD_LETTERS * ("x" in span) + FILES * bool(span.strip("-")) + REDIS * ("r" in span)
            for views in (2, 1) if "r" in span else (1,):
                after = Writer("fill_sinks" if todo else "create", start, end, views, todo, w.nonce or FRESH)
                yield f"fetches {w.start}→{end} for version{'s 1, 2' if views == 2 else ' 1'}", after, {}

    def fill_sinks(self, s: State, w: Writer) -> Iterator[Step]:
        """Give the span to the next of its sinks."""
        sink = w.todo & -w.todo
        after = w._replace(todo=w.todo - sink, next="fill_sinks" if w.todo > sink else "create")
        if sink == FILES:
            file = self._file(w.start, w.end, w.nonce)
            others = frozenset(other for other in s.files if other[:3] != file[:3])
            yield "writes its file", after, {"files": others | {file}}
        else:
            sinks = s.sinks | self.effects(w.start, w.end, w.views, after.todo)
            yield f"is acknowledged by {'Redis' if sink == REDIS else 'the dead letters'}", after, {"sinks": sinks}
        if sink == REDIS and self.flaw is Flaw.LINK_BEFORE_REDIS:
            yield from self.create(s, w)

    def create(self, s: State, w: Writer) -> Iterator[Step]:
        """Create genesis, an expired link, or the span's."""
        chain, end = self.walk(s.objects)
        what = (
            f"{'' if w.views else 'expired '}link {w.start}→{w.end}" if w.start < self.genesis else f"genesis {w.end}"
        )
        heedless = (Flaw.LINK_AHEAD, Flaw.START_AT_FIRST_RECORD, Flaw.NO_GENESIS)
        if w.start not in (*chain, end, self.genesis) and self.flaw not in heedless:
            yield "drops a span that the chain has not reached", Writer(), {}
            return
        link = Link(w.end, w.nonce, w.views)
        if s.objects[w.start]:
            yield f"is refused {what}", self._doubts(w, Flaw.REFUSAL_IS_LOSS), {}
        else:
            objects = (*s.objects[: w.start], link, *s.objects[w.start + 1 :])
            yield f"creates {what}", self._linked(w) if w.views else Writer(), {"objects": objects}
        in_flight = s.in_flight | {(w.start, link)}
        if len(in_flight) <= self.losses:
            yield f"asks for {what}, hears nothing", self._doubts(w, Flaw.DOUBT_IS_LOSS), {"in_flight": in_flight}

    def _doubts(self, w: Writer, hasty: Flaw) -> Writer:
        """Genesis and expired links are read back by the next walk."""
        if not w.views:
            return Writer()
        return w._replace(next="clean_up" if self.flaw is hasty else "read_back")

    def _linked(self, w: Writer) -> Writer:
        return Writer("commit", 0, w.end, nonce=w.nonce if self.flaw is Flaw.NONCE_PER_PROCESS else 0)

    def read_back(self, s: State, w: Writer) -> Iterator[Step]:
        """Whose link is there?"""
        found = s.objects[w.start]
        lost = w._replace(next="clean_up", views=0)
        if not found:
            hasty = self.flaw is Flaw.ABSENCE_IS_LOSS
            yield "reads back nothing", lost if hasty else w._replace(next="create"), {}
        elif found.nonce == w.nonce:
            yield "reads back its own link", self._linked(w), {}
        else:
            yield "reads back another's link", lost, {}

    def commit(self, s: State, w: Writer) -> Iterator[Step]:
        """Tell the group, which may hear it or not."""
        after = Writer("fetch", w.end, nonce=w.nonce)
        yield f"commits the group's offset {w.end}", after, {"group": w.end}
        yield "has its commit refused", after, {}

    def clean_up(self, s: State, w: Writer) -> Iterator[Step]:
        """Remove the lost span's file."""
        identity = {Flaw.LOSER_DELETES_BY_NAME: slice(2), Flaw.NONCE_PER_PROCESS: slice(2, 3)}.get(self.flaw, slice(3))
        own = self._file(w.start, w.end, w.nonce)[identity]
        yield "deletes its file", Writer(), {"files": frozenset(file for file in s.files if file[identity] != own)}

    def _crash(self, s: State, w: Writer) -> Step:
        files = s.files
        if self.flaw is Flaw.REVOKED_DELETES and w.next == "read_back" and not s.objects[w.start]:
            files -= {self._file(w.start, w.end, w.nonce)}
        return "crashes or is revoked", Writer(), {"files": files}

    # ---- what happens around them ----

    def _around(self, s: State) -> Iterator[tuple[str, State]]:
        if s.log_start < self.retention:
            yield f"retention moves the log's start to {s.log_start + 1}", s._replace(log_start=s.log_start + 1)
        for at, link in s.in_flight:
            gone = s._replace(in_flight=s.in_flight - {(at, link)})
            arrived = gone._replace(objects=(*s.objects[:at], link, *s.objects[at + 1 :]))
            yield f"a late create arrives at {at}", arrived
            yield f"a late create never arrives at {at}", gone
        yield from self._sweep(s)
        if self.flaw is Flaw.ONE_REFILL:
            yield "Redis fails over, and is refilled from linked files", s._replace(sinks=frozenset())

    def _sweep(self, s: State) -> Iterator[tuple[str, State]]:
        _, end = self.walk(s.objects)
        two_walks = self.flaw is Flaw.SWEEP_BY_TWO_WALKS
        if s.sweeping:
            if not two_walks or s.sweeping.start < end:
                yield "the sweep removes it", s._replace(files=s.files - {s.sweeping}, sweeping=None)
            return
        for file in s.files - self.linked_files(s.objects):
            if file.start < end or two_walks or self.flaw is Flaw.SWEEP_ANYTHING_UNLINKED:
                yield f"the sweep decides on file {file.start}→{file.end}", s._replace(sweeping=file)

    def steps(self, s: State, *, alone: bool = False) -> Iterator[tuple[int | None, str, State]]:
        """All that may happen next: whose step, its name, and the state after it."""
        for index, w in enumerate(s.writers):
            steps = list(self._acts[w.next](s, w))
            if not alone and w.next != "walk_chain":
                steps.append(self._crash(s, w))
            for label, after, changes in steps:
                yield index, label, s._replace(writers=(*s.writers[:index], after, *s.writers[index + 1 :]), **changes)
        if not alone:
            for label, after_it in self._around(s):
                yield None, label, after_it

    # ---- what must hold ----

    def wrong(self, before: State, after: State) -> Wrong | None:
        """What the step from one state to the other breaks."""
        seen, _ = self.walk(before.objects)
        chain, end = self.walk(after.objects)
        if list(chain.items())[: len(seen)] != list(seen.items()):
            return Wrong.VIEW_WENT_BACK
        if sum(map(bool, after.objects[:-1])) > len(chain):
            return Wrong.FORK
        if after.group != before.group and after.group > end:
            return Wrong.GROUP_AHEAD
        if not self.linked_files(after.objects) <= after.files:
            return Wrong.FILE_GONE
        for start in list(chain)[len(seen) :]:
            link = chain[start]
            if link.views and not self.effects(start, link.end, link.views) <= after.sinks:
                return Wrong.SINK_LACKS
            if not link.views and link.end > after.log_start:
                return Wrong.FALSELY_EXPIRED
            if self.flaw is Flaw.HOPE_REDIS_IS_NO_FURTHER:
                applied = self.effects(start, link.end, 2) & after.sinks
                if any(version > link.views for _, version in applied):
                    return Wrong.REDIS_IS_FURTHER
        return None

    # ---- the search ----

    def explore(self) -> Found:
        """Breadth first, until nothing new turns up or something is wrong."""
        numbers, parents, good = {hash(self.first): 0}, [0], set[Any]()
        queue = deque([self.first])
        while queue:
            s = queue.popleft()
            number = len(parents) - len(queue) - 1
            if circle := self._stuck(s, good):
                return Found(len(parents), Wrong.STUCK, self._trace(numbers, parents, number, circle))
            for who, label, after in self.steps(s):
                if wrong := self.wrong(s, after):
                    return Found(len(parents), wrong, self._trace(numbers, parents, number, [(who, label)]))
                after = self._normal(after)
                if numbers.setdefault(hash(after), len(parents)) == len(parents):
                    parents.append(number)
                    queue.append(after)
        return Found(len(parents), None, ())

    def _normal(self, s: State) -> State:
        """The same state without what can matter to nobody."""
        writers = sorted(s.writers, key=lambda w: w[:5])
        linked = self.linked_files(s.objects)
        late = [(at, link) for at, link in s.in_flight if not s.objects[at]]
        held = dict.fromkeys([0, *(w.nonce for w in writers), *(link.nonce for _, link in late)])
        new = {nonce: number for number, nonce in enumerate(held)}
        files = {
            file: File(file.start, file.end, new.get(file.name, 0), new.get(file.content, 0))
            for file in s.files
            if new.get(file.content) or file in linked
        }
        spans = [w[1:5] for w in writers if w.views]
        spans += [(at, link.end, link.views, 0) for at, link in late if link.views]
        sinks = s.sinks and s.sinks & frozenset[Effect]().union(*(self.effects(*span) for span in spans))
        return State(
            writers=tuple([w if w.nonce == new[w.nonce] else w._replace(nonce=new[w.nonce]) for w in writers]),
            objects=tuple([o and (Link(o.end, new.get(o.nonce, 0), 1) if o.views else o) for o in s.objects]),
            files=frozenset(files.values()),
            in_flight=frozenset([(at, link._replace(nonce=new[link.nonce])) for at, link in late]),
            sinks=sinks,
            sweeping=files.get(s.sweeping) if s.sweeping else None,
            log_start=s.log_start,
            group=s.group if self.flaw is Flaw.RESUME_FROM_GROUP else 0,
        )

    def _stuck(self, s: State, good: set[Any]) -> list[Event]:
        """What some writer, left alone, does for ever without bringing the chain to the end of the log."""
        for index, w in enumerate(s.writers):
            here = s._replace(writers=(w,), in_flight=frozenset(), sweeping=None)
            path: dict[Any, str] = {}
            while (key := (here.writers, here.objects, here.log_start, here.group)) not in good:
                if key in path:
                    return [(index, f"alone, {label}") for label in path.values()]
                path[key] = "is there"
                if self.walk(here.objects)[1] == len(self.log):
                    break
                _, path[key], after = next(self.steps(here, alone=True))
                if self.wrong(here, after):
                    break  # the search finds it by itself
                here = self._normal(after)
            good.update(path)
        return []

    def _trace(self, numbers: dict[int, int], parents: list[int], number: int, last: list[Event]) -> tuple[str, ...]:
        """The way to a state, step by step, found again from the numbers of the states on it."""
        way: list[int] = []
        while number:
            way, number = [number, *way], parents[number]
        s, lines = self.first, []
        names: dict[int | None, str] = {None: "", **{index: f"{'ABC'[index]} " for index in range(len(s.writers))}}
        for number in way:
            who, label, after = next(
                step for step in self.steps(s) if numbers.get(hash(self._normal(step[2]))) == number
            )
            lines.append(names[who] + label)
            order = sorted(range(len(after.writers)), key=lambda index, after=after: after.writers[index][:5])  # type: ignore[misc]
            names = {None: "", **{new: names[old] for new, old in enumerate(order)}}
            s = self._normal(after)
        return (*lines, *(names[who] + label for who, label in last))
