"""`stillwell dev`: a worker over definitions that are being written, and nothing left of it."""

import json
import os
import signal
from collections.abc import Callable

import psutil
from confluent_kafka.admin import AdminClient

from stillwell.local import LocalStack
from tests.developer import Developer
from tests.integration import orders
from tests.waiting import eventually


def test_a_session_from_the_first_row_over_two_changes_to_the_end(developer: Developer) -> None:
    """On a stack of its own: shows rows and rejects, tells mistakes, explains a view without rows, leaves nothing."""
    process = developer.start()
    developer.until("A worker runs: LastOrder of shop.orders")
    parts = psutil.Process(process.pid).children(recursive=True)
    assert len(parts) >= 3
    exports = developer.exports
    second = developer.run("dev")
    assert second.returncode == 2
    assert f"runs already for the project shop, as process {process.pid}" in second.stderr

    lost = developer.run("get", "LastOrder", "customer=ada")
    assert lost.returncode == 2
    assert lost.stderr.endswith('this points the shell at it: eval "$(stillwell dev --exports)"\n')

    developer.run("produce", "shop.orders", "events/orders.ndjson", environment=exports).check_returncode()
    developer.until('LastOrder  customer="ada"')
    developer.until("rejected, expectation: amount: expected > 0, got -3.5 (at $.amount)")
    developer.until("LastOrder: 37 rows, 0 filtered, 4 rejected (decode 3, expectation 1)")
    got = developer.run("get", "LastOrder", "customer=ada", "--json", environment=exports)
    assert json.loads(got.stdout)["features"]["LastOrder:amount"]["status"] == "PRESENT", got.stderr

    developer.edit("features/orders.py", "Order.amount > 100,", "Order.amuont > 100,")
    developer.until("has no attribute 'amuont'; did you mean 'amount'?")
    developer.until("The worker goes on with what was there before.")
    developer.edit("features/orders.py", "Order.amuont > 100,", "Order.amount > 100,")
    developer.until("A worker runs: LastOrder", times=2)
    developer.until("LastOrder: 37 rows, 0 filtered, 4 rejected", times=2)
    developer.edit("features/orders.py", "source=Order,", "source=Order, where=Order.amount > 1000,")
    developer.until("without-country.json: expects of LastOrder")  # a caution, which keeps no worker from running
    developer.until("No record gave LastOrder a row:\n         37 filtered: LastOrder's where is not true of them\n")
    developer.until("          3 rejected, decode: they are not what Order declares")
    gone = developer.run("get", "LastOrder", "customer=ada", "--json", environment=exports)
    assert json.loads(gone.stdout)["features"]["LastOrder:amount"]["status"] == "NOT_FOUND", gone.stderr

    assert developer.end() == 0
    eventually(lambda: not any(part.is_running() for part in parts), within_s=10, what="the end of all parts")
    assert [
        path.name for path in (developer.folder / "tmp").rglob("*") if path.is_dir() or path.suffix == ".owner"
    ] == [f"stillwell-{os.getuid()}"]
    assert list((developer.folder / "state").rglob("*.json")) == []
    assert developer.run("dev", "--exports").returncode == 2
    assert "points the shell" not in developer.run("get", "LastOrder", "customer=ada").stderr


def test_it_goes_on_behind_a_worker_that_has_ended_by_itself(developer: Developer) -> None:
    """A rule stops it; mended, and computing otherwise under the same version, all is begun anew."""
    developer.edit("features/orders.py", "col(gt=0)", "col(stop=rule(gt=0))")
    developer.edit("features/orders.py", "col, feature\n", "col, feature, rule\n")
    developer.start()
    developer.until("A worker runs")
    exports = developer.exports
    developer.run("produce", "shop.orders", "events/orders.ndjson", environment=exports).check_returncode()
    developer.until("The worker has ended. Waiting for a change.")
    assert "topic shop.orders, partition 0, offset 11: amount: expected > 0, got -3.5" in developer.shown
    developer.edit("features/orders.py", "col(stop=rule(gt=0))", "col(gt=0)")
    developer.edit("features/orders.py", "Order.amount > 100", "Order.amount > 50")
    developer.until("LastOrder: 37 rows, 0 filtered, 4 rejected")
    assert developer.end() == 0


def test_of_a_kafka_that_is_there_it_reads_the_newest_records_and_leaves_it_as_it_was(
    developer: Developer, stack: LocalStack, topic: Callable[..., str], admin: AdminClient
) -> None:
    name = topic("orders", partitions=2)
    developer.edit("features/orders.py", '"shop.orders"', f'"{name}"')
    unread = '\n\nclass Refund(Topic, name="shop.refunds", event_time="at_"):\n    at_: Col[Timestamp]\n'
    (developer.folder / "features/refunds.py").write_text(f"from stillwell import Col, Timestamp, Topic{unread}")
    (developer.folder / "features/golden/shop.orders").rename(developer.folder / f"features/golden/{name}")
    kafka = {"STILLWELL_KAFKA_BOOTSTRAP": stack.bootstrap}
    developer.run("produce", name, "events/orders.ndjson", "--key", "buyer.id", environment=kafka).check_returncode()
    ends = orders.log_ends(stack.bootstrap, name, 2)
    before = set(admin.list_topics(timeout=30).topics)
    developer.start("--newest", "5", kafka_bootstrap=stack.bootstrap)
    expected = sum(min(5, end) for end in ends.values())
    developer.until(f"{name}: {expected} records")
    during = set(admin.list_topics(timeout=30).topics)
    group = next(iter(during - before)).removesuffix(".dead-letters")
    assert during - before == {f"{group}.dead-letters"}
    assert developer.end(signal.SIGTERM) == 0
    eventually(lambda: set(admin.list_topics(timeout=30).topics) == before, within_s=20, what="only what was there")
    groups = {each.group_id for each in admin.list_consumer_groups().result(30).valid}
    assert group.startswith("shop.dev-")
    assert group not in groups


def test_a_topic_that_is_not_there_is_named_and_waited_for(
    developer: Developer, stack: LocalStack, topic: Callable[..., str]
) -> None:
    developer.start(kafka_bootstrap=stack.bootstrap)
    developer.until("Kafka has no topic shop.orders")
    developer.until("Waiting for it, or for a change.")
    name = topic("orders")
    (developer.folder / "features/golden/shop.orders").rename(developer.folder / f"features/golden/{name}")
    developer.edit("features/orders.py", '"shop.orders"', f'"{name}"')
    developer.until(f"A worker runs: LastOrder of {name}")
    assert developer.end() == 0


def test_a_kafka_that_is_not_there_ends_it_at_once(developer: Developer) -> None:
    process = developer.start(kafka_bootstrap="127.0.0.1:1")
    assert process.wait(60) == 1
    assert "Kafka cannot be reached" in developer.shown
    assert "stay there" not in developer.shown
    assert developer.left == []


def test_no_session_has_no_exports(developer: Developer) -> None:
    done = developer.run("dev", "--exports")
    assert done.returncode == 2
    assert "no `stillwell dev` runs for the project shop: start it in another terminal" in done.stderr
