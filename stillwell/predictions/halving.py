"""Finding out whom a model cannot answer about: a batch that fails is asked again by halves, and theirs, a bounded
number of times, so that one entity with odd values does not take the others' predictions along.

A model that answers nothing is told from one that breaks over something by its first answers: where the batch has
failed, both halves, and both quarters of the first, nobody looks further.
"""

import collections
from collections.abc import Awaitable, Callable, Sequence

from stillwell.errors import ModelError, ModelFailed, ModelUnavailable
from stillwell.predictions.tensors import Said, Unusable

_MOST_WITHOUT_AN_ANSWER = 5
"""Calls that fail before the first is answered. As many open the circuit: see `stillwell.predictions.breaker`."""

_CALLS_PER_HALVING = 4
"""Two find one entity; so two of a batch can be found."""

Ask = Callable[[Sequence[int]], Awaitable[Sequence[Said]]]
"""What a model says of some entities, by their numbers. Raises ModelError."""


async def ask_by_halves(ask: Ask, numbers: Sequence[int], may_go_on: Callable[[], bool]) -> dict[int, Said]:
    """What a model says of each of these entities, in one call if that is answered.

    may_go_on: whether there is time for another call. Who is not asked alone in the end is told what the smallest call
    failed with that it was in. Raises ModelError where no call is answered, and ModelUnavailable where the first is not
    for a reason that no entity is to blame for.
    """
    said: dict[int, Said] = {}
    parts: collections.deque[tuple[Sequence[int], ModelError | None]] = collections.deque([(numbers, None)])
    left = 1 + _CALLS_PER_HALVING * (len(numbers) - 1).bit_length()
    first: ModelError | None = None
    failed, answered = 0, False
    while parts:
        part, why = parts.popleft()
        if why and (not left or not may_go_on()):
            said.update(dict.fromkeys(part, Unusable(str(why))))
            continue
        left -= 1
        try:
            said.update(zip(part, await ask(part), strict=True))
            answered = True
        except ModelError as error:
            if why and isinstance(error, ModelUnavailable) and not isinstance(error, ModelFailed):
                left = 0  # the server is gone meanwhile
                said.update(dict.fromkeys(part, Unusable(str(why))))
                continue
            if isinstance(error, ModelUnavailable) and not isinstance(error, ModelFailed):
                raise
            first, failed = first or error, failed + 1
            if not answered and failed == _MOST_WITHOUT_AN_ANSWER:
                raise first from None
            if len(part) == 1:
                said[part[0]] = Unusable(str(error))
            else:
                middle = len(part) // 2
                parts += [(part[:middle], error), (part[middle:], error)]
    if first and not answered:
        raise first
    return said
