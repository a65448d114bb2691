"""`mt status`, `logs`, `cancel`, `delete`, `resume`, `config`, `files` and `verify`: commands on one run."""

import asyncio
from contextlib import aclosing, suppress

from rich.text import Text

from trainer.artifacts.replication import complete_run
from trainer.commands.arguments import (
    RUN_HELP,
    RUN_IDS,
    Argument,
    Commands,
    ModelOptions,
    Options,
    RunOptions,
    RunOrGroupOptions,
    flag,
    option,
)
from trainer.commands.connection import (
    Installation,
    accept,
    full_run_id,
    noting_wait,
    queued_run,
    run_or_group,
    settings_for_any,
    with_installation,
    with_services,
)
from trainer.commands.groups import follow_group_to_end, show_group
from trainer.commands.jobs import confirm_deletion
from trainer.commands.terminal import (
    EXIT_FAILED,
    Queued,
    Terminal,
    columns,
)
from trainer.commands.training import NO_PAUSE, follow_to_end, recovery_hint
from trainer.config.settings import Settings
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.groups import GroupStatus, finished_group_error
from trainer.contracts.operations import UNFINISHED_STATES
from trainer.contracts.parameters import GroupPath, ModelPath, RunPath
from trainer.contracts.runs import FINAL_STATES, AnnotationChange, RunStatus
from trainer.contracts.verification import Check, Verification
from trainer.contracts.wording import counted
from trainer.lab.calls import (
    ANNOTATE_RUN,
    CANCEL_GROUP,
    DELETE_RUN,
    GET_CONFIG,
    GET_FILES,
    GET_GROUP,
    GET_MANIFEST,
    GET_RUN,
    RESUME_RUN,
)
from trainer.lab.here import Here
from trainer.queue.resolve import resolve_origin
from trainer.reports.run_report import run_report
from trainer.system.logs import readable_line


class _ResumeOptions(RunOrGroupOptions):
    no_pause = flag("--no-pause", NO_PAUSE)


