"""The command line of the chaos; `scripts/chaos` runs it."""

import dataclasses
import random
from pathlib import Path

import click

from tests.acceptance import runs
from tests.acceptance.chaos import plan, rounds, verdict
from tests.acceptance.chaos.arena import PARTITIONS, TOPIC, arena
from tests.acceptance.chaos.feed import Feed
from tests.acceptance.chaos.witness import Witness

PACE = 1_000


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="How many blows to strike.")
@click.option("--pace", type=click.IntRange(min=20), default=PACE, show_default=True, help="Events a second.")
@runs.options
def chaos(kills: int, seed: int | None, pace: int, summary: Path | None, logs: Path | None) -> None:
    """Kill and freeze workers, and cut off their Kafka, Redis and object store, at random under load; then prove that
    nothing was lost or doubled.

    Two workers share six partitions. Each blow kills (SIGKILL) or freezes (SIGSTOP past the session timeout) one of
    them, and near it one of the three services is out of reach for a while, in one of seven ways. A witness looks at
    every link as it comes: its rows and dead letters must be there. In the end the workers finish, `stillwell verify`
    and an oracle over all events judge what they have left, value by value, and another Redis that is filled from the
    files alone must hold the same bytes.

    Exit codes: 0 all is right, 1 something is wrong, 2 called wrongly.
    """
    with runs.begun("chaos", seed, logs) as run, arena(run.folder) as parts:
        run.say("Kafka, Redis, object store and their proxies run")
        with Witness(parts.direct, TOPIC, PARTITIONS) as witness:
            with Feed(parts.bootstrap, TOPIC, PARTITIONS, pace, random.Random(f"{run.seed} feed")) as feed:
                parts.start_workers()
                wrong = rounds.begin(parts, witness, run.say)
                blows = plan.rounds(kills, random.Random(f"{run.seed} plan"))
                wrong += rounds.play(parts, witness, blows, run.say)
            wrong += feed.wrong
            run.say(f"the feed has ended: {dict(feed.kinds)}")
            found = verdict.judge(parts, witness)
        wrong += found.wrong
    result = {
        "good": not wrong,
        "seed": run.seed,
        "kills": kills,
        "seconds": round(run.seconds, 1),
        "workers_started": parts.started,
        "proxies_restarted": parts.proxies.restarts,
        "events": dict(feed.kinds),
        "slowest_transaction_s": round(feed.slowest_transaction_s, 1),
        **dataclasses.asdict(found),
        "wrong": wrong,
    }
    for name, value in result.items():
        run.say(f"{name}: {value}")
    runs.end(result, summary)


if __name__ == "__main__":
    chaos()
