"""Hints of a process that answers: sent together, not too often, and dropped rather than waited for."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.predictions.hint import Cause, Hint
from stillwell.predictions.hinting import HintBuffer, Topic
from stillwell.testing.hints import MemoryHints
from tests.waiting import eventually_async


def hint(number: int, fingerprint: bytes = b"") -> Hint:
    key = b"i%d:%d" % (len(str(number)), number)
    return Hint("Delay", key, b"", {"id": number}, Cause.READ, fingerprint=fingerprint)


def buffer(topic: Topic, clock: Callable[[], float]) -> HintBuffer:
    async def connect() -> Topic:
        return topic

    return HintBuffer(connect, clock)


async def until(count: int, topic: MemoryHints) -> None:
    async def there() -> bool:
        return len(topic.hints) == count

    await eventually_async(there, what=f"{count} hints, now {len(topic.hints)}")


async def test_a_hint_is_sent_once_within_a_second_and_again_after_it() -> None:
    topic, now = MemoryHints(), 100.0
    hints = buffer(topic, lambda: now)
    assert hints.put([hint(1), hint(2), hint(1)]) == [True, True, False]
    await until(2, topic)
    now += 0.9
    assert hints.put([hint(1)]) == [False]
    now += 0.2
    assert hints.put([hint(1)]) == [True]
    await until(3, topic)
    await hints.close()


async def test_over_other_inputs_a_hint_is_sent_at_once() -> None:
    """What was asked for a moment ago may have been computed before they changed: nobody would compute it again."""
    topic = MemoryHints()
    hints = buffer(topic, lambda: 100.0)
    assert hints.put([hint(1, b"old"), hint(1, b"new"), hint(1, b"old"), hint(1, b"new")]) == [True, True, False, False]
    await until(2, topic)
    await hints.close()


async def test_what_cannot_be_sent_is_dropped_and_may_be_hinted_again_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = MemoryHints()

    def refuse() -> None:
        raise OutcomeUnknown("refused by the test")

    topic.faults = refuse
    hints = buffer(topic, lambda: 100.0)
    assert hints.put([hint(1)]) == [True]

    async def dropped() -> bool:
        return hints.put([hint(1)]) == [True]

    await eventually_async(dropped, what="the hint was dropped")
    assert "hints were dropped" in capsys.readouterr().out
    topic.faults = lambda: None
    await until(1, topic)
    await hints.close()


async def test_that_hints_do_not_get_through_is_known_until_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    topic = MemoryHints()
    hints = buffer(topic, lambda: 100.0)
    assert hints.problem == ""  # nobody has tried yet

    def refuse() -> None:
        raise OutcomeUnknown("refused by the test")

    topic.faults = refuse
    hints.put([hint(1)])

    async def known() -> bool:
        return hints.problem == "no worker can be asked to compute it anew: refused by the test"

    await eventually_async(known, what="it is known")
    topic.faults = lambda: None
    hints.put([hint(2)])
    assert hints.problem  # not yet
    await until(1, topic)

    async def over() -> bool:
        return hints.problem == ""

    await eventually_async(over, what="hints get through again")
    await hints.close()
    assert "hints were dropped" in capsys.readouterr().out


async def test_a_topic_that_does_not_answer_is_known_after_two_seconds() -> None:
    now, answers = 100.0, asyncio.Event()

    class Silent:
        async def send(self, hints: Sequence[Hint]) -> None:
            await answers.wait()

    hints = buffer(Silent(), lambda: now)
    hints.put([hint(1)])
    await asyncio.sleep(0)
    now += 1.9
    assert hints.problem == ""
    now += 0.2
    assert "Kafka has not taken such requests for 2 s" in hints.problem
    answers.set()

    async def over() -> bool:
        return hints.problem == ""

    await eventually_async(over, what="hints get through")
    await hints.close()


async def test_a_kafka_that_is_away_keeps_nobody_waiting_and_memory_bounded() -> None:
    async def connect() -> Topic:
        await asyncio.sleep(3_600)
        raise StoreUnavailable("never")

    hints = HintBuffer(connect, lambda: 100.0)
    accepted = hints.put([hint(number) for number in range(30_000)])
    assert accepted.count(True) == 10_000
    assert "10000 such requests wait for Kafka already" in hints.problem
    await asyncio.sleep(0)
    await hints.close()


async def test_a_hint_that_cannot_even_be_written_down_holds_up_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    topic = MemoryHints()

    def stumble() -> None:
        raise TypeError("stumbled in the test")

    topic.faults = stumble
    hints = buffer(topic, lambda: 100.0)
    hints.put([hint(1)])

    async def told() -> bool:
        return "stumbled in the test" in capsys.readouterr().out

    await eventually_async(told, what="the log tells of it")
    topic.faults = lambda: None
    hints.put([hint(2)])
    await until(1, topic)
    await hints.close()


async def test_of_many_hints_the_last_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwell.predictions.hinting._MOST_REMEMBERED", 2)
    topic = MemoryHints()
    hints = buffer(topic, lambda: 100.0)
    hints.put([hint(1), hint(2), hint(3)])
    assert hints.put([hint(2), hint(3), hint(1)]) == [False, False, True]
    await until(4, topic)
    hints.put([hint(1, b"%d" % number) for number in range(100)])
    assert len(hints._sent) == 2
    await hints.close()
