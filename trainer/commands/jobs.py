"""`mt job`, and the same commands for tokenizers, batteries and experiments: what every kind of job has."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, TypeAdapter
from rich.text import Text

from trainer.artifacts.job_folder import REPORT_FILE
from trainer.commands.arguments import Argument, Commands, Options, flag
from trainer.commands.connection import Installation, noting_wait, settings_for_any, with_installation
from trainer.commands.listing import unreadable_lines
from trainer.commands.terminal import Listing, Terminal, exit_code, summary
from trainer.config.validation import safe_name
from trainer.contracts.base import KindName
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.job_status import JobPage, JobStatus, SteppedStatus
from trainer.contracts.operations import COMMANDS, JOB_ROWS, OPERATIONS
from trainer.contracts.parameters import Query
from trainer.contracts.reports import Report
from trainer.contracts.wording import counted, duration, local_time
from trainer.lab.calls import JOB_CALLS, JobCalls
from trainer.lab.here import Here
from trainer.lab.waits import all_pages

JobCommand: TypeAlias = Callable[[str, Installation, Terminal], Awaitable[int]]
"""A command on the job of an id, which returns the exit code."""
StatusT = TypeVar("StatusT", bound=JobStatus)
ShowStatus: TypeAlias = Callable[[str, StatusT, Installation, Terminal], Awaitable[None]]
"""Shows the status of the job of an id."""
_KINDS: Sequence[KindName] = [row.kind for row in JOB_ROWS.values() if f"{row.word} list" not in COMMANDS]
_STDIN = 0
_mapping: TypeAdapter[Mapping[str, object]] = TypeAdapter(Mapping[str, object])
_sequence: TypeAdapter[Sequence[object]] = TypeAdapter(Sequence[object])


class _KindOptions(Options):
    kind = Argument[KindName]("KIND", choices=_KINDS, help=f"kind of jobs: {', '.join(_KINDS)}")


class _JobOptions(_KindOptions):
    job = Argument[str]("ID", help="id of the job, its beginning, its name, or `last` for the newest one")


class _DeleteOptions(_JobOptions):
    yes = flag("--yes", "do not ask for the id of the job")


class _ExportOptions(_JobOptions):
    folder = Argument[Path]("FOLDER", type=Path, help="new or empty folder for the files")


def add_to(commands: Commands) -> None:
    add_jobs(commands.group("job", "list, show and end readings, exports, verifications and builds of corpora"))


class JobView(NamedTuple, Generic[StatusT]):
    """The view of the jobs of a kind in the terminal."""

    kind: KindName
    calls: JobCalls[Query, JobPage, StatusT]
    show: ShowStatus[StatusT]
    """Shows a status, or the results of a job that has completed."""
    note: ShowStatus[StatusT]
    """Notes the progress of a job that is followed."""

    async def show_job(self, job_id: str, installation: Installation, terminal: Terminal) -> int:
        """Show the status or the results of a job."""
        status = await installation.call(self.calls.get, self.calls.named(job_id))
        _note_wait(status, terminal)
        await self.show(job_id, status, installation, terminal)
        return 0

    async def follow(self, job_id: str, installation: Installation, terminal: Terminal) -> int:
        """Follow a job to its end and show its results; return the exit code."""
        following = installation.follow(self.calls.get, self.calls.named(job_id))
        async with noting_wait(installation, terminal), aclosing(following) as statuses:
            async for status in statuses:
                _note_wait(status, terminal)
                await self.note(job_id, status, installation, terminal)
        await self.show(job_id, status, installation, terminal)
        return exit_code(status)


def _note_wait(status: JobStatus, terminal: Terminal) -> None:
    if status.wait_message is not None:
        terminal.note_once(f"mt: {status.wait_message}")


def add_jobs(group: Commands, view: JobView[StatusT] | None = None, *, with_unit: bool = False) -> None:
    """Add the commands on the jobs of a kind to its group; without a view, they take the kind as an argument."""
    fixed: Mapping[str, object] = {} if view is None else {"kind": view.kind}

    def run_show(options: _JobOptions, terminal: Terminal) -> int:
        return _on_job(options, terminal, (view or plain_view(options.kind)).show_job)

    def run_wait(options: _JobOptions, terminal: Terminal) -> int:
        terminal.continues_when_repeated = True
        return _on_job(options, terminal, (view or plain_view(options.kind)).follow)

    group.add("list", _KindOptions, _list, fixed=fixed)
    group.add("show", _JobOptions, run_show, fixed=fixed, with_unit=with_unit)
    group.add("wait", _JobOptions, run_wait, fixed=fixed, with_unit=with_unit)
    group.add("cancel", _JobOptions, _cancel, fixed=fixed)
    group.add("delete", _DeleteOptions, _delete, fixed=fixed)
    group.add("export", _ExportOptions, _export, fixed=fixed)


def _on_job(options: _JobOptions, terminal: Terminal, command: JobCommand) -> int:
    """Run a command on the job that a name is meant for."""

    async def run(installation: Installation) -> int:
        return await command(await installation.job_id(options.kind, options.job), installation, terminal)

    return with_installation(settings_for_any(), run)


def _list(options: _KindOptions, terminal: Terminal) -> int:
    row, calls = JOB_ROWS[options.kind], JOB_CALLS[options.kind]

    async def read(installation: Installation) -> JobPage:
        return await all_pages(lambda query: installation.call(calls.list, query=query))

    page = with_installation(settings_for_any(), read)
    rows = [[_text(fields.get(field)) for _, field in row.columns] for fields in map(_fields, page.jobs)]
    starts = (one.terminal for one in OPERATIONS if one.terminal and one.follows == calls.get.operation.name)
    start = next((f" Start one with: {one.example}" for one in starts if one.module == row.kind), "")
    parts: list[Listing | Text] = [*unreadable_lines(page.unreadable, row.word, row.words)]
    if rows or not parts:
        titles = [title for title, _ in row.columns]
        parts.insert(0, Listing([titles, *rows]) if rows else Text(f"No {row.words} yet.{start}"))
    terminal.show(page, *parts)
    return 0


def plain_view(kind: KindName) -> JobView[JobStatus]:
    """Return the view of a kind of jobs whose statuses are shown as they are, and at their end the report."""
    calls = JOB_CALLS[kind]

    async def show(job_id: str, status: JobStatus, installation: Installation, terminal: Terminal) -> None:
        if status.status != "completed" or calls.result is None:
            _show_status(job_id, status, terminal)
            return
        seconds = _fields(status).get("elapsed_seconds")
        took = duration(seconds) if isinstance(seconds, float) else ""
        await show_results(kind, job_id, calls.result, took, installation, terminal)

    async def note(job_id: str, status: JobStatus, installation: Installation, terminal: Terminal) -> None:
        if isinstance(status, SteppedStatus):
            terminal.progress_of(f"{JOB_ROWS[kind].word} {job_id}", job_id, status.percent, status.message)
        else:
            terminal.note_once(f"{job_id}: {status.status}")

    return JobView(kind, calls, show, note)


async def show_results(
    kind: KindName, job_id: str, record: type[BaseModel], took: str, installation: Installation, terminal: Terminal
) -> None:
    """Show the results and the report of a completed job, how long it took, and where its files are."""
    result = await installation.read(kind, job_id, "result.json", record)
    report = await installation.read(kind, job_id, REPORT_FILE, Report)
    where = report_places("report", installation, kind, job_id)
    terminal.show_report(result, report, Text(f"\n{took}\n{where}"))


def _show_status(job_id: str, status: JobStatus, terminal: Terminal) -> None:
    """Show all that a status has."""
    fields = {name: value for name, value in _fields(status).items() if value != job_id and name != "wait_message"}
    rows = {name.replace("_", " "): _text(value) or None for name, value in fields.items()}
    terminal.show(status, summary(f"{job_id}: {status.status}", rows))


def _fields(status: JobStatus) -> Mapping[str, object]:
    fields: dict[str, object] = status.model_dump()
    return fields


def _text(value: object) -> str:
    """Return a value of a status for people: names and numbers of records within it, a line for each in a list."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return local_time(value)
        case dict():
            fields = _mapping.validate_python(value)
            return ", ".join(f"{name} {text}" for name, each in fields.items() if (text := _text(each)))
        case list() | tuple():
            parts = _sequence.validate_python(value)
            return ("\n" if any(isinstance(part, dict) for part in parts) else ", ").join(map(_text, parts))
        case _:
            return str(value)


