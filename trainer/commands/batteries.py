"""`mt battery` and `mt develop`: what runs know by the items of batteries, also over their checkpoints."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.artifacts.replication import complete_run, full_run_id
from trainer.artifacts.runs import RunStore
from trainer.batteries.reading import Battery, read_battery
from trainer.batteries.sources import HUB_BATTERIES, find_battery
from trainer.commands.arguments import RUN_IDS, Argument, Commands, Options, flag, option, repeatable
from trainer.commands.connection import local_run_id, settings_for, with_queue
from trainer.commands.copies import export_files
from trainer.commands.terminal import Terminal, columns, duration, local_time
from trainer.commands.this_machine import running_queue
from trainer.commands.training import exit_code
from trainer.config.settings import Settings
from trainer.config.validation import parse, safe_name
from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    MEASURES,
    BatteryItem,
    BatteryList,
    BatteryOptions,
    BatteryRecord,
    BatteryStatus,
    BatterySummary,
    Measure,
)
from trainer.contracts.development import Development
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted
from trainer.reports.battery_tables import accuracy_rows, comparison_rows, effect_rows, notes, run_titles, seed_rows
from trainer.reports.development_tables import age_rows, by_age, curve_rows, spread
from trainer.reports.development_tables import notes as development_notes

if TYPE_CHECKING:
    from trainer.queue.queue import JobQueue

_FOLLOW_SECONDS = 0.5
_SHOWN_WORDS = 12


class _ItemOptions(Options):
    """Options for reading and scoring items."""

    measure = Argument[Measure](
        "--measure",
        choices=MEASURES,
        default="sum",
        help="compare runs by the sum of log-probabilities, or per token, char or byte; default: sum",
    )
    column = repeatable("--column KNOWN=NAME", "the name of a column in your table: `--column good=grammatical`")
    formula = repeatable("--formula F", "what should hold for each item of a table of regions: `(2;%%a%%) > (2;%%b%%)`")
    pll_within_word = flag("--pll-within-word", "masked models: hide the rest of a token's word too")

    def options(self, **more: object) -> BatteryOptions:
        """Return the options of a request; raises INVALID_INPUT."""
        columns: dict[str, str] = {}
        for given in self.column:
            known, equals, name = given.partition("=")
            if not equals:
                message = f"`--column {safe_name(given)}` must have the form KNOWN=NAME, such as good=grammatical."
                raise AppError(ErrorCode.INVALID_INPUT, message)
            columns[known] = name
        fields: dict[str, object] = {
            "columns": columns,
            "formulas": self.formula,
            "measure": self.measure,
            "pll_within_word": self.pll_within_word,
        }
        return parse(BatteryOptions, fields | more)


class _RunOptions(_ItemOptions):
    names = Argument[list[str]](
        "RUN_OR_BATTERY",
        nargs="+",
        help=f"runs or RUN@1200, then files or folders of items, or names: {', '.join(HUB_BATTERIES)}, blimp:passive_1",
    )
    no_controls = flag("--no-controls", "leave out the untrained model, the exchange and the leaks")


class _DevelopOptions(_ItemOptions):
    run = Argument[str]("RUN", type=local_run_id, completion=RUN_IDS, help="run that has kept checkpoints")
    battery = repeatable("--battery NAME", "score the items of a battery: a file, a folder, or a name such as blimp")
    split = option("--eval SPLIT", str, "measure the loss on this split: validation or test")
    words = flag("--words", "measure the ages at which words are acquired, of the most frequent ones")
    word = repeatable("--word WORD", "measure the age of this word, and not those of the most frequent ones")
    follow = flag("--follow", "wait for the checkpoints of a run that trains, and measure each at once")


class _ShowOptions(Options):
    battery = Argument[str]("ID", help="battery id, as `mt battery list` shows it")


class _ExportOptions(_ShowOptions):
    folder = Argument[Path]("FOLDER", type=Path, help="new or empty folder for the files")


class _RecomputeOptions(Options):
    folder = Argument[Path]("FOLDER", type=Path, help="the exported folder of a battery")


def add_to(commands: Commands) -> None:
    battery = commands.group("battery", "test what runs know by batteries of items")
    commands.add("develop", _DevelopOptions, _develop)
    battery.add("run", _RunOptions, _run)
    battery.add("show", _ShowOptions, _show)
    battery.add("list", Options, _list)
    battery.add("cancel", _ShowOptions, _cancel)
    battery.add("export", _ExportOptions, _export)
    battery.add("recompute", _RecomputeOptions, _recompute)


def _run(options: _RunOptions, terminal: Terminal) -> int:
    settings = settings_for()
    return _score(*_read(options, settings), settings, terminal)


def _develop(options: _DevelopOptions, terminal: Terminal) -> int:
    from trainer.queue.batteries import new_job  # redis

    settings = settings_for()
    has_words = options.words or bool(options.word)
    fields: dict[str, object] = {
        "has_loss": options.split is not None or not (options.battery or has_words),
        "has_words": has_words,
        "words": options.word,
        "follows": options.follow,
    }
    fields |= {} if options.split is None else {"split": options.split}
    chosen = options.options(development=fields)
    batteries = [_named_battery(name, chosen, settings) for name in options.battery]
    complete_run(settings, options.run)
    record, items = new_job(chosen, [options.run], batteries, RunStore(settings.app.artifacts_root))
    return _score(record, items, settings, terminal)


def _score(record: BatteryRecord, items: tuple[BatteryItem, ...], settings: Settings, terminal: Terminal) -> int:
    """Accept a job and follow it to its end, or show the results of an equal one."""
    known = BatteryStore(settings.app.artifacts_root).find(record.battery_id)
    if known is not None and known.has_completed() and not known.is_outdated(record):
        _show_status(known, terminal)
        return 0
    terminal.continues_when_repeated = True

    async def run(queue: "JobQueue") -> int:
        accepted = await queue.batteries.accept(record, items)
        return await _follow_to_end(queue.batteries.stored.get(accepted.battery_id), terminal)

    return with_queue(settings, terminal, run)


def _read(options: _RunOptions, settings: Settings) -> tuple[BatteryRecord, tuple[BatteryItem, ...]]:
    """Read and check runs and batteries; raises AppError, having changed nothing."""
    from trainer.queue.batteries import new_job  # redis

    chosen = options.options(has_controls=not options.no_controls)
    batteries: list[Battery] = []
    models: list[str] = []
    for name in options.names:
        found = _battery(name, chosen, settings)
        if found is not None:
            batteries.append(found)
        else:
            model = _model(name, settings)
            models += [] if model in models else [model]
    if not models or not batteries:
        what = "a RUN" if not models else "a BATTERY: a file, a folder, or a name such as blimp"
        raise AppError(ErrorCode.INVALID_INPUT, f"Give {what}. See `mt battery run --help`.")
    return new_job(chosen, models, batteries, RunStore(settings.app.artifacts_root))


def _named_battery(name: str, options: BatteryOptions, settings: Settings) -> Battery:
    """Return the battery of a path or a name; raises DATA_NOT_FOUND."""
    return _battery(name, options, settings) or find_battery(name, options, settings)


def _battery(name: str, options: BatteryOptions, settings: Settings) -> Battery | None:
    """Return the battery of a path or a name; None for what may be a run."""
    path = Path(name)
    if path.exists():
        return read_battery(path, options)
    base = name.partition(":")[0]
    is_named = base in HUB_BATTERIES or (settings.app.data_root / "batteries" / base).exists()
    return find_battery(name, options, settings) if is_named or ":" in name else None


def _model(name: str, settings: Settings) -> str:
    given, at, checkpoint = name.partition("@")
    try:
        return f"{full_run_id(settings, given)}{at}{checkpoint}"
    except AppError as error:
        if error.code is not ErrorCode.RUN_NOT_FOUND:
            raise
        known = ", ".join(HUB_BATTERIES)
        message = f"'{safe_name(name)}' is no run, no file of items and no known battery: {known}."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message) from None


async def _follow_to_end(battery: BatteryDirectory, terminal: Terminal) -> int:
    """Show the progress until the job has ended, then its results; return the exit code."""
    while True:
        status = await asyncio.to_thread(lambda: battery.status(has_files=False))
        percent = 100 * status.done / max(1, status.total)
        terminal.progress_of(f"battery {battery.battery_id}", battery.battery_id, percent, status.message)
        if status.has_ended:
            break
        await asyncio.sleep(_FOLLOW_SECONDS)
    _show_status(battery, terminal)
    return exit_code(status)


def _show_status(battery: BatteryDirectory, terminal: Terminal) -> None:
    status = battery.status(has_files=False)
    if status.status != "completed":
        terminal.show(status, Text(f"{status.battery_id}: {status.status}\n{status.message}"))
        return
    _show_results(battery.summary(), battery.development(), terminal)
    took = f"{counted(status.total, 'item')} in {duration(status.elapsed_seconds)}"
    where = f"page: {battery.path}/report.html   ·   mt battery export {status.battery_id} FOLDER"
    terminal.note(f"{took}\n{where}")


def _show_results(summary: BatterySummary, development: Development | None, terminal: Terminal) -> None:
    if development is not None:
        _show_development(development, terminal)
        return
    parts = [columns(accuracy_rows(summary))]
    for result in summary.runs:
        if result.effects:
            parts += [
                Text(f"\n{run_titles(summary)[result.run.name]}: regions"),
                columns(effect_rows(summary, result)),
            ]
    if summary.comparisons:
        parts += [Text("\nDifferences between runs"), columns(comparison_rows(summary))]
    if summary.seeds:
        parts += [Text("\nOver seeds"), columns(seed_rows(summary))]
    parts.append(Text("\n".join(["", *notes(summary)])))
    terminal.show(summary, *parts)


def _show_development(development: Development, terminal: Terminal) -> None:
    parts = [columns(curve_rows(development))]
    if words := by_age(development):
        parts += [Text("\nAges of words"), columns(age_rows(spread(words, _SHOWN_WORDS)))]
    parts.append(Text("\n".join(["", *development_notes(development)])))
    terminal.show(development, *parts)


def _show(options: _ShowOptions, terminal: Terminal) -> int:
    _show_status(BatteryStore(settings_for().app.artifacts_root).get(options.battery), terminal)
    return 0


def _list(options: Options, terminal: Terminal) -> int:
    stored = BatteryStore(settings_for().app.artifacts_root).all()
    statuses = tuple(battery.status(has_files=False) for battery in stored)
    rows = [
        (
            *(one.battery_id, one.status, f"{one.done:,}/{one.total:,}", counted(len(one.runs), "run")),
            *(", ".join(one.batteries), local_time(one.created_at)),
        )
        for one in statuses
    ]
    table = columns([("battery", "state", "items", "runs", "batteries", "created"), *rows])
    empty = Text("No batteries yet. Start one with: mt battery run RUN blimp")
    terminal.show(BatteryList(batteries=statuses), table if rows else empty)
    return 0


def _cancel(options: _ShowOptions, terminal: Terminal) -> int:
    settings = settings_for()

    async def cancel() -> BatteryStatus:
        async with running_queue(settings) as queue:
            if queue is not None:
                return await queue.batteries.cancel(options.battery)
        from trainer.queue.batteries import cancel_battery

        battery = BatteryStore(settings.app.artifacts_root).get(options.battery)
        cancel_battery(battery)
        return battery.status()

    status = asyncio.run(cancel())
    again = "Its scores stay; the same `mt battery run` continues with them."
    terminal.show(status, Text(f"{status.battery_id}: {status.status}. {again}"))
    return 0


def _export(options: _ExportOptions, terminal: Terminal) -> int:
    battery = BatteryStore(settings_for().app.artifacts_root).get(options.battery)
    return export_files(battery, battery.result_files(), options.folder, terminal)


def _recompute(options: _RecomputeOptions, terminal: Terminal) -> int:
    from trainer.batteries.development import TABLES, recomputed  # numpy
    from trainer.batteries.results import recompute

    folder = BatteryDirectory(options.folder)
    summary, development = recompute(folder)
    _show_results(summary, development, terminal)
    is_equal = (summary, development) == (folder.summary(), folder.development())
    if development is not None:
        tables = recomputed(development.run_id, {name: (folder.path / name).read_text("utf-8") for name in TABLES})
        of_tables = changed(tables, missing_words=development.missing_words, n_unscored=development.n_unscored)
        is_equal = is_equal and of_tables == development
    terminal.note("All numbers are those of result.json." if is_equal else "Some numbers are NOT those of result.json.")
    return 0 if is_equal else 1
