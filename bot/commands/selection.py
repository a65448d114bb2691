"""Which run a command means: the one that is named, or the newest that fits."""

import asyncio
from typing import TYPE_CHECKING, Literal, NamedTuple

from bot.commands.group import Call
from bot.permissions import Caller
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import RunRecord
from trainer.runs import RunDirectory

if TYPE_CHECKING:
    from bot.app import Bot

Default = Literal["newest", "newest_completed"]


class ChosenRun(NamedTuple):
    directory: RunDirectory
    record: RunRecord


async def named_run(call: Call, command: str, run_id: str) -> ChosenRun:
    """Find a run that the caller may give this command on; raises RUN_NOT_FOUND or FORBIDDEN."""
    directory = call.bot.queue.runs.get(run_id.strip())
    record = await asyncio.to_thread(directory.record)
    call.bot.permissions.check_run(command, call.caller, record)
    return ChosenRun(directory, record)


async def named_or_newest_run(call: Call, command: str, run_id: str | None, default: Default) -> ChosenRun:
    """The run that is named, else the newest one that fits; raises RUN_NOT_FOUND or FORBIDDEN."""
    if run_id is None:
        return await asyncio.to_thread(_newest, call.bot, call.caller, default)
    return await named_run(call, command, run_id)


def _newest(bot: "Bot", caller: Caller, default: Default) -> ChosenRun:
    """The newest completed run that the caller may see; or the caller's own newest, else the newest to be seen."""
    seen: ChosenRun | None = None
    for directory in bot.queue.runs.all():
        record = directory.record()
        if not bot.permissions.may_see(caller, record) or (default == "newest_completed" and not _completed(directory)):
            continue
        if default == "newest_completed" or record.user_id == caller.user_id:
            return ChosenRun(directory, record)
        seen = seen or ChosenRun(directory, record)
    if seen is not None:
        return seen
    kind = "finished run" if default == "newest_completed" else "run"
    raise AppError(ErrorCode.RUN_NOT_FOUND, f"There is no {kind} yet: start one with `/mt train`.")


def _completed(directory: RunDirectory) -> bool:
    manifest = directory.manifest()
    return manifest is not None and manifest.status == "completed"