def _cancel(options: _JobOptions, terminal: Terminal) -> int:
    calls = JOB_CALLS[options.kind]

    async def cancel(job_id: str, installation: Installation, terminal: Terminal) -> int:
        status = await installation.call(calls.cancel, calls.named(job_id))
        terminal.show(status, Text(f"{job_id}: {status.status}. What it has stored stays."))
        return 0

    return _on_job(options, terminal, cancel)


def _delete(options: _DeleteOptions, terminal: Terminal) -> int:
    kind, calls = options.kind, JOB_CALLS[options.kind]
    job_id = with_installation(settings_for_any(), lambda installation: installation.job_id(kind, options.job))
    confirm_deletion(job_id, job_id, options.job, terminal, asks=not options.yes)
    path = calls.named(job_id)
    with_installation(settings_for_any(), lambda installation: installation.call(calls.delete, path))
    terminal.note(f"{job_id} is deleted.")
    terminal.show({"deleted": [job_id]})
    return 0


def confirm_deletion(full_id: str, name: str, given: str, terminal: Terminal, *, asks: bool) -> None:
    """Raise INVALID_INPUT unless a person types the name of what is to be deleted, or has given it if not `asks`."""
    if not asks and given not in (name, full_id):
        expected = "this id" if name == full_id else "this id or the name of the run"
        message = f"'{safe_name(given)}' names {full_id}. With `--yes`, give {expected}."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    if asks:
        terminal.note(f"Type the name of {full_id} to delete it with all its files: {name}")
        with open(_STDIN, encoding="utf-8", errors="replace", closefd=False) as typed:
            answer = typed.readline().strip()
        if answer not in (name, full_id):
            message = f"The name does not match, so {full_id} was not deleted. `--yes` deletes without a question."
            raise AppError(ErrorCode.INVALID_INPUT, message)


def _export(options: _ExportOptions, terminal: Terminal) -> int:
    """Copy the files of a job to a new or empty folder and say so; raises CONFLICT for another folder."""
    kind, folder = options.kind, options.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        shown = safe_name(folder.name)
        raise AppError(ErrorCode.CONFLICT, f"'{shown}' exists and is not an empty folder: give another name.")

    async def export(job_id: str, installation: Installation, terminal: Terminal) -> int:
        files = await installation.download(kind, job_id, folder)
        exported: dict[str, object] = {JOB_ROWS[kind].id_field: job_id, "files": [file.path for file in files]}
        terminal.show(exported, Text(f"{job_id} is in {folder} ({counted(len(files), 'file')})."))
        return 0

    return _on_job(options, terminal, export)


def report_places(name: str, installation: Installation, kind: KindName, job_id: str) -> str:
    """Return a line that says where the page of a report is, unless it is on a server, and how to copy its files."""
    own = f"{JOB_ROWS[kind].word} export"
    where = f"mt {own if own in COMMANDS else f'job export {kind}'} {job_id} FOLDER"
    if not isinstance(installation, Here):
        return where
    return f"{name}: {installation.folder(kind, job_id) / 'report.html'}   ·   {where}"
