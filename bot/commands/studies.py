"""`/mt study start`, `list`, `show` and `cancel`: settings compared on validation, with one look at the test split."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.jobs import add_commands, watch_job
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import suggested_corpora
from bot.commands.training import download_to
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.studies import StudyRequest
from trainer.lab import calls
from trainer.lab.language import _

study = app_commands.Group(name="study", description="Choose settings.")
_ROW = JOB_ROWS["studies"]
_NAME = "study"
"""The name of a study without a file."""


@study.command(name="start", description="Compare settings; test the best once.")
@app_commands.describe(
    config="File (YAML)",
    corpus="Corpus",
    variants="Settings to draw",
)
@app_commands.autocomplete(corpus=suggested_corpora)
async def start_study(
    interaction: discord.Interaction[Bot],
    config: discord.Attachment | None = None,
    corpus: str | None = None,
    variants: app_commands.Range[int, 2, 256] | None = None,
) -> None:
    await respond(interaction, "study start", lambda context: _start(context, config, corpus, variants))


async def _start(
    context: CommandContext, config: discord.Attachment | None, corpus: str | None, variants: int | None
) -> Answer:
    if config is None and corpus is None:
        raise AppError(ErrorCode.INVALID_INPUT, _("Give a `config` file, or a `corpus`."))
    options: dict[str, object] = {} if corpus is None else {"train": {"corpus": corpus}}
    options |= {} if variants is None else {"variants": variants}
    with TemporaryDirectory() as folder:
        path = None if config is None else await download_to(context, config, "config", folder)
        request = await asyncio.to_thread(_read, path, options)
    status = await context.lab.call(calls.START_STUDY, context.caller, body=request)
    return await watch_job(context, _ROW, status.study_id)


def _read(path: Path | None, options: dict[str, object]) -> StudyRequest:
    from trainer.config.experiment_file import read_study  # slow: not at the start

    return read_study(path, {"name": _NAME, **options} if path is None else options)


add_commands(study, "studies", list="List studies.", show="Show a study.", cancel="Cancel a study.")
