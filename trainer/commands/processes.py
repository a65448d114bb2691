"""`mt up`, `mt demo`, `mt worker`: the processes that stay."""

import argparse
import asyncio
import os
import sys
from functools import partial

from trainer.commands.arguments import Arguments, Commands
from trainer.commands.connection import settings_for, without_worker
from trainer.commands.terminal import Terminal
from trainer.jobs.services import Services
from trainer.system.files import check_writable


def add_to(commands: Commands) -> None:
    commands.add("up", partial(_become, "bot"), "start the bot with its services", with_json=False)
    demo = partial(_become, "local_discord.demo")
    commands.add("demo", demo, "show the whole program on this machine, checked step by step", with_json=False)
    worker = commands.add("worker", _worker, "start a worker", with_json=False)
    worker.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)


def _become(module: str, arguments: Arguments, terminal: Terminal) -> int:
    os.execv(sys.executable, [sys.executable, "-m", module])


def _worker(arguments: Arguments, terminal: Terminal) -> int:
    from trainer.worker.process import run_worker

    settings = settings_for("model-trainer-worker", level="INFO")
    for folder in (settings.app.artifacts_root, settings.app.data_root / "corpus_cache"):
        check_writable(folder)

    async def work() -> int:
        services = Services(without_worker(settings))
        url = await services.start()
        try:
            return await run_worker(settings, url, embedded=arguments.embedded)
        finally:
            await services.stop()

    return asyncio.run(work())
