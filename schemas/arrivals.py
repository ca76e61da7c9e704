"""Arrivals: flights that reached the gate, be it another one."""

from datetime import timedelta

import polars as pl

from schemas.entities import Aircraft, Airport, Route
from stillwell import Bool, Col, Feature, Float32, Int32, Rows, String, Timestamp, Topic, View, col, feature, rows


class Arrival(Topic, name="flights.arrivals", event_time="at", start="earliest"):
    """A flight reached its gate, or was diverted and reached some other airport. One event each.

    Written by: the carriers' operations centres, within minutes of the event, some of them hours late.
    Read by: the delay model's features.
    Key: the flight, as `UA1545`, so that news of a flight stays in order.
    Header: `feed`, the name of the system that wrote the event; old writers send none.
    Retention: 7 days.

        {"at": "2013-01-01T08:30:00-06:00",
         "flight": {"carrier": "UA", "number": 1545, "tail": "N14228"},
         "route": {"origin": "EWR", "dest": "IAH", "miles": 1400},
         "delay": 11, "airborne": 227, "diverted": false}

    Fields:
    - at: when the flight arrived or, if that is not known, when it was to arrive
    - carrier, number, tail: which flight, and which aircraft if that is known
    - origin, dest, miles: the planned route and its length
    - delay: minutes behind the schedule, less than zero if it was early; null for a diverted flight
    - airborne: minutes in the air; null for a diverted flight
    - diverted: whether it came down elsewhere
    - feed: the system that wrote the event
    - received: when Kafka received the event
    """

    at: Col[Timestamp]
    carrier: Col[String] = col(path="flight.carrier", regex="[A-Z0-9]{2}")
    number: Col[Int32] = col(path="flight.number", gt=0)
    tail: Col[String | None] = col(path="flight.tail")
    origin: Col[String] = col(path="route.origin", regex="[A-Z]{3}")
    dest: Col[String] = col(path="route.dest", regex="[A-Z]{3}")
    miles: Col[Int32] = col(path="route.miles", gt=0)
    delay: Col[Float32 | None] = col(ge=-1440, le=2880)
    airborne: Col[Float32 | None] = col(gt=0, le=1440)
    diverted: Col[Bool]
    feed: Col[String | None] = col(header="feed")
    received: Col[Timestamp] = col(record_timestamp=True)


class AircraftArrivals(
    View,
    source=Arrival,
    entity=Aircraft,
    keys={"tail": Arrival.tail},
    where=Arrival.tail.is_not_null(),
    ttl=timedelta(days=400),
):
    """Where an aircraft came down last, and how late: its next departure cannot be earlier."""

    airport: Feature[String | None] = feature(
        pl.when(~Arrival.diverted).then(Arrival.dest), description="null after a diversion: it is somewhere else"
    )
    delay: Feature[Float32 | None] = feature(Arrival.delay, description="minutes")
    diverted: Feature[Bool] = feature(Arrival.diverted)


class RouteArrivals(
    View,
    source=Arrival,
    entity=Route,
    keys={"origin": Arrival.origin, "dest": Arrival.dest},
    where=~Arrival.diverted,
    ttl=timedelta(days=400),
):
    """The latest arrival on a route: how the winds are."""

    delay: Feature[Float32 | None] = feature(Arrival.delay, description="minutes")
    airborne: Feature[Float32 | None] = feature(Arrival.airborne, description="minutes")
    mph: Feature[Float32 | None] = feature(
        (Arrival.miles / Arrival.airborne * 60).cast(pl.Float32), description="over the ground, as the crow flies"
    )
    reported_s: Feature[Int32] = feature(
        (Arrival.received - Arrival.at).dt.total_seconds().clip(0, 2_000_000_000).cast(pl.Int32),
        description="seconds from the arrival to its news",
    )


class AirportMovements(View, source=Arrival, entity=Airport, where=~Arrival.diverted, ttl=timedelta(days=400)):
    """The latest flight between an airport and another, seen from both ends."""

    inbound: Feature[Bool] = feature(description="whether the flight ended here")
    other: Feature[String] = feature(description="the airport at the other end")
    carrier: Feature[String]
    delay: Feature[Float32 | None] = feature(description="minutes behind the schedule on arrival")

    @rows
    @staticmethod
    def ends(event: Arrival) -> Rows:
        """The airport where the flight ended, and the one where it began."""
        common = {"carrier": event.carrier, "delay": event.delay}
        yield {"airport": event.dest, "inbound": True, "other": event.origin, **common}
        yield {"airport": event.origin, "inbound": False, "other": event.dest, **common}
