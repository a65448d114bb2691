"""`/mt-admin build-corpora`: IPA corpora of equal size, built by a worker, with a card in the direct messages."""

import asyncio
from time import monotonic

import discord
from discord import app_commands

from bot.commands.jobs import watch_job
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import names_in
from bot.session.client import Bot
from trainer.artifacts.corpus_builds import BuildDirectory, BuildRecord, BuildStore
from trainer.artifacts.kinds import BUILDS
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.corpora import BuildRequest, BuildSource, BuildStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.wording import counted

_DEFAULT_LANGUAGES = "kk,ky,tr,az,ug,uz"
_DEFAULT_THRESHOLD = 0.9
_FIRST_SECONDS, _POLL_SECONDS = 10.0, 0.1
"""The answer waits this long for the first progress: most mistakes show until then."""


@app_commands.command(name="build-corpora", description="Build IPA corpora of equal size, one per language.")
@app_commands.describe(
    source="A data set on the hub, or the texts LANG.txt in the folder `local` of the corpora",
    languages=f"Language codes, with commas; default: {_DEFAULT_LANGUAGES}",
    chars="Most characters per language; default: 10 million of a data set, all of local texts",
    threshold=f"Least probability that a document is in its language; default: {_DEFAULT_THRESHOLD:.2f}",
    keep="Filters to leave out, such as foreign_words,short_lines; default: none",
)
async def build_corpora(
    interaction: discord.Interaction[Bot],
    source: BuildSource,
    languages: str = _DEFAULT_LANGUAGES,
    chars: app_commands.Range[int, 1, 10_000_000_000] | None = None,
    threshold: app_commands.Range[float, 0.0, 1.0] = _DEFAULT_THRESHOLD,
    keep: str = "",
) -> None:
    values: dict[str, object] = {
        "source": source,
        "characters": chars,
        "threshold": threshold,
        "keep": [*{name: None for name in names_in(keep)}],
    }
    await respond(interaction, "mt-admin build-corpora", lambda context: _build(context, languages, values))


async def _build(context: CommandContext, languages: str, values: dict[str, object]) -> Answer:
    from trainer.data.corpus_sources import parse_languages  # slow: not at the start

    bot = context.bot
    request = parse(BuildRequest, values | {"languages": parse_languages(languages)})
    build = await _start(request, context)
    status, until = await asyncio.to_thread(build.status), monotonic() + _FIRST_SECONDS
    if await bot.lab.queue.workers.exist():
        while not (status.has_ended or status.progress) and monotonic() < until:
            await asyncio.sleep(_POLL_SECONDS)
            status = await asyncio.to_thread(build.status)
    if status.error is not None:
        raise AppError(status.error.code, status.error.message)
    return await watch_job(context, JOB_ROWS["corpus_builds"], build.build_id, "corpus list")


async def _start(request: BuildRequest, context: CommandContext) -> BuildDirectory:
    """Start a build; raises CONFLICT while another build runs."""
    builds = BuildStore(context.bot.settings.app.artifacts_root)
    for earlier in await asyncio.to_thread(builds.unfinished):
        status = earlier.status()
        if status.status == "queued":
            raise AppError(ErrorCode.CONFLICT, f"A build waits for a worker: {_summary(status)}.")
        raise AppError(ErrorCode.CONFLICT, f"A build is running: {_summary(status)}.")
    record = BuildRecord(created_at=now(), user_id=context.caller.discord_id, request=request)
    return await context.bot.lab.queue.jobs.accept(BUILDS, lambda: builds.create(record))


def _summary(status: BuildStatus) -> str:
    """Return the progress of a build in a few words."""
    done = ", ".join(f"{one.language} {counted(one.documents, 'document')}" for one in status.progress)
    return f"{status.request.source}, {done or 'no document yet'}"
