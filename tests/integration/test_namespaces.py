"""Namespaces and projects share topics, Redis and the offline store, and nothing that is in them."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed, Order, Sent
from tests.integration.proof import log, prove, until_linked

PARTITIONS = 2

OTHER_ROWS = """
class LastOrder(View, source=Order, entity=Customer, keys={"customer": Order.customer}, where=Order.amount >= 50,
                ttl=timedelta(days=3650)):
    amount: Feature[Float64] = feature(Order.amount)
    number: Feature[Int64] = feature(Order.number)
"""


def beside(deployment: Deployment, dead_letters: str, **settings: str) -> Deployment:
    """Another one over the same topic, with the same Redis and offline store; settings by their names."""
    changed = {f"STILLWELL_{name.upper()}": value for name, value in settings.items()}
    changed["STILLWELL_DEAD_LETTER_TOPIC"] = dead_letters
    return dataclasses.replace(
        deployment, dead_letters=dead_letters, settings={**deployment.settings, **changed}, workers=deployment.workers
    )


def some_orders(deployment: Deployment, rng: random.Random) -> list[Sent]:
    """Orders in disorder, one of which cannot be used."""
    values: list[Order | bytes] = [*orders.orders(1_500, rng), b"no JSON"]
    return orders.produce(deployment.bootstrap, deployment.topic, values, PARTITIONS)


def test_a_new_namespace_is_filled_from_the_topics_start_beside_the_old(
    deploy: Callable[..., Deployment], topic: Callable[..., str], rng: random.Random
) -> None:
    """While the old one goes on. Both verify, and hold the same rows, raw records and dead letters; a rebuild of the
    new one finds its own files, and definitions that give other rows may run there."""
    old = deploy(PARTITIONS)
    sent = some_orders(old, rng)
    worker = old.start_worker().until_ready()
    until_linked(old, sent)
    new = beside(old, topic("dead"), namespace=f"{old.settings['STILLWELL_NAMESPACE']}-next")
    refill = new.start_worker().until_ready()
    with Feed.of_orders(old.bootstrap, old.topic, PARTITIONS, rng) as feed:
        until_linked(new, sent)
    sent += feed.sent
    for deployment in (old, new):
        until_linked(deployment, sent)
    assert (worker.stop(), refill.stop()) == (0, 0)
    for deployment in (old, new):
        prove(deployment, sent)

    rebuilt = new.run("rebuild", "--yes", "--json")
    assert rebuilt.returncode == 0, rebuilt.stderr
    report = json.loads(rebuilt.stdout)
    assert (report["chains"], report["applied"]) == (PARTITIONS, 0)
    assert report["rows"] > 1_000

    change_rows(old)
    refused = old.start_worker()
    assert refused.running.wait(30) == 1
    assert "choose another STILLWELL_NAMESPACE" in log(refused)
    third = beside(old, topic("dead"), namespace=f"{old.settings['STILLWELL_NAMESPACE']}-rows")
    assert third.start_worker().until_ready().stop() == 0


def change_rows(deployment: Deployment) -> None:
    """Let the view give rows for other orders, under the same version."""
    file = deployment.folder / "orders" / "__init__.py"
    kept, _, _ = file.read_text().partition("class LastOrder")
    file.write_text(kept + OTHER_ROWS)


OTHER_VIEW = "NewestOrder"


def test_two_projects_over_one_topic_and_one_bucket_do_not_disturb_each_other(
    deploy: Callable[..., Deployment], topic: Callable[..., str], gcs: str, rng: random.Random, tmp_path: Path
) -> None:
    """Both live, under the same namespace, each with a view of its own, in which nothing is missing."""
    first = deploy(PARTITIONS, offline_url=gcs)
    second = beside(first, topic("dead"), project="other")
    second.folder = tmp_path / "other"
    second.folder.mkdir()
    orders.write_definitions(second.folder, first.topic)
    file = second.folder / "orders" / "__init__.py"
    file.write_text(file.read_text().replace(f"class {orders.VIEW}(", f"class {OTHER_VIEW}("))
    workers = [deployment.start_worker() for deployment in (first, second)]
    sent = some_orders(first, rng)
    with Feed.of_orders(first.bootstrap, first.topic, PARTITIONS, rng) as feed:
        for worker in workers:
            worker.until_ready()
        for deployment in (first, second):
            until_linked(deployment, sent)
    sent += feed.sent
    for deployment in (first, second):
        until_linked(deployment, sent)
    assert [worker.stop() for worker in workers] == [0, 0]
    prove(first, sent, left_behind=0)
    prove(second, sent, view=OTHER_VIEW, left_behind=0)
