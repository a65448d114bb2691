"""`/mt train`: options, an attached text and an attached experiment file become an accepted run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import discord
from discord import app_commands

from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import (
    find_run,
    suggested_corpora,
    suggested_runs,
    suggested_sizes,
    suggested_tokenizers,
)
from bot.commands.studies import ask_to_start
from bot.messages.answers import accepted_answer
from bot.messages.buttons import button, button_row
from bot.messages.option_names import in_option_names
from bot.people.user_settings import Notify
from bot.rest.attachments import attachment_name, download_to
from bot.session.client import Bot
from trainer.artifacts.run_ids import default_label, without_model
from trainer.config.train_request import TRAIN_OPTIONS, request_fields
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import Accepted
from trainer.contracts.studies import StudyRequest
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.data.text import clean_file_name
from trainer.lab.calls import TRAIN, LocalTraining
from trainer.lab.language import _
from trainer.queue.cost import UNMET

if TYPE_CHECKING:
    from trainer.config.train_request import RequestDraft

_HELP = {name: option.help for name, option in TRAIN_OPTIONS.items()} | {
    "corpus": "Name of a corpus; default: your last one",
    "file": "Text: .txt with a sentence per line, or .jsonl, .csv or .tsv with a field `text`",
    "model": "Model family; default: char_lstm",
    "size": "Preset of the model's sizes; default: by the text",
    "epochs": f"{TRAIN_OPTIONS['epochs'].help}; default: by the text",
    "batch_size": "Rows per batch; default: chosen automatically",
    "devices": "Processes that train together",
    "seed": f"{TRAIN_OPTIONS['seed'].help}; default: 42",
    "config": "Experiment file (YAML) with further settings; options replace its values",
    "notify": "Where card and result come; default: your setting, else dm",
}


@app_commands.command(description="Train a language model on a text; every setting has a default.")
@app_commands.describe(**_HELP)
@app_commands.autocomplete(
    corpus=suggested_corpora,
    size=suggested_sizes,
    init_from=suggested_runs("train"),
    tokenizer=suggested_tokenizers,
)
async def train(
    interaction: discord.Interaction[Bot],
    corpus: str | None = None,
    file: discord.Attachment | None = None,
    model: ModelFamily | None = None,
    size: str | None = None,
    epochs: app_commands.Range[int, 1, 1000] | None = None,
    max_steps: app_commands.Range[int, 1, 1_000_000_000] | None = None,
    minutes: app_commands.Range[float, 0.1, 10_000.0] | None = None,
    quick: bool | None = None,
    search: app_commands.Range[int, 2, 256] | None = None,
    batch_size: app_commands.Range[int, 1, 4096] | None = None,
    learning_rate: app_commands.Range[float, 0.0, 1.0] | None = None,
    tokenizer: str | None = None,
    seed: app_commands.Range[int, 0, 4294967295] | None = None,
    seeds: str | None = None,
    name: app_commands.Range[str, 1, 32] | None = None,
    init_from: str | None = None,
    freeze_embeddings: bool | None = None,
    devices: app_commands.Range[int, 1, 64] | None = None,
    early_stopping: app_commands.Range[int, 0, 50] | None = None,
    config: discord.Attachment | None = None,
    notify: Notify | None = None,
) -> None:
    options: Iterable[tuple[str, object]] = interaction.namespace  # the values of the parameters by name
    typed = {name: value for name, value in options if name in TRAIN_OPTIONS}

    async def work(context: CommandContext) -> Answer:
        fields = request_fields(typed)
        return await answer_accepted(
            context, lambda: accept_files(context, fields, file, config), notify, instead="notify:dm"
        )

    await respond(interaction, "train", work)


async def answer_accepted(
    context: CommandContext,
    accept: Callable[[], Awaitable[Accepted | Answer]],
    notify: Notify | None = None,
    *,
    instead: str = "/mt settings",
) -> Answer:
    """Accept a run, start its notifications, and answer; the answer of a study, which has its own, as it is.

    They come to the place `notify`, by default that of the user's settings. Raises FORBIDDEN, with the advice to use
    something else `instead`, if the bot may not post there.
    """
    bot, caller, place = context
    notify = notify or bot.user_settings.of(caller.user_id).notify
    channel_id = place.for_cards(instead) if notify == "here" else None
    with bot.notifier.hold():
        accepted = await accept()
        if isinstance(accepted, Answer):
            return accepted
        name = accepted.name
        if notify == "off":
            await bot.notifier.unwatch(name, caller.user_id)
        else:
            await bot.notifier.watch(name, caller.user_id, channel_id, place.for_mentions, waits=False)
    record = await asyncio.to_thread(bot.lab.queue.runs.get(accepted.run_id).record)
    waits_for = (await bot.lab.queue.states.status(accepted.run_id)).waits_for
    note = _(WAIT_MESSAGES[waits_for]) if waits_for is not None and waits_for in UNMET else None
    shown: Notify = "dm" if notify == "here" and channel_id is None else notify
    embed = accepted_answer(changed(record, run_id=name), note, notify=shown, group=accepted.group)
    return Answer(embed, view=button_row(button("details", record.run_id, _("Details"))))


async def accept_files(
    context: CommandContext,
    typed: dict[str, object],
    file: discord.Attachment | None,
    config: discord.Attachment | None,
) -> Accepted | Answer:
    """Check the request, then store the attached text and accept the run; with `search` start a study."""
    if file is not None:
        if "corpus" in typed:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                _("Give exactly one of `corpus` (a name) and `file` (a .txt, .jsonl, .csv or .tsv file)."),
            )
        typed = {
            **typed,
            "corpus": clean_file_name(attachment_name(file.filename, file.title, is_corpus=True)),
        }  # until its content is known
    with TemporaryDirectory() as folder:
        config_path: Path | None = None
        if config is not None:
            config_path = await download_to(config, context.bot.settings, "config", folder)
        return await _accept_draft(context, typed, config_path, file, folder)


async def accept_yaml(context: CommandContext, text: str, options: dict[str, object]) -> Accepted | Answer:
    """Accept a run with the settings of an experiment file, given as text; options replace its values."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        await asyncio.to_thread(path.write_text, text, encoding="utf-8")
        return await _accept_draft(context, options, path, None, folder)


