"""Processes with secrets in their settings, and a search for these secrets."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import environment_in, settings_in
from trainer.config.settings import RedisSettings, Settings
from trainer.queue.queue import JobQueue
from trainer.services.embedded import answering_server, find_server

TOKEN, PASSWORD, CORPUS, PROMPT, TEXT = "tokenqxwz", "passwordqxwz", "corpusqxwz", "promptqxwz", "textqxwz"


SECRETS = (TOKEN, PASSWORD, CORPUS, PROMPT, TEXT)


def has_secret(line: str) -> bool:
    return any(secret in line.lower() for secret in SECRETS)


def address(folder: Path) -> str:
    return f"unix://:{PASSWORD}@{folder / 'own.sock'}"


@asynccontextmanager
async def worker(folder: Path, out: int, err: int) -> AsyncIterator[JobQueue]:
    """A worker as it runs in production, with secrets in its environment; its own Redis has a password."""
    url = address(folder)
    server = await asyncio.create_subprocess_exec(
        *(find_server(), "--port", "0", "--unixsocket", str(folder / "own.sock"), "--requirepass", PASSWORD),
        *("--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
    )
    settings = with_redis(settings_in(folder), url)
    while await answering_server(settings) is None:
        await asyncio.sleep(0.01)
    secrets = {"REDIS__URL": url, "DISCORD__TOKEN": TOKEN}
    environment = environment_in(folder, APP__ENV="prod", LOGGING__LEVEL="DEBUG", **secrets)
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer", "worker"), cwd=folder, env=environment, stdout=out, stderr=err
    )
    queue = await JobQueue.connect(settings, url)
    try:
        yield queue
    finally:
        await queue.close()
        process.terminate()
        await process.wait()
        server.terminate()
        await server.wait()


def with_redis(settings: Settings, url: str) -> Settings:
    fields = {"url": url}
    given: dict[str, object] = {"redis": RedisSettings.model_validate(fields)}
    return settings.model_copy(update=given)
