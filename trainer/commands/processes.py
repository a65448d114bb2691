"""`mt up`, `mt demo`, `mt worker`: processes that run until they are stopped."""

import argparse
import asyncio
import os
import sys
from functools import partial

from trainer.commands.arguments import Commands, Options, flag
from trainer.commands.connection import settings_for, without_worker
from trainer.commands.terminal import Terminal
from trainer.jobs.services import Services
from trainer.system.files import check_writable


class _WorkerOptions(Options):
    embedded = flag("--embedded", argparse.SUPPRESS)


def add_to(commands: Commands) -> None:
    demo = partial(_replace_process, "local_discord.demo")
    about = "show the complete program on this machine, checked step by step"
    commands.add("demo", "Start", Options, demo, about, "mt demo", with_json=False)
    bot = partial(_replace_process, "bot")
    commands.add("up", "Start", Options, bot, "start the Discord bot and its services", "mt up", with_json=False)
    about = "start a worker, which trains queued runs and answers requests"
    commands.add("worker", "Start", _WorkerOptions, _work, about, "mt worker", with_json=False)


def _replace_process(module: str, options: Options, terminal: Terminal) -> int:
    os.execv(sys.executable, [sys.executable, "-m", module])


def _work(options: _WorkerOptions, terminal: Terminal) -> int:
    from trainer.worker.process import run_worker

    settings = settings_for("model-trainer-worker", level="INFO")
    for folder in (settings.app.artifacts_root, settings.app.data_root / "corpus_cache"):
        check_writable(folder)

    async def work() -> int:
        services = Services(without_worker(settings))
        url = await services.start()
        try:
            return await run_worker(settings, url, embedded=options.embedded)
        finally:
            await services.stop()

    return asyncio.run(work())
