"""Jobs of every kind but runs: list, show, watch, cancel, delete and export them, by commands and by buttons."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import discord
from discord import app_commands

from bot.commands.pages import PagedList, unfiltered_list
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import (
    Suggest,
    Suggestion,
    autocomplete,
    corpus_name,
    shown_as_typed,
    suggested_trained_tokenizers,
)
from bot.messages.buttons import ButtonPress, button, button_row
from bot.messages.files import one_file
from bot.messages.job_cards import (
    AGAIN,
    SURE,
    job_card,
    job_id_of,
    job_select,
    jobs_page,
)
from bot.messages.report_card import table_card
from bot.messages.text import GREEN, GREY, MAX_FILE_BYTES, byte_size, count, make_embed, plain
from bot.notifications.job_subjects import job_message
from bot.session.client import Bot
from trainer.artifacts.job_folder import skipping_unreadable
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.validation import parse
from trainer.contracts.base import FileRecord, KindName
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.job_status import JobStatus
from trainer.contracts.operations import BY_NAME, JOB_ROWS, JobRow
from trainer.contracts.parameters import ArtifactPath
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.artifacts import find_file
from trainer.lab.calls import JOB_CALLS, LIST_FILES
from trainer.lab.language import _
from trainer.lab.permissions import typed_command
from trainer.lab.waits import all_pages

_LEFT_OUT = {".jsonl"}
"""Suffixes of raw data, which an archive for Discord has not."""
_BY_WORD: Mapping[str, JobRow] = {row.word: row for row in JOB_ROWS.values()}
_FILES: Mapping[str, tuple[KindName, str, str]] = {
    "batpage": ("batteries", "mt-battery show", "report.html"),
    "batcsv": ("batteries", "mt-battery show", "accuracy.csv"),
    "batcurves": ("batteries", "mt-battery show", "development.csv"),
    "battex": ("batteries", "mt-battery show", "table.tex"),
    "readpage": ("readings", "mt-reading show", "report.html"),
    "expcsv": ("experiments", "mt-experiment export", "matrix.csv"),
    "exptex": ("experiments", "mt-experiment export", "table.tex"),
}
"""The buttons that send one file of the results: the kind of the job, the command with its rights, and the file."""


def job_group(kind: KindName, description: str) -> app_commands.Group:
    """Return the group of commands on jobs of a kind, which stands beside `/mt`, where Discord takes 25 commands."""
    return app_commands.Group(
        name=JOB_ROWS[kind].chat,
        description=description,
        allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
    )


def add_commands(group: app_commands.Group, kind: KindName, **descriptions: str) -> None:
    """Add commands on jobs of a kind to a group: list, show or cancel, with their descriptions."""
    row = JOB_ROWS[kind]
    for action, description in descriptions.items():
        if action == "list":
            _add_list(group, row, description)
        else:
            _add_one(group, row, action, description)


def _add_list(group: app_commands.Group, row: JobRow, description: str) -> None:
    @group.command(name="list", description=description)
    async def list_command(interaction: discord.Interaction[Bot]) -> None:
        await respond(interaction, row.chat_command("list"), lambda context: list_jobs(context, row, 0))


def _add_one(group: app_commands.Group, row: JobRow, action: str, description: str) -> None:
    work = {"show": show_job, "cancel": _cancel, "export": files_of}[action]

    @group.command(name=action, description=description)
    @app_commands.rename(job=row.word)
    @app_commands.describe(job=f"Id of the {row.word}")
    @app_commands.autocomplete(job=suggested(row))
    async def command(interaction: discord.Interaction[Bot], job: str) -> None:
        await respond(interaction, row.chat_command(action), lambda context: work(context, row, job))


def suggested(row: JobRow) -> Suggest:
    """Suggest the jobs of a kind that the index has in memory, and that the person may see."""
    if row.kind == "tokenizers":
        return suggested_trained_tokenizers

    def suggestions(context: CommandContext, typed: str) -> Iterator[Suggestion]:
        if row.kind == "experiments":
            try:
                context.lab.permissions.check_experiments(context.caller)
            except AppError:
                return
        ids: Sequence[str] = getattr(context.lab.index, row.kind)
        store, is_seen = context.lab.store(row), context.lab.seen_jobs(context.caller, row)
        for found in shown_as_typed(typed, ids):
            with skipping_unreadable(job := store.directory(found[0])):
                if is_seen(job):
                    yield found

    return autocomplete(suggestions)


async def list_jobs(context: CommandContext, row: JobRow, number: int) -> Answer:
    """Show a page of the jobs of a kind, from 0, and a list to select one."""
    call, caller = JOB_CALLS[row.kind].list, context.caller
    found = await all_pages(lambda query: context.lab.call(call, caller, query=query))
    jobs = found.jobs
    page = _LISTS[row.kind].page_of(jobs, number)
    if page.items:
        page.buttons.add_item(job_select(row, page.items))
    hidden, total = found.unreadable if number == 0 else (), len(jobs) + len(found.unreadable)
    return Answer(jobs_page(row, page.items, total=total, page=page.title, unreadable=hidden), view=page.buttons)


async def show_job(context: CommandContext, row: JobRow, given: str) -> Answer:
    """Show the card of a job, of a completed one with its results."""
    return await _shown(context, row, await _status(context, row, given))


async def _status(context: CommandContext, row: JobRow, given: str) -> JobStatus:
    calls = JOB_CALLS[row.kind]
    return await context.lab.call(calls.get, context.caller, calls.named(given.strip()))


async def watch_job(context: CommandContext, row: JobRow, given: str, command: str = "") -> Answer:
    """Show a job and, unless it has completed, send the caller a card of it with its progress.

    Without direct messages, `command` shows the progress.
    """
    bot, caller, place = context
    status = await _status(context, row, given)
    answer = await _shown(context, row, status)
    if status.status == "completed":
        return answer
    watcher = await bot.notifier.watch(job_id_of(row, status), caller.user_id, None, place.for_mentions)
    note = _("A card in your direct messages shows the progress.")
    if watcher.closed_place is not None:
        note = _(
            "This bot cannot send you direct messages. Use `{command}`, or allow direct messages.",
            command=typed_command(command or row.chat_command("show")),
        )
    notes = [note]
    absence = await bot.lab.queue.workers.absence()
    if absence is not None and status.wait_message is None:
        notes.append(f"⚠ {_(WAIT_MESSAGES[absence])}")
    answer.embed.description = "\n".join([answer.embed.description or "", *notes])
    return answer


async def files_of(context: CommandContext, row: JobRow, given: str) -> Answer:
    """Send the result files of a job as an archive; raises PAYLOAD_TOO_LARGE if Discord does not take it."""
    folder, files = await _files(context, row, given)
    names = [file.path for file in files]
    data = await asyncio.to_thread(_zipped, folder, [name for name in names if Path(name).suffix not in _LEFT_OUT])
    if len(data) > MAX_FILE_BYTES:
        message = _("The report is larger than Discord accepts. Use the buttons below the results for its tables.")
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    lines = [f"{count(len(names), 'file')}, {byte_size(len(data))}."]
    if "report.html" in names:
        lines[0] += f" {_('`report.html` has all tables and figures.')}"
    embed = make_embed(GREEN, f"📦 {_('Files: {name}', name=plain(folder.name))}", lines, folder.name)
    return Answer(embed, one_file(f"{folder.name}.zip", data))


async def _file(context: CommandContext, press: ButtonPress) -> Answer:
    """Send one file of the results of a job."""
    kind, _command, name = _FILES[press.action]
    folder, files = await _files(context, JOB_ROWS[kind], press.run_id)
    data: bytes = await asyncio.to_thread((folder / find_file(files, name).path).read_bytes)
    embed = make_embed(GREEN, f"📄 {name}", [byte_size(len(data))], folder.name)
    return Answer(embed, one_file(f"{folder.name}-{name}", data))


async def _shown(context: CommandContext, row: JobRow, status: JobStatus) -> Answer:
    lab = context.lab
    job = lab.store(row).get(job_id_of(row, status))
    may_delete = lab.permissions.permits(row.ends, context.caller, await asyncio.to_thread(job.record))
    embed, files, buttons = await job_message(row, job, status, context.bot.charts, may_delete=may_delete)
    if isinstance(job, TokenizerDirectory):
        names = await asyncio.to_thread(_corpora_of, job)
        embed = job_card(row, status, corpora=[corpus_name(context, name) for name in names])
    return Answer(embed, files, buttons)


async def _table(context: CommandContext, press: ButtonPress) -> Answer:
    """Show a table of the report of a job."""
    row = _BY_WORD[press.detail or ""]
    status = await _status(context, row, press.run_id)
    report = await asyncio.to_thread(context.lab.store(row).get(job_id_of(row, status)).report)
    if report is None:
        return await show_job(context, row, press.run_id)
    return Answer(table_card(report, int(press.selected or 0), press.run_id))


def _corpora_of(tokenizer: TokenizerDirectory) -> list[str]:
    """Return the names of the corpora: of the request, or of a tokenizer that a run has trained."""
    has_completed = tokenizer.status().status == "completed"
    corpora = tokenizer.completed_manifest().corpus if has_completed else tokenizer.record().corpora
    return [corpus.name for corpus in corpora]


async def _cancel(context: CommandContext, row: JobRow, given: str) -> Answer:
    calls = JOB_CALLS[row.kind]
    return await _shown(context, row, await context.lab.call(calls.cancel, context.caller, calls.named(given.strip())))


async def _delete(context: CommandContext, row: JobRow, press: ButtonPress) -> Answer:
    """Delete a job once its deletion is confirmed."""
    job_id = press.run_id
    if press.detail != SURE:
        sure = button(press.action, job_id, _("Delete it"), style=discord.ButtonStyle.danger, detail=SURE)
        lines = [_("Its files are deleted, too. Nobody can restore them.")]
        return Answer(make_embed(GREY, f"🗑 {_('Delete {name}?', name=job_id)}", lines, job_id), view=button_row(sure))
    calls = JOB_CALLS[row.kind]
    await context.lab.call(calls.delete, context.caller, calls.named(job_id))
    await context.lab.index.refresh()
    return Answer(make_embed(GREY, f"🗑 {_('Deleted: {name}', name=job_id)}", [], job_id), view=button_row())


async def _files(context: CommandContext, row: JobRow, given: str) -> tuple[Path, Sequence[FileRecord]]:
    """Return the folder of a job and its result files that are for the caller; raises CONFLICT before its end."""
    named = parse(ArtifactPath, {"kind": row.kind, "item_id": given.strip()})
    found = await context.lab.call(LIST_FILES, context.caller, named)
    return context.lab.store(row).get(found.id).path, found.files


def _zipped(folder: Path, names: Sequence[str]) -> bytes:
    data = BytesIO()
    with ZipFile(data, "w", ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, name)
    return data.getvalue()


def _command(name: str) -> str:
    """Return the command of an operation; without one, its name."""
    operation = BY_NAME[name]
    return name if operation.chat is None else operation.chat.command


def _list_of(row: JobRow) -> PagedList:
    action = f"list_{row.words}"
    return unfiltered_list(action, _command(action), lambda context, number: list_jobs(context, row, number))


def _reactions(row: JobRow) -> Reactions:
    """Return the reactions to the buttons of a kind, which are named after its operations."""
    get, cancel, delete = (f"{action}_{row.word}" for action in ("get", "cancel", "delete"))
    return {
        **_LISTS[row.kind].button_reactions,
        get: ButtonAnswer(
            _command(get),
            lambda context, press: show_job(context, row, press.run_id),
            lambda press: press.detail == AGAIN,
        ),
        cancel: ButtonAnswer(_command(cancel), lambda context, press: _cancel(context, row, press.run_id)),
        delete: ButtonAnswer(
            delete, lambda context, press: _delete(context, row, press), lambda press: press.detail == SURE
        ),
    }


_LISTS: Mapping[KindName, PagedList] = {kind: _list_of(row) for kind, row in JOB_ROWS.items()}
BUTTONS: Reactions = {
    **{action: reaction for row in JOB_ROWS.values() for action, reaction in _reactions(row).items()},
    **{action: ButtonAnswer(command, _file) for action, (_kind, command, _name) in _FILES.items()},
    "jobwatch": ButtonAnswer(
        "watch", lambda context, press: watch_job(context, _BY_WORD[press.detail or ""], press.run_id)
    ),
    "jobtable": ButtonAnswer("status", _table),
    "jobfiles": ButtonAnswer(
        "status", lambda context, press: files_of(context, _BY_WORD[press.detail or ""], press.run_id)
    ),
}
FORMS: Reactions = {action: reaction for one in _LISTS.values() for action, reaction in one.form_reactions.items()}
