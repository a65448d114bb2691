"""Redis commands that are cancelled, cut off at any moment, or compete for one key."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.support import add_corpus, some_text, tiny_request
from tests.support.redis_servers import embedded, served, told
from tests.support.waiting import captured_logs, until
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store, connect
from trainer.worker.process import listen


async def test_command_that_is_cancelled__ends_wherever_it_stands(tmp_path: Path) -> None:
    async with embedded(tmp_path / "unix") as (_, _, over_a_file), served(tmp_path) as server:
        over_a_port = await connect(server.url)

        async def read_for_ever(store: Store) -> None:
            while True:
                await store.get("x")

        for store in (over_a_file, over_a_port):
            for steps in range(100):
                reading = asyncio.create_task(read_for_ever(store))
                for _ in range(steps):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading], timeout=10)
                assert reading.cancelled(), f"not after {steps} steps of the loop"
        await over_a_port.close()


async def test_events_over_a_connection_that_breaks__are_each_published_once(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, queue, store):
        run = queue.runs.get((await queue.train(tiny_request(), user_id=None)).run_id)
        await queue.states.cancel(run.run_id)
        events = run.reader().read_new()
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(settings.app.data_root / "services" / "valkey.sock"))
            for steps in range(0, 600, 4):
                await store.redis.delete(keys.run_events(run.run_id))
                telling = asyncio.create_task(store.publish(run.run_id, events, "{}", is_cancelled=False))
                for _ in range(steps):
                    await asyncio.sleep(0)
                admin.sendall(b"CLIENT KILL TYPE normal SKIPME yes\r\n")
                admin.recv(100)
                with contextlib.suppress(*STORE_ERRORS):
                    await telling
                await store.publish(run.run_id, events, "{}", is_cancelled=False)
                assert await told(store, run.run_id) == [event.seq for event in events]


async def test_wake_up__is_received_again_after_a_restart_of_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.store.refusals._last_logged", {})
    async with served(tmp_path) as server:
        store = await connect(server.url, retries=0)
        with captured_logs() as logs:
            listening = asyncio.create_task(listen(store, []))
            await server.kill()
            await until(lambda: any(line["event"] == "redis_unavailable" for line in logs))
            await server.start()
            position = await store.wait_for_job("0-0", wait_seconds=0.1)
        listening.cancel()
        await asyncio.wait([listening])
        await store.close()
    assert position == "0-0" and listening.cancelled()
