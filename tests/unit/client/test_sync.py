"""The client without `await`: it blocks who calls, in notebooks too, and leaves nothing behind."""

import asyncio
import concurrent.futures
import inspect
import os
import subprocess
import sys
import threading
import warnings

import pytest

from stillwell.client import Client, Closed, Pusher, Receipt, Retries, SyncClient, SyncPusher, SyncReceipt
from stillwell.client.service import Service
from stillwell.errors import StillwellError
from tests.fake_service import FakeTransport, feature, reply


def made() -> tuple[SyncClient, FakeTransport]:
    """A client whose every answer is 7."""
    transport = FakeTransport(reply({"features": {"V:f": feature("Int64", 7)}}))
    return SyncClient.around(Client.of(Service(transport, "http://fake", Retries()))), transport


def read(client: SyncClient) -> object:
    return client.features(["V:f"], {"k": "a"}).one()["V:f"].value


def test_it_answers_without_a_loop_and_ends_its_thread() -> None:
    before = threading.active_count()
    client, transport = made()
    with client:
        assert read(client) == 7
        assert threading.active_count() == before + 1
    assert transport.closed
    assert threading.active_count() == before
    client.close()
    with pytest.raises(Closed, match="the client is closed: make another one"):
        read(client)


def test_who_waits_while_another_thread_closes_it_is_told_so() -> None:
    client, transport = made()
    asked = threading.Event()

    async def never(*arguments: object, **more: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    transport.send = never  # type: ignore[method-assign,assignment]
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read, client)
        assert asked.wait(10)
        client.close()
        with pytest.raises(Closed, match="closed before there was an answer"):
            reading.result(10)


async def test_it_answers_within_a_running_loop() -> None:
    """As in a notebook, whose cells run inside of one."""
    assert asyncio.get_running_loop().is_running()
    client, _ = made()
    with client:
        assert read(client) == 7


def test_a_forked_process_is_told_to_make_its_own() -> None:
    client, _ = made()
    with client:
        reads, writes = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads, which is what is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                read(client)
            except StillwellError as error:
                os.write(writes, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writes)
        with os.fdopen(reads) as said:
            assert "make one in each process" in said.read()
        assert read(client) == 7


def test_one_that_nobody_closed_is_closed_when_the_process_ends() -> None:
    """Or its HTTP library would complain about it behind the last line of a script."""
    program = (
        "from tests.unit.client.test_sync import made, read\n"
        "client, transport = made()\n"
        "close = transport.close\n"
        "async def closing():\n"
        "    print('closed', flush=True)\n"
        "    await close()\n"
        "transport.close = closing\n"
        "print(read(client))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("7\nclosed\n", "")


def surface(kind: type) -> dict[str, list[inspect.Parameter] | None]:
    """What a class promises: its public names, with the parameters of those that are called."""
    names = [name for name in vars(kind) if not name.startswith("_")] + ["__init__"]
    found = {name: getattr(kind, name) for name in names}
    return {
        name: [*inspect.signature(each).parameters.values()] if callable(each) else None for name, each in found.items()
    }


def test_it_has_all_that_the_other_one_has_and_takes_the_same() -> None:
    ours, theirs = surface(SyncClient), surface(Client)
    assert ours.pop("around")
    assert ours == theirs
    assert {"features", "predictions", "push", "pusher", "close", "direct"} <= theirs.keys()
    made = ("__init__",)  # by `pusher`, and by `push`
    for sync, other in ((SyncPusher, Pusher), (SyncReceipt, Receipt)):
        ours, theirs = surface(sync), surface(other)
        ours.pop("result", None)  # what `await` gives of the other
        for name in made:
            del ours[name], theirs[name]
        assert ours == theirs
    for name in ("enter", "exit"):
        assert all(hasattr(kind, f"__{name}__") for kind in (SyncClient, SyncPusher))
        assert all(hasattr(kind, f"__a{name}__") for kind in (Client, Pusher))


def test_a_pusher_names_what_it_has_pushed() -> None:
    transport = FakeTransport(reply({"token": "V@1:0-7", "statuses": ["applied"]}))
    with SyncClient.around(Client.of(Service(transport, "http://fake", Retries()))) as client:
        with client.pusher("V") as pusher:
            assert pusher.token is None
            pusher.push({"k": "a"}).result()
        assert str(pusher.token) == "V@1:0-7"
