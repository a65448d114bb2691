"""Buttons of a run without a command of their own: Files, Retry, Copy config, Edit… and Compare…"""

import asyncio

import discord

from bot.commands.compare import compare_runs
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, Reactions
from bot.commands.run_options import Run, described, find_run, fitting_runs
from bot.commands.training import accept_yaml, answer_accepted
from bot.messages.advice import retry_batch
from bot.messages.answers import STATE_SIGNS, config_answer, details_answer, file_answer, files_answer
from bot.messages.buttons import (
    MAX_OPTION_CHARACTERS,
    MAX_OPTIONS,
    MAX_TEXT,
    ButtonPress,
    Field,
    button_row,
    form,
    option,
    select,
)
from bot.messages.files import one_file
from bot.messages.text import BLURPLE, MAX_FILE_BYTES, display_name, make_embed, shown_name
from trainer.artifacts.outcome import read_outcome
from trainer.config.presets import halved_batch
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.parameters import ArtifactPath, RunPath
from trainer.contracts.runs import RunRecord
from trainer.lab import calls
from trainer.lab.artifacts import artifact
from trainer.lab.language import _
from trainer.system.files import BrokenFile, read_regular


async def _files(context: CommandContext, press: ButtonPress) -> Answer:
    """Answer with the files of a completed run, and a list of those that Discord takes."""
    run = await find_run(context, "export", press.run_id)
    _folder, files = await artifact(context.lab, context.caller, _path(run))
    small = [file for file in files if _can_send(file)][:MAX_OPTIONS]
    menu = select("file", press.run_id, _("Send a file"), [option(file.path, file.path) for file in small])
    return Answer(files_answer(run.record, files), view=button_row(menu))


def _path(run: Run) -> ArtifactPath:
    return ArtifactPath(kind="models", item_id=run.record.run_id)


def _can_send(file: FileRecord) -> bool:
    return file.bytes <= MAX_FILE_BYTES and len(file.path) <= MAX_OPTION_CHARACTERS


async def _file(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "export", press.run_id)
    folder, files = await artifact(context.lab, context.caller, _path(run))
    file = next((file for file in files if file.path == press.selected and _can_send(file)), None)
    if file is None:
        raise AppError(ErrorCode.NOT_FOUND, _("The run has no such file. Press **Files** again."))
    try:
        data = await asyncio.to_thread(read_regular, folder / file.path)
    except (OSError, BrokenFile):
        raise AppError(ErrorCode.NOT_FOUND, _("The file `{file}` is missing or damaged.", file=file.path)) from None
    name = f"{run.record.run_id}.{file.path.replace('/', '.')}"
    return Answer(file_answer(run.record, file), one_file(name, data))


async def _config(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "status", press.run_id)
    text = await context.lab.call(calls.GET_CONFIG, context.caller, RunPath(run_id=run.record.run_id))
    return Answer(config_answer(run.record, text), one_file(f"{run.record.run_id}.yaml", text.encode()))


async def _details(context: CommandContext, press: ButtonPress) -> Answer:
    """Answer with what the messages about a run leave out."""
    run = await find_run(context, "status", press.run_id)
    status = await context.lab.feeds.status(run.record.run_id)
    outcome = await asyncio.to_thread(read_outcome, run.directory)
    return Answer(details_answer(run.record, status, outcome))


async def _change_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    run = await find_run(context, "status", press.run_id)
    text = await asyncio.to_thread(_yaml_of_another, run.record)
    if len(text) > MAX_TEXT:
        message = _("The settings of this run are too long for a form. Use **Copy config** and `/mt train config:`.")
        raise AppError(ErrorCode.INVALID_INPUT, message)
    title = _("Train again: {name}", name=display_name(run.record))
    return form("change", press.run_id, title, Field("config", _("Experiment file (YAML)"), text))


async def _train_changed(context: CommandContext, press: ButtonPress) -> Answer:
    await find_run(context, "status", press.run_id)
    return await answer_accepted(context, lambda: accept_yaml(context, press.fields["config"], {}))


async def _retry(context: CommandContext, press: ButtonPress) -> Answer:
    """Start a new run with the request of an ended one; with half its batch in steps as large if memory ran out."""
    run = await find_run(context, "resume", press.run_id)
    status = (await context.lab.feeds.read(run.record.run_id)).follower.status
    if status.status not in ("failed", "cancelled"):
        raise AppError(ErrorCode.CONFLICT, _("Only a failed or cancelled run can be tried again."))
    batch = retry_batch(status)
    options: dict[str, object] = {}
    if batch is not None:
        of_step = run.record.effective.gradient_accumulation
        options = {"batch_size": batch, "gradient_accumulation": halved_batch(2 * batch, of_step)[1]}
    text = await asyncio.to_thread(_yaml_of_another, run.record)
    return await answer_accepted(context, lambda: accept_yaml(context, text, options))


async def _compare(context: CommandContext, press: ButtonPress) -> Answer:
    """Answer with a list of the completed runs to compare with."""
    run = await find_run(context, "compare", press.run_id)
    await context.lab.index.refresh()
    others = [one for one in fitting_runs(context, "compare") if one.run_id != press.run_id][:MAX_OPTIONS]
    if not others:
        raise AppError(ErrorCode.RUN_NOT_FOUND, _("There is no other completed run yet. Start one with `/mt train`."))
    options = [option(one.run_id, f"{STATE_SIGNS[one.state]} {one.name}", described(one)) for one in others]
    embed = make_embed(
        BLURPLE, f"⚖ {_('Compare {name}', name=shown_name(run.record))}", [_("Select the baseline.")], press.run_id
    )
    return Answer(embed, view=button_row(select("compareto", press.run_id, _("Baseline"), options)))


def _yaml_of_another(record: RunRecord) -> str:
    """Return the settings of a run without its label, which would then name two runs."""
    from trainer.config.experiment_file import experiment_yaml  # slow: not at the start

    return experiment_yaml(changed(record, effective=changed(record.effective, label=None)))


BUTTONS: Reactions = {
    "files": ButtonAnswer("export", _files),
    "file": ButtonAnswer("export", _file),
    "config": ButtonAnswer("status", _config),
    "details": ButtonAnswer("status", _details),
    "change": ButtonForm("status", _change_form),
    "retry": ButtonAnswer("resume", _retry),
    "compare": ButtonAnswer("status", _compare),
    "compareto": ButtonAnswer(
        "compare", lambda context, press: compare_runs(context, [press.run_id, press.selected or ""])
    ),
}
FORMS = {"change": ButtonAnswer("status", _train_changed)}
