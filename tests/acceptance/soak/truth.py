"""What every answer has to be. Pure: all that is true of an entity follows from its number."""

from collections.abc import Mapping

from tests.integration import orders

VIEW = orders.VIEW
PLUS = 12
FEATURES = ("amount", "number", *(f"plus{number}" for number in range(1, PLUS + 1)))
STORED = tuple(f"{VIEW}:{name}" for name in FEATURES)
REDUCED = "Offer:reduced"

DEFINITIONS = f'''
import os
from datetime import timedelta
from stillwell import (
    Col, Entity, Feature, Float64, Int64, Key, Model, OnDemandView, Output, Request, String, Timestamp, Topic, View,
    feature,
)
from .within import begin

begin()
_KEPT = []
_LEAK = int(os.environ.get("SOAK_LEAK", "0"))

class Customer(Entity, owner="tests"):
    customer: Key[String]

class Order(Topic, name="orders", event_time="at", start="earliest"):
    at: Col[Timestamp]
    customer: Col[String]
    amount: Col[Float64]
    number: Col[Int64]

class {VIEW}(View, source=Order, entity=Customer, keys={{"customer": Order.customer}}, where=Order.amount >= 0,
            ttl=timedelta(days=3650)):
    """The latest of a customer."""
    amount: Feature[Float64] = feature(Order.amount)
    number: Feature[Int64] = feature(Order.number)
{"".join(f"    plus{n}: Feature[Float64] = feature(Order.amount + {n}.0)" + chr(10) for n in range(1, PLUS + 1))}
class Quote(Request):
    discount: Col[Float64]

class Offer(OnDemandView, inputs=({VIEW}, Quote)):
    """What an order would come to."""
    reduced: Feature[Float64 | None] = feature({VIEW}.amount - Quote.discount)

def _plus_one(given):
    if _LEAK:
        _KEPT.append(os.urandom(_LEAK))
    return {{"worth": [None if each is None else each + 1 for each in next(iter(given.values()))]}}

class Worth(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(hours=1),
            inputs={{"amount": {VIEW}.amount}}, server=_plus_one, refresh_on_write=({VIEW},),
            debounce=timedelta(milliseconds=20)):
    worth: Output[Float64]

class Quoted(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(minutes=5),
             inputs={{"discount": Quote.discount}}, server=_plus_one):
    worth: Output[Float64]

class Later(Model, entity=Customer, version="1", policy="refresh", max_staleness=timedelta(minutes=1),
            inputs={{"amount": {VIEW}.amount}}, server=_plus_one):
    worth: Output[Float64]
'''

_ENDS = ("", "}", ":x", "ü")
"""Of names: what stands for something elsewhere."""


def name(number: int) -> str:
    """The customer of a number: each number has one of its own."""
    return f"n{number}{_ENDS[number % len(_ENDS)]}"


def order(customer: str, number: int) -> dict[str, object]:
    """The order of a number, later than those before."""
    return {"at": orders.time(number), "customer": customer, "amount": number + 0.5, "number": number}


def value(feature: str, number: int) -> float:
    """A feature, by its name, of a customer whose newest order has this number."""
    if feature == "number":
        return number
    return number + 0.5 + float(feature.removeprefix("plus") if feature != "amount" else 0)


def worth(number: int) -> Mapping[str, float]:
    """What the model says of such a customer."""
    return {"worth": number + 1.5}
