"""The bot's process: settings, logs, signals and the exit code."""

import asyncio
import signal
import sys
from typing import BinaryIO

import discord
import structlog

from bot.access import AccessList
from bot.app import build
from bot.installation import Installation
from bot.permissions import Permissions, no_member
from bot.rest.errors import CALL_ERRORS, CLOSED
from trainer.config.settings import Settings, load_settings
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.jobs.services import check_folder
from trainer.system.files import check_writable, to_app_error, try_lock
from trainer.system.logs import setup_logging

_CANCEL_SECONDS = 2.0
_WRONG_TOKEN, _REFUSED_INTENTS = 4004, 4014  # Discord's codes

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def main(*, with_discord: bool = True) -> int:
    """Run the bot, or the HTTP API alone, until SIGTERM or SIGINT.

    Return 0, 2 for a mistake in the settings, 1 for another failure.
    """
    try:
        settings = load_settings()
        token = _token(settings) if with_discord else None
        setup_logging(settings, "model-trainer")
        check_writable(settings.app.artifacts_root)
        check_folder(settings)
        with _only_bot(settings):
            return asyncio.run(_run_alone(settings) if token is None else _run(settings, token))
    except (AppError, OSError) as error:
        shown = error if isinstance(error, AppError) else to_app_error(error, load_settings().app.folders())
        sys.stderr.write(f"{shown.message}\n")
        return 2 if shown.code.error_class is ErrorClass.USER_INPUT else 1


def _token(settings: Settings) -> str:
    """Return the bot's token; raises CONFIG_INVALID without a token or without any permitted user."""
    discord_settings = settings.discord
    if discord_settings.token is None:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "DISCORD__TOKEN is not set. Copy the bot's token from Discord's developer portal to `.env`, or start"
            " without Discord: `mt up --no-discord`.",
        )
    people: tuple[int, ...] = (
        discord_settings.admin_ids + discord_settings.allowed_user_ids + discord_settings.allowed_guild_ids
    )
    if discord_settings.owner_id is None and not people:
        raise AppError(
            ErrorCode.CONFIG_INVALID, "Nobody may use the bot. Set DISCORD__OWNER_ID to your own Discord user id."
        )
    return discord_settings.token.get_secret_value()


def _only_bot(settings: Settings) -> BinaryIO:
    """Lock the artifacts folder until this process ends; raises SERVICE_UNAVAILABLE while another bot holds the lock.

    Two bots on one folder would send every message twice.
    """
    lock = try_lock(settings.app.artifacts_root / "bot.lock")
    if lock is None:
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            "Another bot uses the same `APP__ARTIFACTS_ROOT`. Stop it first, or set another folder.",
        )
    return lock


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _run_alone(settings: Settings) -> int:
    """Run the services and the HTTP API without Discord."""
    if settings.http.port is None:
        raise AppError(ErrorCode.CONFIG_INVALID, "HTTP__PORT is empty: without Discord, there is nothing to run.")
    stop = _stop_signal()
    access = AccessList(settings.app.artifacts_root / "access.json")
    installation = Installation(settings, Permissions(settings.discord, no_member, access))
    try:
        await installation.start()
        waking = asyncio.create_task(installation.wake_webhooks())
        await stop.wait()
        waking.cancel()
    finally:
        await installation.close()
        await installation.stop_services()
    log.info("bot_stopped")
    return 0


async def _run(settings: Settings, token: str) -> int:
    """Run until SIGTERM or SIGINT and return 0; stops everything that was started."""
    stop = _stop_signal()
    async with build(settings) as bot:
        running, waiting = asyncio.create_task(bot.start(token)), asyncio.create_task(stop.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        running.cancel()
        # a new connection may lose the cancellation; leaving the block closes it
        await asyncio.wait((running,), timeout=_CANCEL_SECONDS)
        if running.done() and not running.cancelled() and (error := running.exception()):
            raise _as_app_error(error)
        log.info("bot_stopped")
    return 0


def _as_app_error(error: BaseException) -> BaseException:
    """Return a foreseen failure as an AppError with one sentence, any other error as it is."""
    code: int = getattr(error, "code", _REFUSED_INTENTS)
    if isinstance(error, discord.LoginFailure) or (isinstance(error, CLOSED) and code == _WRONG_TOKEN):
        return AppError(
            ErrorCode.CONFIG_INVALID,
            "Discord refuses DISCORD__TOKEN. Copy the token again from Discord's developer portal.",
        )
    if isinstance(error, CLOSED):
        return AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            f"Discord refuses the bot's connection (code {code}). Update the bot, and check its intents in Discord's"
            " developer portal.",
        )
    if isinstance(error, CALL_ERRORS):
        log.error("discord_unavailable", error=str(error))
        return AppError(ErrorCode.SERVICE_UNAVAILABLE, f"Discord is unavailable: {error}.")
    return error
