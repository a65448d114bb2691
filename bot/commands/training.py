"""`/mt train`: from options, an attached text and an attached YAML file to an accepted run."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, NamedTuple

import discord
from discord import app_commands

from bot.attachments import attachment_name, read_attachment
from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import is_completed, named_run, suggested_corpora, suggested_runs, suggested_tokenizers
from bot.embeds import accepted_answer
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import Accepted, Setting, TrainRequest
from trainer.contracts.validation import refusal
from trainer.data.corpora import CorpusStore
from trainer.jobs.queue import NO_WORKER

if TYPE_CHECKING:
    from trainer.config.train_request import RequestDraft

Preset = Literal["tiny", "small", "base", "paper"]

FIELDS = {
    "corpus": "corpus",
    "model": "model_family",
    "preset": "model_size",
    "epochs": "num_epochs",
    "name": "label",
    "init_from": "init_from_run_id",
    "freeze_embeddings": "freeze_embeddings",
    "early_stop": "early_stopping",
    "seed": "seed",
    "tokenizer": "tokenizer_id",
}
"""What each option sets in the train request."""

_ONE_TEXT = "Give exactly one of `corpus` (a name) and `file` (a .txt file)."
_LABEL_CHARACTERS = 64
_FILE_NAME_CHARACTERS = 40  # as UTF-8 not longer than file systems allow


class Asked(NamedTuple):
    """What was typed, as fields of a train request, and what was attached."""

    fields: dict[str, object]
    file: discord.Attachment | None
    config: discord.Attachment | None


class Training(NamedTuple):
    """The request that it comes to, and how to tell of an error in it by the names under which it was asked."""

    request: TrainRequest
    requested_paths: tuple[str, ...] | None
    unused_settings: Mapping[str, Setting]
    located: Callable[[AppError], AppError]


@app_commands.command(description="Train a language model on a text; all settings have good defaults.")
@app_commands.describe(
    corpus="A text by its name; without one and without a file, the one that you used last",
    file="A text file (.txt, UTF-8), one sentence or verse a line",
    model="char_lstm without it; lstm, gru, rnn read words, gpt2, llama, qwen BPE, bert WordPiece",
    preset="How large the model is; without it small, for lstm, gru and rnn base",
    epochs="How often the text is read; 5 without it",
    name="What to call the run; the text's name without it",
    init_from="A completed run to begin with the weights of",
    freeze_embeddings="Keep the embedding as it is; False without it",
    early_stop="End after so many evaluations without a better one; 0, as without it, is off",
    seed="Another seed, another run; 42 without it",
    tokenizer="A tokenizer that is there, in place of one made from the text",
    config="A YAML experiment file for all the rest; what is typed here wins over it",
)
@app_commands.autocomplete(
    corpus=suggested_corpora, init_from=suggested_runs("train", is_completed), tokenizer=suggested_tokenizers
)
async def train(
    interaction: discord.Interaction[Bot],
    corpus: str | None = None,
    file: discord.Attachment | None = None,
    model: ModelFamily | None = None,
    preset: Preset | None = None,
    epochs: app_commands.Range[int, 1, 1000] | None = None,
    name: app_commands.Range[str, 1, 32] | None = None,
    init_from: str | None = None,
    freeze_embeddings: bool | None = None,
    early_stop: app_commands.Range[int, 0, 50] | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
    tokenizer: str | None = None,
    config: discord.Attachment | None = None,
) -> None:
    options: dict[str, object] = {
        "corpus": corpus,
        "model": model,
        "preset": preset,
        "epochs": epochs,
        "name": name,
        "init_from": init_from,
        "freeze_embeddings": freeze_embeddings,
        "early_stop": early_stop,
        "seed": seed,
        "tokenizer": tokenizer,
    }
    asked = Asked(fields_of(options), file, config)
    await respond(interaction, "train", lambda call: _train(call, asked))


def fields_of(options: Mapping[str, object]) -> dict[str, object]:
    """The options that were given, as fields of a train request."""
    fields: dict[str, object] = {FIELDS[name]: value for name, value in options.items() if value is not None}
    if "early_stopping" in fields:
        patience = fields["early_stopping"]
        fields["early_stopping"] = {"enabled": True, "patience": patience} if patience else {"enabled": False}
    return fields


def with_label(fields: dict[str, object], text: str) -> dict[str, object]:
    """The fields with a label: without one of their own, the cleaned name of the text."""
    label = fields.get("label")
    return {**fields, "label": clean_label(PurePosixPath(text).stem) if label is None else label}


def clean_label(name: str) -> str | None:
    """Reduce a file's name to letters with their marks, digits, spaces, - and .; None where nothing is left."""
    kept = "".join(
        sign if sign.isalnum() or sign in "-." or unicodedata.category(sign).startswith("M") else " "
        for sign in unicodedata.normalize("NFC", name)
    )
    return " ".join(kept.split())[:_LABEL_CHARACTERS].strip() or None


