"""Who pushes to a name that is no view hears what it is, and what can be pushed to in its place."""

import uuid
from pathlib import Path

import pytest

from stillwell.definitions.loading import load_definitions
from stillwell.pushing.instead import not_a_view
from stillwell.spec import DefinitionsSpec
from tests.flown import FLOWN

DEFINITIONS = (
    FLOWN
    + """
class Airports(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(days=1)):
    delay: Feature[Float32] = feature(Departure.delay)


class Routes(View, source=Departure, entity=Route, ttl=timedelta(days=1),
             keys={"origin": Departure.origin, "dest": Departure.dest}):
    delay: Feature[Float32] = feature(Departure.delay)


Origin = Airports.at(airport=Route.origin)


class Search(Request):
    seats: Col[Int64]


class Twice(OnDemandView, inputs=(Origin, Search)):
    delay: Feature[Float64 | None] = feature(Origin.delay * Search.seats)


class TwiceThen(View, source=Twice, entity=Route, ttl=timedelta(days=1)):
    delay: Feature[Float64 | None] = feature(Twice.delay)


class Asked(OnDemandView, inputs=(Search,)):
    doubled: Feature[Int64] = feature(Search.seats * 2)


class Delay(Model, entity=Route, version="1", policy="cached", max_staleness=timedelta(minutes=1),
            inputs={"twice": Twice.delay, "route": Routes.delay}, server=OpenInference(url="http://m", model="d")):
    minutes: Output[Float32]


class Board(FeatureService, features=(Routes.delay, Delay.minutes)):
    pass
"""
)


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DefinitionsSpec:
    """One of everything that has a name."""
    package = f"named_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{package}.py").write_text(DEFINITIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return load_definitions(package, tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "Delay",
            "Delay is a model, whose predictions are computed from what it reads: push to Airports or Routes",
        ),
        ("Origin", "Origin is an alias, which shows rows of Airports by other keys: push to Airports"),
        (
            "Twice",
            "Twice is an on-demand view, which is computed from what it reads when it is asked for: push to "
            "TwiceThen or Airports",
        ),
        (
            "Asked",
            "Asked is an on-demand view, which is computed from what it reads when it is asked for: nothing can be "
            "pushed for it",
        ),
        ("Board", "Board is a feature service, which lists features: push to Routes or Airports"),
        ("Search", "Search is what a request brings, and is not stored: nothing can be pushed for it"),
        ("Departure", "Departure is a topic: push to Airports or Routes"),
        ("flights.departures", "flights.departures is a topic: push to Airports or Routes"),
        ("Airport", "Airport is an entity: push to Airports"),
        ("Airprots", "there is no view 'Airprots'; did you mean 'Airports'?"),
        ("x" * 1_000_000, f"there is no view '{'x' * 60}…'; there is Airports, Routes, TwiceThen"),
    ],
)
def test_a_name_that_is_no_view_is_told_for_what_it_is(name: str, says: str, definitions: DefinitionsSpec) -> None:
    assert not_a_view(definitions, name) == says
