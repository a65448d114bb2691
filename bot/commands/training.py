"""`/mt train`: options, an attached text and an attached experiment file become an accepted run."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import discord
from discord import app_commands

from bot.attachments import attachment_name, read_attachment
from bot.client import Bot
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import find_run, suggested_corpora, suggested_runs, suggested_tokenizers
from bot.embeds.answers import accepted_answer
from trainer.config.request_options import TRAIN_OPTIONS, request_fields
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import Accepted
from trainer.contracts.validation import refusal
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import NO_WORKER

if TYPE_CHECKING:
    from trainer.config.train_request import RequestDraft

Size = Literal["tiny", "small", "base", "paper"]

_ONE_TEXT = "Give exactly one of `corpus` (a name) and `file` (a .txt file)."
_MAX_LABEL = 64
_MAX_FILE_NAME = 40  # in UTF-8 not longer than file systems allow
_OPTION_NAMES = {option.field: name for name, option in TRAIN_OPTIONS.items()} | {"tokenizer_id": "tokenizer"}
_HELP = {name: option.help for name, option in TRAIN_OPTIONS.items()} | {
    "corpus": "Name of a corpus; default: your last one",
    "file": "Text file to train on (.txt, UTF-8), one sentence or verse per line",
    "model": "Model family; default: char_lstm",
    "size": "Preset of the model's sizes; default: small, for lstm, gru and rnn base",
    "epochs": f"{TRAIN_OPTIONS['epochs'].help}; default: 5",
    "batch_size": "Rows per batch; default: chosen automatically",
    "seed": f"{TRAIN_OPTIONS['seed'].help}; default: 42",
    "config": "Experiment file (YAML) with further settings; options replace its values",
}


@app_commands.command(description="Train a language model on a text; every setting has a default.")
@app_commands.describe(**_HELP)
@app_commands.autocomplete(corpus=suggested_corpora, init_from=suggested_runs("train"), tokenizer=suggested_tokenizers)
async def train(
    interaction: discord.Interaction[Bot],
    corpus: str | None = None,
    file: discord.Attachment | None = None,
    model: ModelFamily | None = None,
    size: Size | None = None,
    epochs: app_commands.Range[int, 1, 1000] | None = None,
    max_steps: app_commands.Range[int, 1, 1_000_000_000] | None = None,
    batch_size: app_commands.Range[int, 1, 4096] | None = None,
    learning_rate: app_commands.Range[float, 0.0, 1.0] | None = None,
    tokenizer: str | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
    name: app_commands.Range[str, 1, 32] | None = None,
    init_from: str | None = None,
    freeze_embeddings: bool | None = None,
    early_stopping: app_commands.Range[int, 0, 50] | None = None,
    config: discord.Attachment | None = None,
) -> None:
    options: Iterable[tuple[str, object]] = interaction.namespace  # the values of the parameters by name
    fields = request_fields({name: value for name, value in options if name in TRAIN_OPTIONS})
    await respond(
        interaction, "train", lambda context: answer_accepted(context, lambda: _accept(context, fields, file, config))
    )


def with_label(fields: dict[str, object], corpus_name: str) -> dict[str, object]:
    """Return the fields with a label; the default is the corpus's name, reduced to plain characters."""
    label = fields.get("label")
    return {**fields, "label": clean_label(PurePosixPath(corpus_name).stem) if label is None else label}


def clean_label(name: str) -> str | None:
    """Reduce a file's name to letters with their marks, digits, spaces, - and .; return None if nothing is left."""
    plain = "".join(
        sign if sign.isalnum() or sign in "-." or unicodedata.category(sign).startswith("M") else " "
        for sign in unicodedata.normalize("NFC", name)
    )
    return " ".join(plain.split())[:_MAX_LABEL].strip() or None


