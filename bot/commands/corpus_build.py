"""`/mt corpus build`: IPA corpora of equal size, built by a child process, with a card in the direct messages."""

import asyncio
from contextlib import suppress

import discord
from discord import app_commands

from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.started_jobs import watch_job
from bot.messages.job_cards import corpus_build_card
from bot.session.client import Bot
from trainer.artifacts.corpus_builds import BuildRequest, SourceName
from trainer.config.validation import parse
from trainer.contracts.errors import AppError

_DEFAULT_LANGUAGES = "kk,ky,tr,az,ug,uz"
_DEFAULT_THRESHOLD = 0.9
_FIRST_SECONDS = 10.0
"""The answer waits this long for the first progress: most mistakes show until then."""


@app_commands.command(name="build", description="Build IPA corpora of equal size, one per language.")
@app_commands.describe(
    source="A data set on the hub, or the texts LANG.txt in the folder `local` of the corpora",
    languages=f"Language codes, with commas; default: {_DEFAULT_LANGUAGES}",
    chars="Most characters per language; default: 10 million of a data set, all of local texts",
    threshold=f"Least probability that a document is in its language; default: {_DEFAULT_THRESHOLD:.2f}",
    keep="Filters to leave out, such as foreign_words,short_lines; default: none",
)
async def build_corpora(
    interaction: discord.Interaction[Bot],
    source: SourceName,
    languages: str = _DEFAULT_LANGUAGES,
    chars: app_commands.Range[int, 1, 10_000_000_000] | None = None,
    threshold: app_commands.Range[float, 0.0, 1.0] = _DEFAULT_THRESHOLD,
    keep: str = "",
) -> None:
    values: dict[str, object] = {
        "source": source,
        "languages": _names(languages),
        "characters": chars,
        "threshold": threshold,
        "keep": _names(keep),
    }
    await respond(interaction, "corpus build", lambda context: _build(context, parse(BuildRequest, values)))


def _names(text: str) -> list[str]:
    """Return the names between commas, each once."""
    return [*{name.strip(): None for name in text.split(",") if name.strip()}]


async def _build(context: CommandContext, request: BuildRequest) -> Answer:
    build = await context.bot.corpus_builder.start(request)
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_SECONDS):
            await build.changed.wait()
    error = build.status.error
    if error is not None:
        await asyncio.to_thread(build.directory.remove)
        raise AppError(error.code, error.message)
    notes = await watch_job(context, build.directory, "corpus list", needs_worker=False)
    embed = corpus_build_card(build.directory.build_id, build.status)
    embed.description = "\n".join([embed.description or "", *notes])
    return Answer(embed)
