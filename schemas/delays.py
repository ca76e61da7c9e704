"""What the delays of a route are read and predicted from: nothing here is stored, but the predictions."""

from datetime import timedelta

import polars as pl

from schemas.departures import AirportDepartures, RouteDepartures
from schemas.entities import Route
from schemas.weather import AirportWeather
from stillwell import (
    AS_OF,
    Bool,
    Col,
    Feature,
    FeatureService,
    Float32,
    Int64,
    Model,
    OnDemandView,
    OpenInference,
    Output,
    Request,
    Timestamp,
    feature,
    output,
)

Origin = AirportDepartures.at(airport=Route.origin)
"""The latest departure from the airport at which a route begins, wherever it went."""

OriginWeather = AirportWeather.at(airport=Route.origin)
"""The latest weather there."""


class Journey(Request):
    """What somebody asks about: a flight that they mean to take."""

    departs_at: Col[Timestamp | None]


class RouteOutlook(OnDemandView, inputs=(Origin, OriginWeather, RouteDepartures, Journey)):
    """How a route looks at this instant, and at that of a journey."""

    quiet_min: Feature[Int64 | None] = feature(
        (AS_OF - Origin.scheduled - pl.duration(seconds=(Origin.delay * 60).fill_null(0))).dt.total_minutes(),
        description="minutes since the last departure from the origin",
    )
    ahead_min: Feature[Int64 | None] = feature(
        (Journey.departs_at - AS_OF).dt.total_minutes(), description="minutes until the journey begins"
    )
    rough: Feature[Bool] = feature(
        (OriginWeather.gusty | OriginWeather.icing | (OriginWeather.visibility < 1)).fill_null(False),
        description="gusts, ice or fog at the origin, as far as is known",
    )
    recovering: Feature[Bool] = feature(
        (Origin.late & (RouteDepartures.delay < 15)).fill_null(False),
        description="the origin is late, and this route is not",
    )


class RouteDelay(
    Model,
    entity=Route,
    version="1",
    policy="refresh",
    max_staleness=timedelta(minutes=10),
    inputs={
        "route_delay": RouteDepartures.delay,
        "miles": RouteDepartures.miles,
        "origin_delay": Origin.delay,
        "wind_speed": OriginWeather.wind_speed,
        "visibility": OriginWeather.visibility,
    },
    server=OpenInference(url="env:DELAY_URL", model="delay"),
    refresh_on_write=(RouteDepartures,),
    debounce=timedelta(seconds=1),
):
    """How late the next departure on a route will be."""

    minutes: Output[Float32] = output(description="behind the schedule, less than zero if it will leave early")


class RouteNow(
    FeatureService,
    features=(RouteDepartures.delay, RouteDepartures.cancelled, Origin.late, OriginWeather.visibility, RouteOutlook),
):
    """What a departure board shows of a route."""
