"""The command line of the chaos; `scripts/chaos` runs it."""

import dataclasses
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.acceptance.chaos import plan, rounds, verdict
from tests.acceptance.chaos.arena import PARTITIONS, TOPIC, arena
from tests.acceptance.chaos.feed import Feed
from tests.acceptance.chaos.witness import Witness

PACE = 1_000


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="How many blows to strike.")
@click.option("--seed", type=int, help="Repeat the blows and cuts of an earlier run, which printed its seed.")
@click.option("--pace", type=click.IntRange(min=20), default=PACE, show_default=True, help="Events a second.")
@click.option(
    "--json", "summary", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write a summary there."
)
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Keep the workers' logs in this folder.")
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:7.1f} s  {text}")

    say(f"seed {seed} (repeat with --seed {seed})")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = (logs or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with arena(folder) as parts:
            say("Kafka, Redis, object store and their proxies run")
            with Witness(parts.direct, TOPIC, PARTITIONS) as witness:
                with Feed(parts.bootstrap, TOPIC, PARTITIONS, pace, random.Random(f"{seed} feed")) as feed:
                    parts.start_workers()
                    wrong = rounds.begin(parts, witness, say)
                    wrong += rounds.play(parts, witness, plan.rounds(kills, random.Random(f"{seed} plan")), say)
                wrong += feed.wrong
                say(f"the feed has ended: {dict(feed.kinds)}")
                found = verdict.judge(parts, witness)
            wrong += found.wrong
    result = {
        "good": not wrong,
        "seed": seed,
        "kills": kills,
        "seconds": round(time.monotonic() - started, 1),
        "workers_started": parts.started,
        "proxies_restarted": parts.proxies.restarts,
        "events": dict(feed.kinds),
        "slowest_transaction_s": round(feed.slowest_transaction_s, 1),
        **dataclasses.asdict(found),
        "wrong": wrong,
    }
    for name, value in result.items():
        say(f"{name}: {value}")
    if summary:
        summary.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    chaos()