async def _accept_draft(
    context: CommandContext,
    typed: dict[str, object],
    config: Path | None,
    file: discord.Attachment | None,
    folder: str,
) -> Accepted | Answer:
    draft = await asyncio.to_thread(_draft, typed, config)  # a long file takes seconds
    try:
        draft = await _with_defaults(context, draft)
        if (study := draft.study()) is not None:
            return await _start_study(context, study, file)
        request = draft.request()
    except AppError as error:
        raise in_option_names(error, draft.is_in_file) from None
    try:
        local = LocalTraining(
            requested_paths=draft.requested_paths,
            unused_settings=draft.unused_settings,
            text=None if file is None else await download_to(file, context.bot.settings, "file", folder),
        )
        return await context.lab.call(TRAIN, context.caller, query=local, body=request)
    except AppError as error:
        raise in_option_names(draft.located(error), draft.is_in_file) from None


async def _start_study(context: CommandContext, request: StudyRequest, file: discord.Attachment | None) -> Answer:
    if file is not None:
        message = _("`search` needs a corpus with a name: add the text with `/mt corpus add`.")
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return await ask_to_start(context, request)


async def _with_defaults(context: CommandContext, draft: "RequestDraft") -> "RequestDraft":
    """Add the caller's last corpus, the family of the run to start from, and a label for the text of an earlier one."""
    fields = draft.fields
    await context.lab.index.refresh()
    own = [run for run in context.lab.index.runs if run.user_id == context.caller.user_id]
    if "corpus" not in fields and draft.place("corpus") == "corpus":  # a file of blocks names its corpus
        if not own:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                _("Give exactly one of `corpus` (a name) and `file` (a .txt, .jsonl, .csv or .tsv file)."),
            )
        fields["corpus"] = own[0].corpus
    family: ModelFamily | None = None
    init_from = fields.get("init_from_run_id")
    if isinstance(init_from, str):
        parent = await find_run(context, "train", init_from)
        fields["init_from_run_id"], family = parent.model, parent.record.effective.model_family
    try:
        corpus = await asyncio.to_thread(context.lab.queue.corpora.full_name, str(fields.get("corpus") or ""))
    except AppError as error:
        raise draft.located(error, "corpus") from None
    draft = draft.with_family(family)
    if fields.get("label") is None:
        attached = (run for run in own if run.has_attached_text and run.corpus == corpus)
        if (earlier := next(attached, None)) is not None:  # the corpus has no name
            stem, resumes = without_model(earlier.label or "", earlier.family), fields.get("resume") is True
            seen = await context.lab.named_runs(context.caller)
            draft.fields["label"] = default_label(stem, draft.fields.get("model_family"), seen, resumes=resumes)
    return draft


def _draft(typed: dict[str, object], file: Path | None) -> "RequestDraft":
    from trainer.config.experiment_file import read_experiment, read_yaml  # slow: not at the start
    from trainer.config.train_request import RequestDraft

    return RequestDraft(typed) if file is None else read_experiment(read_yaml(file), typed)
