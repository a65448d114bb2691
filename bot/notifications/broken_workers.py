"""Messages to the owner of the bot about workers whose processes end before their first step."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import discord

from bot.messages.text import AMBER, clamp, make_embed, plain, said
from trainer.contracts.jobs import WorkerInfo
from trainer.lab.language import _
from trainer.queue.workers import Workers

_POLL_SECONDS = 5.0
_MAX_WORKERS, _MAX_REASON = 10, 300


async def report_broken_workers(workers: Workers, send: Callable[[discord.Embed], Awaitable[None]]) -> None:
    """Send one message about the workers that break, without end; none again while they stay broken."""
    while True:
        broken = await workers.newly_broken()
        if broken:
            await send(broken_workers_message(broken))
        await asyncio.sleep(_POLL_SECONDS)


def broken_workers_message(workers: Sequence[WorkerInfo]) -> discord.Embed:
    lines: list[str] = []
    for worker in workers[:_MAX_WORKERS]:
        lines += [f"**{plain(worker.name)}**", *broken_worker_lines(worker)]
    footer = _("Its runs wait for another worker; none is lost.")
    return make_embed(AMBER, f"🛠 {_('Broken worker')}", lines, footer)


def broken_worker_lines(worker: WorkerInfo) -> list[str]:
    """Return what is wrong with a broken worker and what to do, then the reason in the worker's own words."""
    remedy = _(
        "⚠ It takes no job: its processes end before their first step. Mend the machine, then restart the worker, or"
        " use `/mt-admin workers action:undrain`."
    )
    return [remedy, f"> {plain(clamp(said(worker.reason or ''), _MAX_REASON))}"]
