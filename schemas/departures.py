"""Departures: flights that left the gate, or were not going to."""

from datetime import timedelta

import polars as pl

from schemas.entities import Airport, Carrier, Route
from stillwell import Bool, Col, Feature, Float32, Int32, String, Timestamp, Topic, View, col, feature


class Departure(Topic, name="flights.departures", event_time="at", start="earliest"):
    """A flight left its gate, or was cancelled. One event each.

    Written by: the airports' gate systems, within a minute of the event.
    Read by: the delay model's features.
    Key: the flight, as `UA1545`, so that news of a flight stays in order.
    Retention: 7 days.

        {"at": "2013-01-01T05:17:00-05:00",
         "flight": {"carrier": "UA", "number": 1545, "tail": "N14228"},
         "route": {"origin": "EWR", "dest": "IAH", "miles": 1400},
         "times": {"scheduled": "2013-01-01T05:15:00-05:00", "departed": "2013-01-01T05:17:00-05:00"},
         "delay": 2, "cancelled": false}

    Fields:
    - at: when the flight left or, if it was cancelled, when it was to leave
    - carrier, number, tail: which flight, and which aircraft if that is known
    - origin, dest, miles: the route and its length
    - scheduled, departed: when it was to leave, and when it did; a cancelled flight never did
    - delay: minutes between the two, less than zero if it left early; null for a cancelled flight
    - cancelled: whether it was cancelled
    """

    at: Col[Timestamp]
    carrier: Col[String] = col(path="flight.carrier", regex="[A-Z0-9]{2}")
    number: Col[Int32] = col(path="flight.number", gt=0)
    tail: Col[String | None] = col(path="flight.tail")
    origin: Col[String] = col(path="route.origin", regex="[A-Z]{3}")
    dest: Col[String] = col(path="route.dest", regex="[A-Z]{3}")
    miles: Col[Int32] = col(path="route.miles", gt=0)
    scheduled: Col[Timestamp] = col(path="times.scheduled")
    departed: Col[Timestamp | None] = col(path="times.departed")
    delay: Col[Float32 | None] = col(ge=-1440, le=2880)
    cancelled: Col[Bool]


class AirportDepartures(
    View,
    source=Departure,
    entity=Airport,
    keys={"airport": Departure.origin},
    where=~Departure.cancelled,
    ttl=timedelta(days=400),
):
    """The latest departure from an airport."""

    scheduled: Feature[Timestamp] = feature(Departure.scheduled)
    delay: Feature[Float32 | None] = feature(Departure.delay, description="minutes")
    late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False), description="over 15 minutes behind")
    dest: Feature[String] = feature(Departure.dest)
    carrier: Feature[String] = feature(Departure.carrier)


class RouteDepartures(
    View,
    source=Departure,
    entity=Route,
    keys={"origin": Departure.origin, "dest": Departure.dest},
    ttl=timedelta(days=400),
):
    """The latest news of a departure on a route, cancellations too."""

    cancelled: Feature[Bool] = feature(Departure.cancelled)
    delay: Feature[Float32 | None] = feature(Departure.delay.clip(-60, 600), description="minutes, without outliers")
    miles: Feature[Int32] = feature(Departure.miles)


class CarrierDepartures(
    View,
    source=Departure,
    entity=Carrier,
    keys={"carrier": Departure.carrier},
    where=~Departure.cancelled,
    ttl=timedelta(0),
):
    """The latest departure of a carrier from any airport. Carriers are few, and are remembered for ever."""

    flight: Feature[String] = feature(
        pl.concat_str(Departure.carrier, Departure.number.cast(pl.String)), description="as on the board: UA1545"
    )
    origin: Feature[String] = feature(Departure.origin)
    delay: Feature[Float32 | None] = feature(Departure.delay, description="minutes")
    tail: Feature[String | None] = feature(Departure.tail)
