"""What the features are about."""

from stillwell import Entity, Key, String


class Airport(Entity, owner="operations"):
    """An airport, by its IATA code: `JFK`."""

    airport: Key[String]


class Carrier(Entity, owner="operations"):
    """An airline, by its two-letter IATA code: `UA`."""

    carrier: Key[String]


class Route(Entity, owner="network-planning"):
    """A pair of airports in the direction of flight, whoever flies it."""

    origin: Key[String]
    dest: Key[String]


class Aircraft(Entity, owner="fleet"):
    """An aircraft, by the tail number that it wears: `N14228`."""

    tail: Key[String]
