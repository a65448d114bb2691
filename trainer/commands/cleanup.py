"""`mt gc`: the cleanup of an installation's folders."""

from rich.text import Text

from trainer.artifacts.cleanup import CleanupReport, clean_up
from trainer.artifacts.replication import stored_check
from trainer.commands.arguments import Commands, Options, flag
from trainer.commands.connection import settings_for
from trainer.commands.terminal import EXIT_FAILED, Terminal, columns
from trainer.contracts.wording import counted


class _CleanupOptions(Options):
    dry_run = flag("--dry-run", "only list what would be removed")


def add_to(commands: Commands) -> None:
    commands.add("gc", _CleanupOptions, _clean_up)


def _clean_up(options: _CleanupOptions, terminal: Terminal) -> int:
    settings = settings_for("model-trainer-cleanup")
    report = clean_up(settings, dry_run=options.dry_run, is_stored=stored_check(settings))
    rows = [(one.path, f"{one.bytes:,}", one.reason if one.error is None else one.error) for one in report.removals]
    parts = [columns([("path", "bytes", "reason"), *rows])] if rows else []
    terminal.show(report, *parts, Text(_summary(report)))
    return EXIT_FAILED if any(removal.error is not None for removal in report.removals) else 0


def _summary(report: CleanupReport) -> str:
    if not report.removals:
        return "There is nothing to remove."
    if report.dry_run:
        removable = sum(removal.bytes for removal in report.removals)
        return f"Nothing was removed. Without a dry run, {counted(removable, 'byte')} would be freed."
    return f"{counted(report.bytes_freed, 'byte')} in {counted(report.files_deleted, 'file')} removed."
