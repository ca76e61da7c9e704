"""What is read is defined as what is written: aliases, requests, on-demand views, feature services and models."""

import pathlib
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError
from stillwell.spec import DefinitionsSpec, OpenInferenceSpec
from tests.flown import FLOWN

VIEWS = (
    FLOWN
    + """
class AirportDepartures(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(1),
                        freshness=timedelta(hours=1)):
    left: Feature[Timestamp] = feature(Departure.at)
    late: Feature[Bool] = feature(Departure.delay > 15)

class RouteDepartures(View, source=Departure, entity=Route, ttl=timedelta(1),
                      keys={"origin": Departure.origin, "dest": Departure.dest}):
    delay: Feature[Float32] = feature(Departure.delay)
"""
)
READS = """\
from datetime import timedelta
from stillwell import *
from flown.views import AirportDepartures, Route, RouteDepartures

class Search(Request):
    \"\"\"What a traveller asks for.\"\"\"
    departs_at: Col[Timestamp]
    seats: Col[Int32 | None]

Origin = AirportDepartures.at(airport=Route.origin)

class Waiting(OnDemandView, inputs=(Origin, Search), version=2):
    quiet_s: Feature[Int64 | None] = feature((AS_OF - Origin.left).dt.total_seconds(), description="seconds")
    ahead_s: Feature[Int64] = feature((Search.departs_at - AS_OF).dt.total_seconds())
"""
USES = """\
from datetime import timedelta
from stillwell import *
from flown.reads import Origin, Search, Waiting
from flown.views import AirportDepartures, Route, RouteDepartures

class RouteDelay(Model, entity=Route, version="3", policy="refresh", max_staleness=timedelta(minutes=10),
                 inputs={"late": Origin.late, "delay": RouteDepartures.delay, "quiet": Waiting.quiet_s},
                 server=OpenInference(url="env:DELAY_URL", model="delay"),
                 refresh_on_write=(RouteDepartures, Origin), debounce=timedelta(seconds=1), max_fan_out=100):
    \"\"\"How late the next one will be.\"\"\"
    minutes: Output[Float32] = output(description="behind the schedule")

def guess(inputs):
    return {"likely": [seats is not None for seats in inputs["seats"]]}

class Seats(Model, entity=Route, version="1", policy="wait", max_staleness=timedelta(minutes=1),
            inputs={"seats": Search.seats, "late": Origin.late}, server=guess):
    likely: Output[Bool | None]

class DelayInputs(FeatureService, features=(AirportDepartures.late, RouteDepartures, Origin, Waiting.quiet_s,
                                            RouteDelay.minutes)):
    \"\"\"What the delay model is asked with.\"\"\"
"""

Load = Callable[..., DefinitionsSpec]


@pytest.fixture
def load(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a package `flown` of these modules."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def forget() -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] == "flown"]:
            del sys.modules[name]

    def load(**modules: str) -> DefinitionsSpec:
        forget()
        folder = tmp_path / "flown"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        for name, text in {"views": VIEWS, "reads": READS, "uses": USES, **modules}.items():
            (folder / f"{name}.py").write_text(text)
        return load_definitions("flown", tmp_path)

    yield load
    forget()


def test_an_alias_is_called_as_its_variable_is_in_whichever_modules(load: Load) -> None:
    definitions = load()
    (origin,) = definitions.aliases
    assert (origin.name, origin.view.name, origin.entity.name) == ("Origin", "AirportDepartures", "Route")
    assert origin.keys == {"airport": "origin"}
    assert origin.qualifier == "AirportDepartures[airport=Route.origin]"


def test_requests_and_on_demand_views_are_values(load: Load) -> None:
    definitions = load()
    (search,) = definitions.requests
    assert search.description == "What a traveller asks for."
    assert [(each.name, each.type.name, each.nullable) for each in search.columns] == [
        ("departs_at", "Timestamp", False),
        ("seats", "Int32", True),
    ]
    (waiting,) = definitions.on_demand
    assert (waiting.name, waiting.version) == ("Waiting", 2)
    assert [each.name for each in waiting.inputs] == ["Origin", "Search"]
    assert [(each.name, each.type.name, each.nullable) for each in waiting.features] == [
        ("quiet_s", "Int64", True),
        ("ahead_s", "Int64", False),
    ]
    assert waiting.file.endswith("reads.py:12")
    assert waiting.source_digest


def test_a_feature_service_names_features_as_requests_do(load: Load) -> None:
    (service,) = load().services
    assert service.name == "DelayInputs"
    assert service.features == (
        "AirportDepartures:late",
        "RouteDepartures:delay",
        "Origin:left",
        "Origin:late",
        "Waiting:quiet_s",
        "RouteDelay:minutes",
    )


def test_a_model_says_what_it_reads_and_what_keeps_it_fresh(load: Load) -> None:
    delay, seats = load().models
    assert (delay.name, delay.version, delay.entity.name, delay.policy) == ("RouteDelay", "3", "Route", "refresh")
    assert [(each.name, each.reference, each.type.name) for each in delay.inputs] == [
        ("late", "Origin:late", "Bool"),
        ("delay", "RouteDepartures:delay", "Float32"),
        ("quiet", "Waiting:quiet_s", "Int64"),
    ]
    assert [(each.name, each.type.name, each.description) for each in delay.outputs] == [
        ("minutes", "Float32", "behind the schedule")
    ]
    assert delay.server == OpenInferenceSpec(url="env:DELAY_URL", model="delay")
    assert delay.refresh_on_write == ("RouteDepartures", "Origin")
    assert (delay.max_staleness, delay.debounce, delay.max_fan_out) == (
        timedelta(minutes=10),
        timedelta(seconds=1),
        100,
    )
    assert [each.reference for each in seats.inputs] == ["Search:seats", "Origin:late"]
    assert callable(seats.server)


def test_a_views_objective_is_in_its_spec(load: Load) -> None:
    by_airport, by_route = load().views
    assert by_airport.freshness == timedelta(hours=1)
    assert by_route.freshness is None


def test_a_definition_that_no_module_has_is_told_where_it_is_from(load: Load) -> None:
    elsewhere = "from flown.views import *\nfrom flown_elsewhere import Strange\n" + USES.replace(
        "RouteDelay.minutes", "Strange.late"
    )
    (pathlib.Path.cwd() / "flown_elsewhere.py").write_text(
        "from flown.views import *\n"
        'class Strange(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(1)):\n'
        "    late: Feature[Bool] = feature(Departure.delay > 15)\n"
    )
    with pytest.raises(DefinitionError, match="DelayInputs reads Strange of flown_elsewhere, which is no module of"):
        load(uses=elsewhere)
    sys.modules.pop("flown_elsewhere")


def test_an_alias_that_another_module_calls_otherwise_is_refused(load: Load) -> None:
    with pytest.raises(DefinitionError, match=r"reads.py:10: an alias is called Origin and Start; keep one"):
        load(
            uses=USES.replace("import Origin,", "import Origin as Start,")
            .replace("Origin.", "Start.")
            .replace("Origin)", "Start)")
            .replace("Origin,", "Start,")
        )
