"""Carries the plan out, and tells what it does."""

import time
from collections.abc import Callable, Iterable

from tests.acceptance.chaos.arena import PARTITIONS, Arena
from tests.acceptance.chaos.plan import Round
from tests.acceptance.chaos.witness import Witness
from tests.waiting import eventually

Say = Callable[[str], None]
"""Told what happens, in a few words."""

_REST_S = 60.0
"""How long events may take to come to rest after a round that nothing follows at once. What breaks is mended by then;
a client may still be waiting for an answer that was lost (15 s for the store, 40 s for Kafka)."""

_LONG_S = 10.0


def begin(arena: Arena, witness: Witness, say: Say) -> list[str]:
    """Wait until the workers have taken up the work; gives what went wrong."""
    try:
        say(f"two workers have the first events at rest after {_until_at_rest(arena, witness, say):.1f} s")
    except AssertionError as error:
        return [f"at the start: {error}"]
    return []


def play(arena: Arena, witness: Witness, rounds: Iterable[Round], say: Say) -> list[str]:
    """One round after the other; gives what went wrong on the way."""
    wrong = []
    for number, round in enumerate(rounds, 1):
        say(f"round {number}: {described(round)}")
        _play(arena, round)
        for fall in arena.replace_fallen():
            say(f"worker {fall.worker} ended by itself with code {fall.code}:\n{fall.last_words}")
            wrong.append(f"round {number}: worker {fall.worker} ended by itself with code {fall.code}")
        if round.rest:
            try:
                took = _until_at_rest(arena, witness, say)
            except AssertionError as error:
                wrong.append(f"round {number}: {error}")
                say(str(error))
            else:
                say(f"events come to rest again after {took:.1f} s")
    return wrong


def described(round: Round) -> str:
    """A round in words."""
    cut, blow = round.cut, round.blow
    what = {"kill": f"killed, replaced after {blow.seconds:.1f} s", "freeze": f"frozen for {blow.seconds:.1f} s"}
    return (
        f"worker {blow.worker} {what[blow.kind]} (at {blow.at:.1f} s); {cut.service} {cut.way} ({cut.amount}) for "
        f"{cut.seconds:.1f} s (at {cut.at:.1f} s, in {cut.pieces})"
    )


def _play(arena: Arena, round: Round) -> None:
    cut, blow = round.cut, round.blow
    worker = arena.workers[blow.worker]
    strike, undo = {
        "kill": (lambda: arena.kill(blow.worker), lambda: arena.replace(blow.worker)),
        "freeze": (worker.freeze, worker.thaw),
    }[blow.kind]
    steps: list[tuple[float, Callable[[], None]]] = [
        (blow.at, strike),
        (blow.at + blow.seconds, undo),
    ]
    for begin, end in cut.outages():
        steps += [(begin, lambda: arena.cut(cut)), (end, lambda: arena.mend(cut))]
    started = time.monotonic()
    for at, step in sorted(steps, key=lambda step: step[0]):
        time.sleep(max(0.0, started + at - time.monotonic()))
        step()


def _until_at_rest(arena: Arena, witness: Witness, say: Say) -> float:
    """Wait until every partition has another link; gives how long it took. If that is long, the workers are asked."""
    started = time.monotonic()
    before = dict(witness.ends)

    def behind() -> list[int]:
        now = dict(witness.ends)
        return [each for each in range(PARTITIONS) if now.get(each, -1) <= before.get(each, -1)]

    def long() -> bool:
        return time.monotonic() - started > _LONG_S

    eventually(lambda: not behind() or long(), within_s=_REST_S)
    if waiting := behind():
        say(f"no link yet in partitions {waiting} after {_LONG_S:g} s; the workers say {arena.told()}")
    eventually(
        lambda: not behind(), within_s=_REST_S - _LONG_S, what="a link in every partition after everything was mended"
    )
    return time.monotonic() - started
