"""The bot's process: settings, logs, the bot until it is told to end, and an exit code that says how it went."""

import asyncio
import signal
import sys
from typing import BinaryIO

import discord
import structlog

from bot.app import build
from bot.discord_errors import CALL_ERRORS, CLOSED
from trainer.config.settings import Settings, load_settings
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.jobs.services import check_folder
from trainer.system.files import check_writable, told_error, try_lock
from trainer.system.logs import setup_logging

_CANCEL_SECONDS = 2.0
_WRONG_TOKEN, _REFUSED_INTENTS = 4004, 4014

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def main() -> int:
    """Run the bot: 0 when it was told to end, 2 for a mistake in the settings, 1 where something else is wrong."""
    try:
        settings = load_settings()
        token = _token(settings)
        setup_logging(settings, "model-trainer")
        check_writable(settings.app.artifacts_root)
        check_folder(settings)
        with _only_bot(settings):
            return asyncio.run(_run(settings, token))
    except (AppError, OSError) as error:
        told = error if isinstance(error, AppError) else told_error(error, load_settings().app.folders())
        sys.stderr.write(f"{told.message}\n")
        return 2 if told.code.error_class is ErrorClass.USER_INPUT else 1


def _token(settings: Settings) -> str:
    """The token, where somebody may use the bot too; raises CONFIG_INVALID."""
    discord_settings = settings.discord
    if discord_settings.token is None:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "DISCORD__TOKEN is not set: it is the bot's token from Discord's developer portal.",
        )
    people: tuple[int, ...] = (
        discord_settings.admin_ids + discord_settings.allowed_user_ids + discord_settings.allowed_guild_ids
    )
    if discord_settings.owner_id is None and not people:
        raise AppError(
            ErrorCode.CONFIG_INVALID, "Nobody may use the bot: set DISCORD__OWNER_ID to your own Discord user id."
        )
    return discord_settings.token.get_secret_value()


def _only_bot(settings: Settings) -> BinaryIO:
    """A lock that ends with this process; raises SERVICE_UNAVAILABLE where another bot has it.

    Two that share a folder would tell everybody twice.
    """
    lock = try_lock(settings.app.artifacts_root / "bot.lock")
    if lock is None:
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            "Another bot is running on the same `APP__ARTIFACTS_ROOT`: end it first, or give this one another folder.",
        )
    return lock


async def _run(settings: Settings, token: str) -> int:
    """Run until SIGTERM or SIGINT and return 0; ends whatever was started, however it ends."""
    loop, told_to_end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    async with build(settings) as bot:
        running, waiting = asyncio.create_task(bot.start(token)), asyncio.create_task(told_to_end.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        running.cancel()
        # a connection that was just made may lose the cancellation; leaving the block closes it all the same
        await asyncio.wait((running,), timeout=_CANCEL_SECONDS)
        if running.done() and not running.cancelled() and (error := running.exception()):
            raise _told(error)
        log.info("bot is ending")
    return 0


def _told(error: BaseException) -> BaseException:
    """What ended the bot, as one sentence where it is a foreseen failure."""
    code: int = getattr(error, "code", _REFUSED_INTENTS)
    if isinstance(error, discord.LoginFailure) or (isinstance(error, CLOSED) and code == _WRONG_TOKEN):
        return AppError(ErrorCode.CONFIG_INVALID, "Discord does not know the bot's DISCORD__TOKEN.")
    if isinstance(error, CLOSED):
        return AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            f"Discord has closed the bot's connection for good (code {code}): update the bot, and"
            " look at its intents in Discord's developer portal.",
        )
    if isinstance(error, CALL_ERRORS):
        log.error("Discord cannot be used", error=str(error))
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord cannot be used: {error}.")
    return error
