"""`/mt-study start`, `list`, `show` and `cancel`: settings compared on validation, with one look at the test split."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.jobs import add_commands, job_group, watch_job
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import suggested_corpora
from bot.messages.buttons import ButtonPress, button, button_row
from bot.messages.files import one_file
from bot.messages.job_cards import study_question
from bot.messages.option_names import in_option_names
from bot.rest.attachments import download_to
from bot.session.client import Bot
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.studies import StudyRequest
from trainer.lab import calls
from trainer.lab.language import _
from trainer.lab.studies import preview_study

mt_study = job_group("studies", "Find better settings for a text by comparing several trainings.")
_ROW = JOB_ROWS["studies"]


@mt_study.command(name="start", description="Compare settings on validation text, and test the best one once.")
@app_commands.describe(
    config="Plan of a study (YAML), in place of the other options or with them",
    corpus="Name of the corpus to train on",
    variants="How many settings of learning rate and dropout are compared; default: 8",
)
@app_commands.autocomplete(corpus=suggested_corpora)
async def start_study(
    interaction: discord.Interaction[Bot],
    config: discord.Attachment | None = None,
    corpus: str | None = None,
    variants: app_commands.Range[int, 2, 256] | None = None,
) -> None:
    await respond(interaction, "mt-study start", lambda context: _start(context, config, corpus, variants))


async def _start(
    context: CommandContext, config: discord.Attachment | None, corpus: str | None, variants: int | None
) -> Answer:
    if config is None and corpus is None:
        raise AppError(ErrorCode.INVALID_INPUT, _("Give a `config` file, or a `corpus`."))
    options: dict[str, object] = {} if corpus is None else {"train": {"corpus": corpus}}
    options |= {} if variants is None else {"variants": variants}
    with TemporaryDirectory() as folder:
        path = None if config is None else await download_to(config, context.bot.settings, "config", folder)
        try:
            return await ask_to_start(context, await asyncio.to_thread(_read, path, options, corpus or ""))
        except AppError as error:
            raise (in_option_names(error) if config is None else error) from None


def _read(path: Path | None, options: dict[str, object], corpus: str = "") -> StudyRequest:
    from trainer.config.experiment_file import read_study  # slow: not at the start
    from trainer.config.train_request import study_name

    return read_study(path, {"name": study_name(corpus), **options} if path is None else options)


async def ask_to_start(context: CommandContext, request: StudyRequest) -> Answer:
    """Show how many trainings a study has and how long they take, with a button that starts it.

    The message has the study as a file, which the button reads. A study that has been started is shown.
    """
    record = await preview_study(context.lab, context.caller, request)
    known = context.lab.stores.studies.find(record.study_id)
    if known is not None and not await asyncio.to_thread(known.may_begin):
        return await watch_job(context, _ROW, record.study_id)
    file = request.model_dump_json(exclude_unset=True, indent=1).encode()  # which is YAML, too
    start = button("study_start", record.study_id, _("Start"), style=discord.ButtonStyle.success)
    return Answer(study_question(record), one_file(f"{request.name}.yaml", file), button_row(start))


async def _start_asked(context: CommandContext, press: ButtonPress) -> Answer:
    """Start the study whose file stands in the message of the button."""
    if not press.files:
        raise AppError(ErrorCode.NOT_FOUND, _("The file of this study is gone. Use `/mt-study start` again."))
    with TemporaryDirectory() as folder:
        path = await download_to(press.files[0], context.bot.settings, "config", folder)
        request = await asyncio.to_thread(_read, path, {})
    status = await context.lab.call(calls.START_STUDY, context.caller, body=request)
    return await watch_job(context, _ROW, status.study_id)


BUTTONS: Reactions = {"study_start": ButtonAnswer("mt-study start", _start_asked)}


add_commands(
    mt_study,
    "studies",
    list="List the studies, newest first.",
    show="Show a study: its progress, or its table of settings and the winner.",
    cancel="Cancel a study; its finished runs stay.",
)
