"""What `--json` writes. Times are in seconds."""

import dataclasses
from collections.abc import Mapping

from scripts.flights.feed import Feed
from scripts.flights.observe import Look
from scripts.flights.predicted import Foretold, Seen
from scripts.flights.proof import Proof
from scripts.flights.replay import Plan
from scripts.flights.table import quantile


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """What the kill did: after how many records, for how many seconds, and how far the rows fell behind."""

    after: int
    seconds: float
    lag: int


def summary(plan: Plan, feed: Feed, outage: Outage, last: Look, seen: Seen, proof: Proof) -> Mapping[str, object]:
    """All that was done and found. last: the look behind the last record; seen: of predictions, before it."""
    servable = [view.servable for view in last.views.values()]
    return {
        "agrees": not proof.wrong,
        "wrong": proof.wrong,
        "events": plan.events,
        "late": plan.late,
        "out_of_order": plan.out_of_order,
        "twice": plan.twice,
        "cut_short": plan.cut_short,
        "sent": feed.sent,
        "feed_s": round(feed.took, 1),
        "events_per_s": round(feed.rate),
        "killed_after": outage.after,
        "outage_s": round(outage.seconds, 1),
        "outage_lag": outage.lag,
        "servable_p50_s": quantile(0.5, servable),
        "servable_p99_s": quantile(0.99, servable),
        "verify_good": proof.verified.good,
        "records_at_rest": proof.verified.flights,
        "rejected": sum(topic.rejected for topic in last.topics.values()),
        "rows_in_parquet": proof.verified.rows,
        "files": proof.verified.files,
        "unlinked_files": proof.verified.unlinked,
        "entities_in_redis": {name: view.entities for name, view in last.views.items()},
        "compared": [dataclasses.asdict(agreement) for agreement in proof.agreements],
        "pushed": dataclasses.asdict(proof.pushed),
        "predicted": None if proof.foretold is None else _predicted(last, seen, proof.foretold),
    }


def _predicted(last: Look, seen: Seen, foretold: Foretold) -> Mapping[str, object]:
    """What the workers have counted, what a reader saw while flights came in, and what was found in the end."""
    model = last.model
    return {
        "hints": model.hints,
        **model.became,
        "calls": model.calls,
        "failed": model.failed,
        "in_parquet": model.rows,
        "refreshed_p50_s": quantile(0.5, [model.refreshed]),
        "refreshed_p99_s": quantile(0.99, [model.refreshed]),
        "while_streaming": dataclasses.asdict(seen),
        "compared": dataclasses.asdict(foretold),
    }
