"""An expired input text is nowhere on the disk, not even in the server's own file."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.inference import RUN, finished_run
from tests.support.redis_servers import served, told_server
from tests.support.waiting import captured_logs, until
from trainer.config.settings import QueueSettings
from trainer.contracts.base import changed
from trainer.contracts.chats import ChatRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRequest
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store.store import connect
from trainer.worker.presence import Presence, own_info
from trainer.worker.process import drop_expired_for_ever

SCORED, WITHDRAWN, PROMPT, SAID = "scored secretly", "withdrawn secretly", "prompted secretly", "said secretly"
TEXTS = (SCORED, WITHDRAWN, PROMPT, SAID)


def kept_on_disk(folder: Path) -> list[str]:
    """Return the texts that some file on the disk contains."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        try:
            content = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:  # the server has just replaced it
            continue
        found |= {text for text in TEXTS if text.encode() in content}
    return sorted(found)


async def test_texts__are_on_the_disk_until_they_expire_and_no_longer(tmp_path: Path) -> None:
    finished_run(tmp_path)
    settings = settings_in(tmp_path)
    short: dict[str, object] = {"embedded_workers": 1, "result_ttl_seconds": 3, "chat_ttl_seconds": 3}
    # the worker says how long an answer is kept
    services = Services(changed(settings, queue=QueueSettings.model_validate(short)))
    queue = await JobQueue.connect(settings, await services.start())
    await queue.inference.ask(RUN, ScoreRequest(text=SCORED))
    assert SCORED in kept_on_disk(tmp_path)
    await queue.inference.ask(RUN, ScoreRequest(text=WITHDRAWN), is_kept=False)
    await queue.inference.ask(RUN, GenerateRequest(prompt_text=PROMPT, max_new_tokens=2))
    await queue.inference.ask(RUN, ChatRequest(message=SAID, max_new_tokens=2))
    await until(lambda: kept_on_disk(tmp_path) == [])
    await queue.close()
    await services.stop()


async def test_file__is_rewritten_once_for_expired_texts_never_twice_at_once(tmp_path: Path) -> None:
    async with served(tmp_path, "--appendonly", "yes") as server:
        store = await connect(server.url)
        await store.put("a", SCORED, ttl_seconds=60)
        assert kept_on_disk(tmp_path) == [SCORED]
        before = await store.drop_expired(None)
        await store.delete("a")
        while (seen := await store.drop_expired(before)) is None or before is None or seen == before:
            await asyncio.sleep(0.01)
        await until(lambda: kept_on_disk(tmp_path) == [])
        await told_server(store, "CONFIG", "SET", "rdb-key-save-delay", "60000000")
        await store.put("b", WITHDRAWN, ttl_seconds=60)
        await told_server(store, "BGREWRITEAOF")
        assert await store.drop_expired(seen) is seen
        await store.close()


async def test_server_without_an_append_only_file__is_asked_for_none(tmp_path: Path) -> None:
    async with served(tmp_path, "--appendonly", "no") as server:
        store = await connect(server.url)
        assert await store.drop_expired(None) is not None
        await store.put("a", SCORED, ttl_seconds=60)
        await store.close()
        assert kept_on_disk(tmp_path) == []


async def test_redis_down_or_refusing_a_rewrite__is_logged_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, "--appendonly", "yes") as server:
        store = await connect(server.url, retries=0)
        await told_server(store, "ACL", "SETUSER", "default", "-bgrewriteaof")
        refused = await logged_by(drop_expired_for_ever(store))
        await server.kill()
        monkeypatch.setattr("trainer.store.refusals._last_logged", {})
        away = await logged_by(drop_expired_for_ever(store))
        settings = settings_in(tmp_path)
        presence = Presence(settings, store, await own_info(settings))
        monkeypatch.setattr("trainer.store.refusals._last_logged", {})
        unseen = await logged_by(presence.show(lambda: False, lambda: None))
        await store.close()
    assert (refused, away, unseen) == ("aof_rewrite_forbidden", "redis_unavailable", "redis_unavailable")


async def logged_by(work: Coroutine[None, None, None]) -> str:
    with captured_logs() as logs:
        working = asyncio.create_task(work)
        await until(lambda: len(logs) > 0)
        working.cancel()
    return str(logs[0]["event"])
