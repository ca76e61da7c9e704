"""What a test of a deployment ends with: `stillwell verify` and the oracle agree that all is right."""

import json
from collections.abc import Sequence
from typing import Any

from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Sent
from tests.waiting import eventually
from tests.worker import WorkerProcess


def prove(
    deployment: Deployment,
    sent: Sequence[Sent],
    *,
    topic: str | None = None,
    view: str = orders.VIEW,
    expired: int = 0,
    left_behind: int | None = None,
) -> None:
    """`stillwell verify` finds nothing wrong and counts these records; Redis, files and dead letters are the oracle's.

    expired: offsets that retention took. left_behind: files that no link names, if that matters.
    """
    topic = topic or deployment.topic
    wrong = oracle.what_is_wrong(deployment.settings, topic, sent, view)
    assert not wrong, "\n".join(wrong)
    report = verified(deployment)
    partitions = [total for total in report["partitions"] if total["partition"].rpartition("@")[0] == topic]
    assert sum(total["records"] for total in partitions) == len(sent)
    assert sum(total["expired"] for total in partitions) == expired
    if left_behind is not None:
        assert len(report["unlinked"]) == left_behind


def verified(deployment: Deployment) -> dict[str, Any]:
    """What `stillwell verify --json` prints, when it finds nothing wrong."""
    done = deployment.run("verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["findings"] == []
    return report


def until_linked(
    deployment: Deployment, sent: Sequence[Sent], *, topic: str | None = None, within_s: float = 30
) -> None:
    """Wait until the chains cover as many records as were sent, or more, which is for `prove` to find."""
    topic = topic or deployment.topic
    eventually(
        lambda: oracle.linked(deployment.settings, topic) >= len(sent),
        within_s=within_s,
        what=f"{len(sent)} records of {topic} linked",
    )


def metric(worker: WorkerProcess, name: str, **labels: str) -> float:
    """The sum of a metric's values that have these labels, as the worker shows them now; 0 where it shows none."""
    wanted = {f'{label}="{text}"' for label, text in labels.items()}
    total = 0.0
    for line in worker.page("/metrics")[1].splitlines():
        series, _, number = line.rpartition(" ")
        shown, _, given = series.partition("{")
        if shown == name and wanted <= set(given.rstrip("}").split(",")):
            total += float(number)
    return total


def log(worker: WorkerProcess) -> str:
    """What a worker has logged."""
    return worker.log.read_text(errors="replace")


def until_logged(worker: WorkerProcess, words: str, *, within_s: float = 30) -> None:
    """Wait until a worker's log has these words."""
    eventually(lambda: words in log(worker), within_s=within_s, what=f"{worker.log}: {words!r}")