async def answer_accepted(context: CommandContext, accept: Callable[[], Awaitable[Accepted]]) -> Answer:
    """Accept a run within the limits, start its notifications, and answer."""
    bot = context.bot
    await bot.index.refresh()
    unfinished = [run for run in bot.index.runs if run.is_unfinished]
    accepted = await bot.limits.accept_run(context.caller, unfinished, accept)
    bot.notifier.follow(accepted.run_id)
    record = await asyncio.to_thread(bot.queue.runs.get(accepted.run_id).record)
    note = None if await bot.queue.has_worker() else NO_WORKER
    return Answer(accepted_answer(record, note))


async def _accept(
    context: CommandContext,
    typed: dict[str, object],
    file: discord.Attachment | None,
    config: discord.Attachment | None,
) -> Accepted:
    """Check the request, then store the attached text and accept the run."""
    settings = context.bot.settings
    if file is not None:
        if "corpus" in typed:
            raise AppError(ErrorCode.INVALID_INPUT, _ONE_TEXT)
        typed = {**typed, "corpus": attachment_name(file.filename, file.title)}  # until its content is known
    corpora = CorpusStore(settings)
    with TemporaryDirectory() as folder:
        config_path: Path | None = None
        if config is not None:
            config_path = await _download(context, config, "config", folder)
        draft = await asyncio.to_thread(_draft, typed, config_path)  # a long file takes seconds
        draft = await _with_defaults(context, draft)
        try:
            request = draft.request()
        except AppError as error:
            raise with_option_names(error, draft.is_in_file) from None
        try:
            if file is not None:
                text = await _download(context, file, "file", folder)
                request = changed(request, corpus=await corpora.offer(text))
            return await context.bot.queue.train(
                request,
                user_id=context.caller.user_id,
                corpora=corpora,
                requested_paths=draft.requested_paths,
                unused_settings=draft.unused_settings,
            )
        except AppError as error:
            raise with_option_names(draft.located(error), draft.is_in_file) from None


async def _with_defaults(context: CommandContext, draft: "RequestDraft") -> "RequestDraft":
    """Add the caller's last corpus, the corpus's name as label, and the family of the run to start from."""
    fields = draft.fields
    own = [run for run in context.bot.index.runs if run.user_id == context.caller.user_id]
    if "corpus" not in fields and draft.place("corpus") == "corpus":  # a file of blocks names its corpus
        if not own:
            raise AppError(ErrorCode.INVALID_INPUT, _ONE_TEXT)
        fields["corpus"] = own[0].corpus
    family: ModelFamily | None = None
    init_from = fields.get("init_from_run_id")
    if isinstance(init_from, str):
        family = (await find_run(context, "train", init_from)).record.effective.model_family
    corpus = str(fields.get("corpus") or "")
    names = (run.label or "" for run in own if run.has_attached_text and run.corpus == corpus)
    return draft._replace(fields=with_label(fields, next(names, corpus))).with_family(family)


def _draft(typed: dict[str, object], file: Path | None) -> "RequestDraft":
    from trainer.config.experiment_file import read_experiment, read_yaml  # slow: not at the start
    from trainer.config.train_request import RequestDraft

    return RequestDraft(typed) if file is None else read_experiment(read_yaml(file), typed)


def with_option_names(error: AppError, is_in_file: Callable[[str], bool] | None = None) -> AppError:
    """Return the error with option names in place of field names, except for problems in an experiment file."""

    def rename(message: str) -> str:
        for field, option in _OPTION_NAMES.items():
            message = message.replace(f"`{field}`", f"`{option}`")
        return message

    if not error.details:
        return AppError(error.code, rename(error.message))
    details = [
        problem
        if is_in_file is not None and is_in_file(problem.path)
        else changed(problem, message=rename(problem.message))
        for problem in error.details
    ]
    return refusal(error.code, *details)


async def _download(context: CommandContext, attachment: discord.Attachment, option: str, folder: str) -> Path:
    """Store an attachment under a safe form of its name."""
    data = await read_attachment(attachment, context.bot.settings, option)
    name = PurePosixPath(attachment_name(attachment.filename, attachment.title, option))
    path = Path(folder) / f"{(clean_label(name.stem) or 'file')[:_MAX_FILE_NAME]}{name.suffix.lower()}"
    await asyncio.to_thread(path.write_bytes, data)
    return path
