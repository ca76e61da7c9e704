"""`stillwell predict`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from stillwell.cli.get import pairs_of
from stillwell.cli.output import json_option, print_json
from stillwell.cli.service import service_option, timeout_option
from stillwell.cli.values import jsonable, printable, shown

if TYPE_CHECKING:
    from stillwell.client import Prediction, Predictions


@click.command()
@click.argument("model")
@click.argument("keys", nargs=-1, metavar="KEY=VALUE…")
@timeout_option
@service_option
@json_option
def predict(model: str, keys: tuple[str, ...], timeout: float, url: str, as_json: bool) -> int:
    """Show a model's prediction for an entity, as a query service answers.

    Keys, and values that the model wants with the request, are given as text. The prediction is FRESH, STALE, MISSING
    or FAILED; the exit code is 1 for the last two.
    """
    import asyncio

    from stillwell.client import PredictionState
    from stillwell.client.service import at

    entity = pairs_of(keys)

    async def ask() -> "Predictions":
        service = at(url)
        try:
            return await service.prediction_of_text(model, entity, timeout)
        finally:
            await service.close()

    found = asyncio.run(ask())
    one = found.one()
    if as_json:
        print_json(_as_json(found, one))
    else:
        _print(found, one)
    return 1 if one.state in (PredictionState.MISSING, PredictionState.FAILED) else 0


def _as_json(found: "Predictions", one: "Prediction") -> dict[str, object]:
    return {
        "model": found.model,
        "version": found.version,
        "entity": {name: jsonable(value) for name, value in one.entity.items()},
        "outputs": {name: jsonable(value) for name, value in one.values.items()},
        "state": one.state.value,
        "computed_at": jsonable(one.computed_at),
        "read_at": jsonable(one.read_at),
        "age_s": None if one.age is None else one.age.total_seconds(),
        "input_ages_s": {
            name: None if each.age is None else each.age.total_seconds() for name, each in one.inputs.items()
        },
        "refresh": one.refresh.value,
        "reason": one.reason,
    }


def _print(found: "Predictions", one: "Prediction") -> None:
    keys = ", ".join(f"{name}={shown(value)}" for name, value in one.entity.items())
    click.echo(f"{printable(found.model)} version {printable(found.version)} of {keys}: {one.state.value}")
    _aligned((name, shown(value)) for name, value in one.values.items())
    if one.computed_at is not None:
        click.echo(f"computed at {jsonable(one.computed_at)}, from inputs read at {jsonable(one.read_at)}")
    from stillwell.counting import lasting_about

    ages = [f"{name} {lasting_about(each.age)}" for name, each in one.inputs.items() if each.age is not None]
    if ages:
        click.echo(f"ages of the inputs: {printable(', '.join(ages))}")
    if one.reason:
        click.echo(printable(one.reason))
    if one.refresh.value != "none":
        click.echo(f"refresh: {one.refresh.value}")


def _aligned(pairs: Iterable[tuple[str, str]]) -> None:
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"  {printable(name):<{width}}  {value}")
