"""`/mt corpus build`: IPA corpora of equal size, built by a child process, with a card in the direct messages."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from typing import TypeVar

import discord
import structlog
from discord import app_commands

from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.corpus_build import BuildRequest, CorpusBuild, SourceName
from bot.discord_errors import CALL_ERRORS, NOT_FOUND, retry
from bot.embeds.corpus_build_card import corpus_build_card
from bot.language import _
from bot.pacing import back_off
from trainer.contracts.validation import parse

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_DEFAULT_LANGUAGES = "kk,ky,tr,az,ug,uz"
_DEFAULT_THRESHOLD = 0.9
_FIRST_SECONDS = 10.0
"""The answer waits this long for the first progress: most mistakes show until then."""
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.5, 60.0


@app_commands.command(name="build", description="Build IPA corpora of equal size, one per language.")
@app_commands.describe(
    source="A data set on the Hugging Face hub, or the texts LANG.txt in the folder `local` of the corpora",
    languages=f"Language codes, with commas between them; default: {_DEFAULT_LANGUAGES}",
    chars="Most characters per language; default: 10 million of a data set, all of local texts",
    threshold=f"Least probability that a document is in its language; default: {_DEFAULT_THRESHOLD:.2f}",
)
async def build_corpora(
    interaction: discord.Interaction[Bot],
    source: SourceName,
    languages: str = _DEFAULT_LANGUAGES,
    chars: app_commands.Range[int, 1, 10_000_000_000] | None = None,
    threshold: app_commands.Range[float, 0.0, 1.0] = _DEFAULT_THRESHOLD,
) -> None:
    codes = {code.strip(): None for code in languages.split(",") if code.strip()}
    values: dict[str, object] = {"source": source, "languages": [*codes], "characters": chars, "threshold": threshold}
    await respond(interaction, "corpus build", lambda context: _build(context, parse(BuildRequest, values)))


async def _build(context: CommandContext, request: BuildRequest) -> Answer:
    bot, caller = context
    build = await bot.corpus_builder.start(request)
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_SECONDS):
            await build.changed.wait()
    if build.state.error is not None:
        raise build.state.error
    bot.corpus_builder.deliver(_deliver(bot, build, caller.user_id))
    embed = corpus_build_card(build.state)
    embed.description = f"{embed.description}\n{_('A card in your direct messages shows the progress.')}"
    return Answer(embed)


async def _deliver(bot: Bot, build: CorpusBuild, user_id: int) -> None:
    """Send a card, edit it at each change, and send the end as a new message, which notifies."""
    try:
        channel = await _retry(lambda: bot.create_dm(discord.Object(user_id)))
        card = await _send(bot, channel, build)
        while not build.state.has_ended:
            await build.changed.wait()
            build.changed.clear()
            if not build.state.has_ended:
                await _edit(bot, card, build)
        await _send(bot, channel, build)
        await _edit(bot, card, build)
    except CALL_ERRORS as error:
        log.warning("corpus_build_message_failed", error=str(error))


async def _send(bot: Bot, channel: discord.DMChannel, build: CorpusBuild) -> discord.Message:
    nonce = token_hex(8)  # Discord drops a message that is sent twice
    async with bot.notifier.pace.turn(channel.id, is_new=True):
        return await _retry(lambda: channel.send(embed=corpus_build_card(build.state), nonce=nonce))


async def _edit(bot: Bot, card: discord.Message, build: CorpusBuild) -> None:
    async with bot.notifier.pace.turn(card.channel.id, is_new=False):
        with suppress(NOT_FOUND):  # the card was deleted
            await _retry(lambda: card.edit(embed=corpus_build_card(build.state)))


async def _retry(call: Callable[[], Awaitable[T]]) -> T:
    return await retry(call, back_off(_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS), log)
