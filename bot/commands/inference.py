"""Shared parts of the commands that send inference requests to completed runs."""

import asyncio
import time

from bot.client import Bot
from bot.commands.responses import CommandContext
from bot.commands.run_options import Run
from bot.language import _
from trainer.contracts.errors import AppError, ErrorCode

DEFAULT_NEW_TOKENS = 64
RUN_HELP = "Id of the run; default: your newest completed run, or the newest of all"
_WORKER_START_SECONDS, _POLL_SECONDS = 30.0, 0.2


async def require_worker(context: CommandContext, run: Run) -> None:
    """Raise an error for an unfinished run, and SERVICE_UNAVAILABLE without a worker; waits for an embedded one."""
    await asyncio.to_thread(run.directory.completed_manifest)
    is_embedded = context.bot.settings.queue.embedded_workers > 0
    deadline = time.monotonic() + (_WORKER_START_SECONDS if is_embedded else 0.0)
    while not await context.bot.queue.has_worker():
        if time.monotonic() >= deadline:
            raise AppError(
                ErrorCode.SERVICE_UNAVAILABLE, _("No worker is running. Ask the operator of this bot to start one.")
            )
        await asyncio.sleep(_POLL_SECONDS)


def default_length(bot: Bot) -> int:
    """Return the number of new tokens that a request has without a given one."""
    return min(DEFAULT_NEW_TOKENS, bot.settings.limits.generate_max_new_tokens)
