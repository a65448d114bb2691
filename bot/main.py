"""The bot's process: settings, logs, signals and the exit code."""

import asyncio
import os
import sys
from pathlib import Path
from socket import gethostname
from typing import BinaryIO

import structlog

from trainer.config.settings import Settings, load_settings
from trainer.config.validation import safe_name
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.http.backend import Backend
from trainer.services.embedded import check_folder
from trainer.system.files import BrokenFile, check_writable, to_app_error, try_lock
from trainer.system.hardware import raise_descriptor_limit
from trainer.system.logs import say, setup_logging
from trainer.system.signals import stop_signals

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MISNAMED = (".env.txt", "env.txt", "env")
"""Names that editors and people give to the file of the settings."""


def main(*, with_discord: bool = True) -> int:
    """Run the bot, or the HTTP API alone, until a signal to stop.

    Return 0, 2 for a mistake in the settings, 1 for another failure.
    """
    try:
        settings = load_settings()
        token = _token(settings) if with_discord else None
        setup_logging(settings, "model-trainer")
        raise_descriptor_limit()
        check_writable(settings.app.artifacts_root)
        check_folder(settings)
        with _only_bot(settings):
            return asyncio.run(_run_alone(settings) if token is None else _run_bot(settings, token))
    except (AppError, OSError, BrokenFile) as error:
        shown = error if isinstance(error, AppError) else to_app_error(error, load_settings().app.folders())
        sys.stderr.write(f"{shown.message}\n")
        return 2 if shown.code.error_class is ErrorClass.USER_INPUT else 1


def _token(settings: Settings) -> str:
    """Return the bot's token; raises CONFIG_INVALID without a token or without any permitted user."""
    discord_settings = settings.discord
    if discord_settings.token is None:
        raise AppError(ErrorCode.CONFIG_INVALID, _no_token(Path.cwd()))
    people: tuple[int, ...] = (
        discord_settings.admin_ids + discord_settings.allowed_user_ids + discord_settings.allowed_guild_ids
    )
    if discord_settings.owner_id is None and not people:
        raise AppError(
            ErrorCode.CONFIG_INVALID, "Nobody may use the bot. Set DISCORD__OWNER_ID to your own Discord user id."
        )
    return discord_settings.token.get_secret_value()


def _no_token(folder: Path) -> str:
    """Return what to do without a token; the working folder may have the settings under another name."""
    misnamed = next((name for name in _MISNAMED if (folder / name).is_file()), None)
    if misnamed is not None and not (folder / ".env").exists():
        return f"DISCORD__TOKEN is not set. The file with it must be called `.env`: rename `{misnamed}` in {folder}."
    return (
        f"DISCORD__TOKEN is not set: neither a file `.env` in {folder} nor the environment has it. Copy the bot's token"
        " from Discord's developer portal to this file, or start without Discord: `mt up --no-discord`."
    )


def _only_bot(settings: Settings) -> BinaryIO:
    """Lock the artifacts folder until this process ends; raises SERVICE_UNAVAILABLE while another bot holds the lock.

    Two bots on one folder would send every message twice.
    """
    path = settings.app.artifacts_root / "bot.lock"
    lock = try_lock(path)
    if lock is None:
        raise AppError(
            ErrorCode.SERVICE_UNAVAILABLE,
            f"The bot already runs{_holder(path)}. Stop it first; a second bot needs another `APP__ARTIFACTS_ROOT`.",
        )
    port = f", port {settings.http.port}" if settings.http.port else ""
    lock.truncate(0)
    lock.write(f"process {os.getpid()} of {gethostname()}{port}".encode())
    lock.flush()
    return lock


def _holder(lock: Path) -> str:
    """Return what the bot that holds a lock has written into it, in parentheses."""
    written = safe_name(lock.read_text(encoding="utf-8", errors="replace"))
    return f" ({written})" if written else ""


def _stop_signal() -> asyncio.Event:
    """Return an event that the signals to stop set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.set)
    return stop


async def _run_alone(settings: Settings) -> int:
    """Run the services and the HTTP API without Discord."""
    if settings.http.port is None:
        raise AppError(ErrorCode.CONFIG_INVALID, "HTTP__PORT is empty: without Discord, there is nothing to run.")
    stop = _stop_signal()
    backend = Backend(settings)
    try:
        await backend.start()
        say(settings, "Discord: off. Stop with Ctrl-C.")
        waking = asyncio.create_task(backend.wake_webhooks())
        await stop.wait()
        waking.cancel()
    finally:
        await backend.close()
        await backend.stop_services()
    log.info("bot_stopped")
    return 0


async def _run_bot(settings: Settings, token: str) -> int:
    from bot.app import run  # so that the HTTP API alone loads no discord.py

    return await run(settings, token, _stop_signal())