async def _train(call: Call, asked: Asked) -> Answer:
    return await answer_accepted(call, lambda: _accept(call, asked))


async def answer_accepted(call: Call, accept: Callable[[], Awaitable[Accepted]]) -> Answer:
    """Accept a run within the limits, begin its card, and say so."""
    bot = call.bot
    await bot.index.refresh()
    unfinished = [run for run in bot.index.runs if run.is_unfinished]
    accepted = await bot.limits.accept_run(call.caller, unfinished, accept)
    bot.listener.follow(accepted.run_id)
    record = await asyncio.to_thread(bot.queue.runs.get(accepted.run_id).record)
    note = None if await bot.queue.has_worker() else NO_WORKER
    return Answer(accepted_answer(record, note=note, request_id=call.request_id))


async def _accept(call: Call, asked: Asked) -> Accepted:
    """Check all that was asked, and only then keep the attached text and accept the run."""
    queue, settings = call.bot.queue, call.bot.settings
    corpora = CorpusStore(settings)
    with TemporaryDirectory() as folder:
        training = await _read(call, asked, folder)
        request = training.request
        try:
            if asked.file is not None:
                data = await read_attachment(asked.file, settings)
                text = await asyncio.to_thread(_written, data, attachment_name(asked.file), folder)
                content: dict[str, str] = {"corpus": await corpora.offer(text)}
                request = request.model_copy(update=content)
            return await queue.train(
                request,
                user_id=call.caller.user_id,
                corpora=corpora,
                requested_paths=training.requested_paths,
                unused_settings=training.unused_settings,
            )
        except AppError as error:
            raise training.located(error) from None


async def _read(call: Call, asked: Asked, folder: str) -> Training:
    """The request that was typed and attached; an attached text counts as there."""
    typed = dict(asked.fields)
    if asked.file is not None and "corpus" in typed:
        raise AppError(ErrorCode.INVALID_INPUT, _ONE_TEXT)
    if asked.file is not None:
        typed["corpus"] = attachment_name(asked.file)  # until its content is known
    file: Path | None = None
    if asked.config is not None:
        data = await read_attachment(asked.config, call.bot.settings, "config")
        file = await asyncio.to_thread(_written, data, attachment_name(asked.config, "config"), folder)
    experiment = await asyncio.to_thread(_experiment, typed, file)  # a long file takes seconds
    fields = experiment.fields
    if "corpus" not in fields and experiment.place("corpus") == "corpus":  # a file of blocks has to name it itself
        fields["corpus"] = _last_corpus(call)
    parent: ModelFamily | None = None
    parent_id = fields.get("init_from_run_id")
    if isinstance(parent_id, str):
        parent = (await named_run(call, "train", parent_id)).record.effective.model_family
    experiment = experiment._replace(fields=with_label(fields, _text_name(call, fields))).with_family(parent)
    try:
        request = experiment.request()
    except AppError as error:
        raise in_options(error, experiment.is_in_file) from None
    return Training(
        request,
        experiment.requested_paths,
        experiment.unused_settings,
        lambda error: in_options(experiment.located(error), experiment.is_in_file),
    )


def _experiment(typed: dict[str, object], file: Path | None) -> "RequestDraft":
    from trainer.config.experiment_file import read_experiment, read_yaml  # slow: not at the start

    return RequestDraft(typed) if file is None else read_experiment(read_yaml(file), typed)


def in_options(error: AppError, is_in_file: Callable[[str], bool] | None = None) -> AppError:
    """The same error with the options' names in place of the fields', but for what is wrong in a file."""

    def said(message: str) -> str:
        for option, field in FIELDS.items():
            message = message.replace(f"`{field}`", f"`{option}`")
        return message

    details: list[FieldProblem] = []
    for problem in error.details:
        in_file = is_in_file is not None and is_in_file(problem.path)
        changed: dict[str, object] = {} if in_file else {"message": said(problem.message)}
        details.append(problem.model_copy(update=changed))
    return refusal(error.code, *details) if details else AppError(error.code, said(error.message))


def _written(data: bytes, name: str, folder: str) -> Path:
    """A file with the data, named like the attachment as far as that is safe."""
    path = PurePosixPath(name)
    file = Path(folder) / f"{(clean_label(path.stem) or 'file')[:_FILE_NAME_CHARACTERS]}{path.suffix.lower()}"
    file.write_bytes(data)
    return file


def _last_corpus(call: Call) -> str:
    for run in call.bot.index.runs:
        if run.user_id == call.caller.user_id:
            return run.corpus
    raise AppError(ErrorCode.INVALID_INPUT, _ONE_TEXT)


def _text_name(call: Call, fields: Mapping[str, object]) -> str:
    """What to call the text: one that was attached is known by its content, and was named when it was attached."""
    corpus = str(fields.get("corpus") or "")
    for run in call.bot.index.runs:
        if run.has_attached_text and run.corpus == corpus and run.user_id == call.caller.user_id:
            return run.label or ""
    return corpus
