"""One entity that a model breaks over costs the others nothing, and a model that is broken no storm of calls."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwell.errors import ModelError, ModelFailed, ModelLeftAlone, ModelUnavailable
from stillwell.predictions.halving import ask_by_halves
from stillwell.predictions.tensors import Said, Unusable


class Breaking:
    """A model that breaks over some numbers, and adds one to the others."""

    def __init__(self, odd: Sequence[int], error: ModelError | None = None) -> None:
        self.calls: list[list[int]] = []
        self._odd = set(odd)
        self._error = error or ModelFailed("500")

    async def __call__(self, numbers: Sequence[int]) -> Sequence[Said]:
        self.calls.append(list(numbers))
        if self._odd & set(numbers):
            raise self._error
        return [{"out": number + 1} for number in numbers]


def unusable(said: dict[int, Said]) -> set[int]:
    for number, each in said.items():
        assert isinstance(each, Unusable) or each == {"out": number + 1}
    return {number for number, each in said.items() if isinstance(each, Unusable)}


@given(st.integers(1, 300), st.data())
async def test_whom_it_breaks_over_is_found_and_all_others_are_answered(count: int, data: st.DataObject) -> None:
    odd = data.draw(st.integers(0, count - 1))
    model = Breaking([odd])
    if count == 1:
        with pytest.raises(ModelFailed):
            await ask_by_halves(model, range(count), lambda: True)
        return
    said = await ask_by_halves(model, range(count), lambda: True)
    assert (set(said), unusable(said)) == (set(range(count)), {odd})
    assert len(model.calls) <= 1 + 2 * math.ceil(math.log2(count))


@given(st.integers(1, 300), st.data())
async def test_however_many_there_are_everybody_is_told_something_in_a_bounded_number_of_calls(
    count: int, data: st.DataObject
) -> None:
    odd = data.draw(st.sets(st.integers(0, count - 1)))
    model = Breaking(sorted(odd))
    try:
        said = await ask_by_halves(model, range(count), lambda: True)
    except ModelFailed:
        assert odd
        assert all(odd & set(call) for call in model.calls)
        assert len(model.calls) <= 5
    else:
        assert set(said) == set(range(count))
        assert odd <= unusable(said)
        if len(odd) <= 1:
            assert unusable(said) == odd
    assert len(model.calls) <= 1 + 4 * math.ceil(math.log2(count))


async def test_a_model_that_breaks_over_everything_is_asked_five_times_and_no_more() -> None:
    model = Breaking(range(64))
    with pytest.raises(ModelFailed, match="500"):
        await ask_by_halves(model, range(64), lambda: True)
    assert [len(call) for call in model.calls] == [64, 32, 32, 16, 16]


async def test_nobody_is_looked_for_where_there_is_no_time() -> None:
    model = Breaking([3], ModelError("400"))
    with pytest.raises(ModelError, match="400"):
        await ask_by_halves(model, range(64), lambda: False)
    assert len(model.calls) == 1


@pytest.mark.parametrize("error", [ModelUnavailable("gone"), ModelLeftAlone("left alone")])
async def test_no_entity_is_to_blame_where_the_server_is_gone(error: ModelError) -> None:
    model = Breaking([3], error)
    with pytest.raises(type(error)):
        await ask_by_halves(model, range(64), lambda: True)
    assert len(model.calls) == 1


async def test_a_server_that_goes_in_between_keeps_what_it_has_said() -> None:
    model = Breaking([3])

    async def ask(numbers: Sequence[int]) -> Sequence[Said]:
        if len(model.calls) == 3:
            raise ModelUnavailable("gone")
        return await model(numbers)

    said = await ask_by_halves(ask, range(64), lambda: True)
    assert unusable(said) == set(range(32))
    assert {each.reason for each in said.values() if isinstance(each, Unusable)} == {"500"}
