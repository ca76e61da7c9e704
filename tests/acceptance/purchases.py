"""A topic as somebody else has it: purchases, nested, with nulls and three kinds of records that cannot be used."""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer

from stillwell.instants import now_ms

TOPIC = "acme.purchases"
COUNT = 600
BAD = 18
"""How many cannot be used: cut off, of another type, and without whom they are about; none of the last twenty."""

CUSTOMERS = 40


def purchases(rng: random.Random, now_ms: int) -> list[tuple[bytes | None, bytes]]:
    """Keys and values of records, the oldest first."""
    made = [_purchase(rng, number, now_ms - (COUNT - number) * 1_000) for number in range(COUNT)]
    values = [json.dumps(each).encode() for each in made]
    keys: list[bytes | None] = [str(each["customer"]["id"]).encode() for each in made]
    bad = rng.sample(range(COUNT - 30), BAD)
    for kind, number in zip(range(BAD), bad, strict=True):
        match kind % 3:
            case 0:
                values[number] = values[number][: len(values[number]) // 2]
            case 1:
                values[number] = json.dumps({**made[number], "basket": {"total": "free", "items": 1}}).encode()
            case 2:
                values[number] = json.dumps({**made[number], "customer": None}).encode()
    return list(zip(keys, values, strict=True))


def _purchase(rng: random.Random, number: int, at_ms: int) -> dict[str, Any]:
    customer: dict[str, Any] = {"id": rng.randrange(CUSTOMERS), "tier": rng.choice(["gold", "silver", None])}
    purchase: dict[str, Any] = {
        "purchase_id": f"p-{number:05}",
        "purchasedAt": at_ms,
        "customer": customer,
        "basket": {"total": round(rng.uniform(1, 500), 2), "items": rng.randint(1, 9)},
        "shipping": rng.choice([None, {"address": {"city": "Bonn", "zip": "53111"}, "express": rng.random() < 0.2}]),
        "tags": ["new"] if number % 7 == 0 else [],
    }
    return purchase | ({"note": "a gift"} if rng.random() < 0.1 else {})


async def _send(bootstrap: str, records: list[tuple[bytes | None, bytes]]) -> None:
    """One a second until now: of records of one millisecond nobody could say which are the newest."""
    now = now_ms()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for ago, (key, value) in zip(range(len(records), 0, -1), records, strict=True):
            await producer.send(TOPIC, value, key=key, timestamp_ms=now - ago * 1_000)


def send(environment: Mapping[str, str], records: list[tuple[bytes | None, bytes]]) -> None:
    """Write them, as their producer would."""
    asyncio.run(_send(environment["STILLWELL_KAFKA_BOOTSTRAP"], records))
