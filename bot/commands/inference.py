"""Shared parts of the commands that send inference requests to completed runs."""

import asyncio

from bot.commands.responses import CommandContext
from bot.commands.run_options import Run
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.people.language import _

DEFAULT_NEW_TOKENS = 64
RUN_HELP = "Id of the run; default: your newest completed run, or the newest of all"


async def require_worker(context: CommandContext, run: Run) -> None:
    """Raise an error for an unfinished run, and SERVICE_UNAVAILABLE without a worker."""
    await asyncio.to_thread(run.directory.completed_manifest)
    if not await context.bot.queue.has_worker():
        message = _("No worker is running. Ask the operator of this bot to start one.")
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)


def default_length(bot: Bot) -> int:
    """Return the number of new tokens that a request has without a given one."""
    return min(DEFAULT_NEW_TOKENS, bot.settings.limits.generate_max_new_tokens)
