"""The text of definitions that tests of loading begin with: flights, airports and routes."""

FLOWN = """\
from datetime import timedelta
from stillwell import *

class Airport(Entity):
    airport: Key[String]

class Route(Entity):
    origin: Key[String]
    dest: Key[String]

class Departure(Topic, name="flights.departures", event_time="at"):
    at: Col[Timestamp]
    origin: Col[String]
    dest: Col[String]
    delay: Col[Float32]
"""
