"""The menu of a message: score its text, or train on its attachment."""

import discord
from discord import app_commands

from bot.commands.responses import Answer, ButtonAnswer, CommandContext, open_form, respond
from bot.commands.run_options import find_run
from bot.commands.score import ScoreOptions, score_text
from bot.commands.training import accept_files, answer_accepted
from bot.messages.buttons import ButtonPress, Field, form
from bot.rest.attachments import attachment_name
from bot.session.client import Bot
from trainer.config.train_request import request_fields
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import _

_DEFAULT_MODEL = "char_lstm"
_MAX_NAME, _MAX_NUMBER, _MAX_MODEL = 32, 4, 16
_MAX_OFFERED = 100


@app_commands.context_menu(name="Score with last run")
@app_commands.allowed_installs(guilds=True, users=True)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=True)
async def score_message(interaction: discord.Interaction[Bot], message: discord.Message) -> None:
    await respond(interaction, "score", lambda context: _score(context, message.content))


@app_commands.context_menu(name="Train on attachment")
@app_commands.allowed_installs(guilds=True, users=True)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=True)
async def train_on_attachment(interaction: discord.Interaction[Bot], message: discord.Message) -> None:
    await open_form(interaction, "train", lambda context: _train_form(context, interaction.id, message.attachments))


async def _score(context: CommandContext, text: str) -> Answer:
    if not text.strip():
        raise AppError(ErrorCode.INVALID_INPUT, _("This message has no text. Choose a message with text."))
    return await score_text(context, await find_run(context, "score", None), text, ScoreOptions())


async def _train_form(
    context: CommandContext, interaction_id: int, attachments: list[discord.Attachment]
) -> discord.ui.Modal:
    """Return a form for the first text file of a message; the bot remembers the file until the form is sent."""
    found = next(filter(_is_corpus, attachments), None)
    if found is None:
        message = _("This message has no text file. Choose a message with a .txt, .jsonl, .csv or .tsv file.")
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    offered, key = context.bot.offered_files, str(interaction_id)
    offered[key] = found
    while len(offered) > _MAX_OFFERED:
        del offered[next(iter(offered))]
    return form(
        "trainfile",
        key,
        _("Train on {file}", file=found.filename),
        Field("name", _("Name of the run"), is_required=False, max_characters=_MAX_NAME),
        Field("model", _("Model family"), _DEFAULT_MODEL, max_characters=_MAX_MODEL),
        Field("epochs", _("Epochs"), is_required=False, max_characters=_MAX_NUMBER),
    )


def _is_corpus(file: discord.Attachment) -> bool:
    try:
        attachment_name(file.filename, file.title, is_corpus=True)
    except AppError:
        return False
    return True


async def _train(context: CommandContext, sent: ButtonPress) -> Answer:
    file = context.bot.offered_files.get(sent.run_id)
    if file is None:
        raise AppError(ErrorCode.DATA_NOT_FOUND, _("This form has expired. Choose **Train on attachment** again."))
    model, epochs, name = (sent.fields[field].strip() or None for field in ("model", "epochs", "name"))
    if epochs is not None and not (epochs.isdecimal() and 1 <= int(epochs) <= 1000):
        raise AppError(ErrorCode.INVALID_INPUT, _("`epochs` must be a whole number from 1 to 1000."))
    fields = request_fields({"model": model, "epochs": None if epochs is None else int(epochs), "name": name})
    return await answer_accepted(context, lambda: accept_files(context, fields, file, None))


FORMS = {"trainfile": ButtonAnswer("train", _train)}
