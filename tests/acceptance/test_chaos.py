"""A short chaos, as `scripts/chaos` makes it. What many kills found, and what five find: docs/explanation/chaos.md."""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from stillwell.local import LocalStack, free_port
from tests.acceptance.chaos import plan
from tests.acceptance.chaos.arena import Proxies
from tests.services import Proxy, Toxiproxy, tool

ROOT = Path(__file__).parents[2]
KILLS = 5


def test_five_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Nor is a link made before its time; no worker ends by itself; Redis holds what the files say, byte by byte."""
    tools = [Path(tool(name)) for name in ("toxiproxy-server", "fake-gcs-server")]
    summary, logs = tmp_path / "summary.json", tmp_path / "logs"
    seed = request.config.option.seed
    done = subprocess.run(
        [ROOT / "scripts" / "chaos", f"--kills={KILLS}", f"--seed={seed}", f"--json={summary}", f"--logs={logs}"],
        cwd=tmp_path,
        env={**os.environ, "STILLWELL_VENV": sys.prefix, "STILLWELL_TOOLS": str(tools[0].parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(summary.read_text())
    assert found["wrong"] == []
    assert found["rows"] + found["rejects"] > 1_000 * KILLS, "the load was too small to prove anything"
    assert found["links_witnessed"] == found["links"] >= 6 * KILLS
    assert found["digest"] == found["rebuilt_digest"]


def test_a_cut_in_pieces_ends_when_it_should() -> None:
    """With as long between two pieces as they are."""
    cut = plan.Cut("redis", "down", at=1.0, seconds=3.5, amount=0, pieces=4)
    assert list(cut.outages()) == [(1.0, 1.5), (2.0, 2.5), (3.0, 3.5), (4.0, 4.5)]


def test_a_proxy_that_does_not_answer_any_more_is_replaced(stack: LocalStack, tmp_path: Path) -> None:
    """At the same address, with the cut that was wanted, and without those that were to end."""
    toxiproxy = Toxiproxy(tmp_path)
    toxiproxy.start()
    refused: list[Proxy] = []

    def once(proxy: Proxy) -> None:
        if not refused:
            refused.append(proxy)
            raise TimeoutError
        proxy.down()

    try:
        proxies = Proxies(toxiproxy, {"redis": (f"127.0.0.1:{stack.redis.port}", free_port())})
        address = proxies["redis"].address
        with redis.Redis.from_url(f"redis://{address}", retry=None) as client:
            proxies.cut("redis", once)
            with pytest.raises(redis.ConnectionError):
                client.ping()
            refused.clear()
            proxies.mend("redis", once)
            assert client.ping()
        assert (proxies.restarts, proxies["redis"].address) == (2, address)
    finally:
        toxiproxy.stop()


def test_a_seed_tells_every_blow_and_cut() -> None:
    """So that a run can be repeated, with more kills after the same ones too."""

    def planned(kills: int, seed: int) -> list[plan.Round]:
        return list(plan.rounds(kills, random.Random(seed)))

    assert planned(30, 1) == planned(30, 1)
    assert planned(30, 1)[:10] == planned(10, 1) != planned(10, 2)


def test_every_service_is_cut_in_turn_and_in_every_way_and_workers_are_killed_and_frozen() -> None:
    """Over a hundred kills; no plan may forget a kind."""
    rounds = list(plan.rounds(100, random.Random(1)))
    services = ("kafka", "redis", "store")
    assert [round.cut.service for round in rounds] == list(itertools.islice(itertools.cycle(services), 100))
    assert {(round.cut.service, round.cut.way) for round in rounds} == set(
        itertools.product(services, ("down", "silent", "deaf", "slow", "torn", "half", "reset"))
    )
    assert {(round.blow.kind, round.blow.worker) for round in rounds} == set(
        itertools.product(("kill", "freeze"), (0, 1))
    )
    assert {round.blow.kind for round in rounds[:KILLS]} == {"kill", "freeze"}
    assert all(round.blow.seconds > plan.SESSION_S for round in rounds if round.blow.kind == "freeze")