def _split(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


class _DeleteOptions(Options):
    runs = Argument[list[str]](
        "RUN",
        nargs="+",
        completion=RUN_IDS,
        help=RUN_HELP,
    )
    yes = flag("--yes", "do not ask for the names of the runs")


class _AnnotateOptions(RunOptions):
    label = option("--name NAME", str, "call the run so from now on")
    note = option("--note TEXT", str, "write this note; '' removes it")
    tags = option("--tags A,B", _split, "give these tags in place of the earlier ones; '' removes all")


class _LogsOptions(RunOptions):
    tail = option("--tail N", int, "show the last N lines; default: 200", 200)
    follow = flag("--follow", "keep printing new lines until the run ends")
    as_stored = flag("--json", "print the lines as stored, one JSON object each")


def add_to(commands: Commands) -> None:
    commands.add("status", RunOrGroupOptions, _status, with_unit=True)
    commands.add("annotate", _AnnotateOptions, _annotate, with_unit=True)
    commands.add("logs", _LogsOptions, _logs, with_json=False)
    commands.add("cancel", RunOrGroupOptions, _cancel)
    commands.add("delete", _DeleteOptions, _delete)
    commands.add("resume", _ResumeOptions, _resume, with_unit=True)
    commands.add("config", RunOptions, _config)
    commands.add("files", ModelOptions, _files)
    commands.add("verify", RunOptions, _verify)


def _status(options: RunOrGroupOptions, terminal: Terminal) -> int:
    async def show(installation: Installation) -> int:
        status = await run_or_group(installation, options.run)
        if isinstance(status, GroupStatus):
            show_group(status, terminal)
            return 0
        terminal.show_report(status, run_report(status), *map(Text, await recovery_hint(status, installation)))
        return 0

    return with_installation(settings_for_any(), show)


def _annotate(options: _AnnotateOptions, terminal: Terminal) -> int:
    path, change = RunPath(run_id=options.run), parse(AnnotationChange, options.given(AnnotationChange))
    status = with_installation(
        settings_for_any(), lambda installation: installation.call(ANNOTATE_RUN, path, body=change)
    )
    terminal.show_report(status, run_report(status))
    return 0


def _cancel(options: RunOrGroupOptions, terminal: Terminal) -> int:
    async def cancel(installation: Installation) -> int:
        found = await run_or_group(installation, options.run)
        if isinstance(found, RunStatus):
            status = await installation.cancel(options.run)
            terminal.show(status, Text(_cancelled(status)))
            return 0
        path = GroupPath(group_id=options.run)
        await installation.call(CANCEL_GROUP, path)
        group = await installation.call(GET_GROUP, path)
        had_ended = {run.run_id for run in found.of_state(*FINAL_STATES)}
        cancelled = group.of_state("cancelled", *UNFINISHED_STATES)
        stopped = [run for run in cancelled if run.run_id not in had_ended]
        if not stopped:  # the server answers a repeated request as the first one
            raise finished_group_error(options.run)
        terminal.show(group, Text("\n".join(map(_cancelled, stopped))))
        return 0

    return with_installation(settings_for_any(), cancel)


def _cancelled(status: RunStatus) -> str:
    return f"{status.run_id} {'is cancelled' if status.status == 'cancelled' else 'stops after its current step'}."


def _delete(options: _DeleteOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    run_ids = {full_run_id(given): given for given in options.runs}  # before `last` is another one
    for run_id, given in run_ids.items():
        _delete_run(run_id, given, settings, terminal, asks=not options.yes)
    terminal.show({"deleted": [*run_ids]})
    return 0


def _delete_run(run_id: str, given: str, settings: Settings, terminal: Terminal, *, asks: bool) -> None:
    """Delete a run, after its name was typed if `asks`; else it must be given by its name or its complete id."""
    path = RunPath(run_id=run_id)
    status = with_installation(settings, lambda installation: installation.call(GET_RUN, path))
    confirm_deletion(run_id, status.label or run_id, given, terminal, asks=asks)
    with_installation(settings, lambda installation: installation.call(DELETE_RUN, path))
    terminal.note(f"{run_id} is deleted.")


def _resume(options: _ResumeOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    found = with_installation(settings, lambda installation: _checked(installation, options.run))
    terminal.pauses = not options.no_pause

    async def resume(installation: Installation) -> int:
        if isinstance(found, GroupStatus):
            resumed = [await _resumed(one, installation, terminal) for one in _resumable(found)]
            terminal.queued = Queued(found.group_id, found.label, [*resumed])
            return await follow_group_to_end(found.group_id, terminal, installation)
        if isinstance(installation, Here) and installation.runs.get(found.run_id).record().experiment_id is not None:
            terminal.pauses = False  # an experiment waits for its runs
        return await follow_to_end(await _resumed(found, installation, terminal), terminal, installation)

    return with_services(settings, terminal, resume)


async def _checked(installation: Installation, name: str) -> RunStatus | GroupStatus:
    """Return a run or a group to resume; raises an error for an ended run of this machine that cannot be resumed."""
    found = await run_or_group(installation, name)
    if isinstance(found, RunStatus) and found.has_ended and isinstance(installation, Here):
        run = await asyncio.to_thread(complete_run, installation.settings, name)
        await resolve_origin(run, installation.lab.stores.corpora, installation.settings)
    return found


async def _resumed(status: RunStatus, installation: Installation, terminal: Terminal) -> str:
    """Resume a run unless it is queued or running; return the id of the run to follow."""
    if not status.has_ended and status.status != "paused":
        terminal.queued = Queued(status.run_id, status.label, [status.run_id])
        return status.run_id
    resuming = installation.call(RESUME_RUN, RunPath(run_id=status.run_id))
    return (await accept(resuming, lambda accepted: queued_run(accepted, status.label), terminal)).run_id


def _resumable(group: GroupStatus) -> tuple[RunStatus, ...]:
    """Return the runs of a group that are paused, or that have ended without a model but with a checkpoint."""
    ended = [one for one in group.of_state("failed", "cancelled") if one.last_checkpoint_step is not None]
    return (*group.of_state("paused"), *ended)


def _logs(options: _LogsOptions, terminal: Terminal) -> int:
    if options.tail < 0:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--tail` must be at least 0, you gave {options.tail}.")

    def show(line: str) -> None:
        terminal.line(line if options.as_stored else readable_line(line))

    async def follow(installation: Installation) -> int:
        path = RunPath(run_id=options.run)
        if (await installation.call(GET_RUN, path)).started_at is None:
            terminal.note("The run has no log yet: its training has not started.")
        async with aclosing(installation.log_lines(options.run, options.tail, follow=options.follow)) as lines:
            async for line in lines:
                show(line)
        last_lines: tuple[str, ...] = ()
        with suppress(AppError):  # a run that has not ended
            last_lines = () if options.as_stored else (await installation.call(GET_MANIFEST, path)).last_lines
        if last_lines:
            terminal.line("The last lines of its error output:")
            for line in last_lines:
                show(line.rstrip("\n"))
        return 0

    return with_installation(settings_for_any(), follow)


def _config(options: RunOptions, terminal: Terminal) -> int:
    path = RunPath(run_id=options.run)
    text = with_installation(settings_for_any(), lambda installation: installation.call(GET_CONFIG, path))
    if options.json:
        terminal.show({"yaml": text})
    else:
        terminal.line(text.rstrip())
    return 0


def _files(options: ModelOptions, terminal: Terminal) -> int:
    path = ModelPath(run_id=options.run)
    found = with_installation(settings_for_any(), lambda installation: installation.call(GET_FILES, path))
    rows = [
        (file.path, f"{file.bytes:,}", "" if file.step is None else str(file.step), file.sha256 or "")
        for file in found.files
    ]
    sizes = [f"{counted(found.disk_bytes, 'byte')} on disk"]
    if found.result_bytes is not None:
        sizes.append(f"{counted(found.result_bytes, 'byte')} in the result (manifest.json and the files that it names)")
    tables = [columns([("file", "bytes", "step", "sha256"), *rows])]
    if found.kept:
        kept = [
            (str(one.step), *map(_number, (one.words, one.tokens, one.epoch, one.bytes)), one.sha256 or "")
            for one in found.kept
        ]
        tables.append(columns([("kept at step", "words", "tokens", "epoch", "bytes", "sha256 of its weights"), *kept]))
        size = sum(one.bytes for one in found.kept)
        sizes.append(f"{counted(size, 'byte')} in {counted(len(kept), 'kept checkpoint')}")
    terminal.show(found, *tables, Text(", ".join(sizes) + "."))
    return 0


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _verify(options: RunOptions, terminal: Terminal) -> int:
    settings = settings_for_any()

    async def verify(installation: Installation) -> Verification:
        if isinstance(installation, Here):
            from trainer.export.verification import verify_run  # torch, for the model

            run = await asyncio.to_thread(complete_run, settings, options.run)
            return await asyncio.to_thread(verify_run, run, settings)
        async with noting_wait(installation, terminal):
            return await installation.verification(options.run)

    report = with_installation(settings, verify)
    rows = [(_verdict(check), check.name, check.message) for check in report.checks]
    verdict = "Everything is as recorded." if report.ok else "Some checks failed: see WRONG above."
    if report.ok and any(check.is_skipped for check in report.checks):
        verdict = "Everything that was checked is as recorded."
    terminal.show(report, columns(rows), Text(verdict))
    return 0 if report.ok else EXIT_FAILED


def _verdict(check: Check) -> str:
    return "skipped" if check.is_skipped else "ok" if check.ok else "WRONG"
