"""Processes with secrets in their settings, and a search for these secrets."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import environment_in, settings_in
from tests.support.worker_runs import with_redis
from trainer.contracts.base import changed
from trainer.queue.queue import JobQueue
from trainer.services.embedded import answering_server, find_server

TOKEN, PASSWORD, CORPUS, PROMPT, TEXT = "tokenqxwz", "passwordqxwz", "corpusqxwz", "promptqxwz", "textqxwz"


def has_secret(line: str) -> bool:
    return any(secret in line.lower() for secret in (TOKEN, PASSWORD, CORPUS, PROMPT, TEXT))


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
    settings = changed(settings_in(folder), **with_redis(url))
    while await answering_server(settings) is None:
        await asyncio.sleep(0.01)
    environment = environment_in(folder, APP__ENV="prod", LOGGING__LEVEL="DEBUG", REDIS__URL=url, DISCORD__TOKEN=TOKEN)
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
