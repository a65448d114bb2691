"""`mt battery` and `mt develop`: what runs know by the items of batteries, also over their checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.job_folder import REPORT_FILE
from trainer.artifacts.replication import complete_run
from trainer.batteries.reading import battery_request
from trainer.batteries.sources import HUB_BATTERIES, battery_at, must_fetch
from trainer.commands.arguments import (
    QUOTING,
    RUN_IDS,
    Argument,
    Commands,
    Options,
    flag,
    given_columns,
    option,
    repeatable,
)
from trainer.commands.connection import (
    Installation,
    accept,
    full_run_id,
    settings_for_any,
    with_installation,
    with_services,
)
from trainer.commands.jobs import JobView, add_jobs, plain_view, report_places
from trainer.commands.terminal import Queued, Terminal
from trainer.config.settings import Settings
from trainer.config.validation import parse, safe_name
from trainer.contracts.base import changed
from trainer.contracts.batteries import (
    MEASURES,
    QUOTINGS,
    BatteryOptions,
    BatteryStatus,
    BatterySummary,
    Measure,
    Quoting,
)
from trainer.contracts.development import Development
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Report
from trainer.contracts.wording import counted, duration
from trainer.lab.calls import BATTERIES, START_BATTERY
from trainer.lab.here import Here
from trainer.reports.battery_report import battery_report
from trainer.reports.development_report import development_report


class _ItemOptions(Options):
    """Options for reading and scoring items."""

    measure = Argument[Measure](
        "--measure",
        choices=MEASURES,
        default="sum",
        help="compare runs by the sum of log-probabilities, per token, char or byte, or with the line end",
    )
    end = flag("--end", "the same as `--measure end`: the line end after a sentence counts too")
    column = repeatable("--column KNOWN=NAME", "the name of a column in your table: `--column good=grammatical`")
    formulas = repeatable(
        "--formula F", "what should hold for each item of a table of regions: `(2;%%a%%) > (2;%%b%%)`"
    )
    separator = option(
        "--separator TEXT",
        str,
        "put between contexts or regions and the text after them; default: a space where one is written",
    )
    quoting = Argument[Quoting | None]("--quoting", choices=QUOTINGS, help=QUOTING)
    keep_na = flag("--keep-na", "read NA, NaN, null and <NA> in tables as words; default: as empty cells")
    pll_within_word = flag("--pll-within-word", "masked models: hide the rest of a token's word too")

    def options(self, **more: object) -> BatteryOptions:
        """Return the options of a request; raises INVALID_INPUT."""
        columns = given_columns(self.column, "good=grammatical")
        if self.end and self.measure not in ("sum", "end"):
            message = f"`--end` and `--measure {self.measure}` exclude each other: give one of them."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        fields = self.given(BatteryOptions) | {"columns": columns} | ({"measure": "end"} if self.end else {})
        return parse(BatteryOptions, fields | more)


class _RunOptions(_ItemOptions):
    names = Argument[list[str]](
        "RUN_OR_BATTERY",
        nargs="+",
        help=f"runs or RUN@1200, then files or folders of items, or names: {', '.join(HUB_BATTERIES)}, blimp:passive_1",
    )
    no_controls = flag("--no-controls", "leave out the untrained model, the counts and the leaks")


class _DevelopOptions(_ItemOptions):
    run = Argument[str]("RUN", type=full_run_id, completion=RUN_IDS, help="run that has kept checkpoints")
    battery = repeatable("--battery NAME", "score the items of a battery: a file, a folder, or a name such as blimp")
    split = option("--eval SPLIT", str, "measure the loss on this split: validation or test")
    words = flag("--words", "measure the ages at which words are acquired, of the most frequent ones")
    word = repeatable("--word WORD", "measure the age of this word, and not those of the most frequent ones")
    follow = flag("--follow", "wait for the checkpoints of a run that trains, and measure each at once")


class _RecomputeOptions(Options):
    folder = Argument[Path]("FOLDER", type=Path, help="the exported folder of a battery")


def add_to(commands: Commands) -> None:
    battery = commands.group("battery", "test what runs know by batteries of items")
    commands.add("develop", _DevelopOptions, _develop, with_unit=True)
    battery.add("run", _RunOptions, _run, with_unit=True)
    add_jobs(battery, _VIEW, with_unit=True)
    battery.add("recompute", _RecomputeOptions, _recompute, with_unit=True)


def _run(options: _RunOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    chosen = options.options(has_controls=not options.no_controls)
    models, names = with_installation(settings, lambda installation: _models_and_batteries(options.names, installation))
    return _score(chosen, models, names, settings, terminal)


def _develop(options: _DevelopOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    has_words = options.words or bool(options.word)
    fields: dict[str, object] = {
        "has_loss": options.split is not None or not (options.battery or has_words),
        "has_words": has_words,
        "words": options.word,
        "follows": options.follow,
    }
    fields |= {} if options.split is None else {"split": options.split}
    chosen = options.options(development=fields)
    if settings.client.url is None:
        complete_run(settings, options.run)
    return _score(chosen, [options.run], options.battery, settings, terminal)


def _score(
    chosen: BatteryOptions, models: Sequence[str], names: Sequence[str], settings: Settings, terminal: Terminal
) -> int:
    """Start a job and follow it to its end, or show the results of an equal one."""
    terminal.continues_when_repeated = True

    async def run(installation: Installation) -> int:
        starting = _start(chosen, models, names, installation)
        accepted = await accept(starting, lambda one: Queued(one.battery_id, word="battery"), terminal)
        if accepted.status == "completed":
            return await _VIEW.show_job(accepted.battery_id, installation, terminal)
        return await _VIEW.follow(accepted.battery_id, installation, terminal)

    return with_services(settings, terminal, run)


async def _start(
    chosen: BatteryOptions, models: Sequence[str], names: Sequence[str], installation: Installation
) -> BatteryStatus:
    """Start a job; of this machine, batteries may have files of any size."""
    if not isinstance(installation, Here):
        return await installation.call(START_BATTERY, body=battery_request(chosen, models, names))
    from trainer.lab.batteries import accept_battery  # redis
    from trainer.queue.batteries import new_job

    lab, settings = installation.lab, installation.settings
    to_fetch = [name for name in names if not _is_path(name) and must_fetch(name, settings)]
    batteries = [battery_at(name, chosen, settings) for name in names if name not in to_fetch]
    return await accept_battery(lab, *new_job(chosen, models, batteries, lab.stores, to_fetch))


async def _models_and_batteries(names: Sequence[str], installation: Installation) -> tuple[list[str], list[str]]:
    """Return the models and the batteries among names; a server may have a battery of a name that is no run."""
    models: dict[str, None] = {}
    batteries: list[str] = []
    for name in names:
        if _is_battery(name, installation):
            batteries.append(name)
            continue
        try:
            models[await installation.full_run_id(name, or_checkpoint=True)] = None
        except AppError as error:
            if error.code is not ErrorCode.RUN_NOT_FOUND:
                raise
            if isinstance(installation, Here) or name is names[0]:
                known = ", ".join(HUB_BATTERIES)
                message = f"'{safe_name(name)}' is no run, no file of items and no known battery: {known}."
                raise AppError(ErrorCode.DATA_NOT_FOUND, message) from None
            batteries.append(name)
    if not models or not batteries:
        what = "a RUN" if not models else "a BATTERY: a file, a folder, or a name such as blimp"
        raise AppError(ErrorCode.INVALID_INPUT, f"Give {what}. See `mt battery run --help`.")
    return [*models], batteries


def _is_battery(name: str, installation: Installation) -> bool:
    """Return True for a path, and for a name that no run can have or that a known battery has."""
    base, colon, _ = name.partition(":")
    is_here = isinstance(installation, Here) and (installation.settings.app.data_root / "batteries" / base).exists()
    return _is_path(name) or (bool(colon) and "@" not in base) or base in HUB_BATTERIES or is_here


def _is_path(name: str) -> bool:
    return Path(name).exists()


async def _show(battery_id: str, status: BatteryStatus, installation: Installation, terminal: Terminal) -> None:
    """Show the results of a job that has completed, and the state of others."""
    if status.status != "completed":
        terminal.show(status, Text(f"{battery_id}: {status.status}\n{status.message}"))
        return
    report = await installation.read("batteries", battery_id, REPORT_FILE, Report)
    result: BatterySummary | Development
    if status.development_of is None:
        result = await installation.read("batteries", battery_id, "result.json", BatterySummary)
    else:
        result = await installation.read("batteries", battery_id, "development.json", Development)
    terminal.show_report(result, report)
    took = f"{counted(status.total, 'item')} in {duration(status.elapsed_seconds)}"
    where = report_places("page", installation, "batteries", battery_id)
    terminal.note(f"{took}\n{where}")


_VIEW = JobView("batteries", BATTERIES, _show, plain_view("batteries").note)


def _recompute(options: _RecomputeOptions, terminal: Terminal) -> int:
    from trainer.batteries.development import TABLES, recomputed  # numpy
    from trainer.batteries.results import recompute

    folder = BatteryDirectory(options.folder)
    summary, development = recompute(folder)
    report = battery_report(summary) if development is None else development_report(development, summary)
    terminal.show_report(development or summary, report)
    is_equal = (summary, development) == (folder.summary(), folder.development())
    if development is not None:
        tables = recomputed(development.run_id, {name: (folder.path / name).read_text("utf-8") for name in TABLES})
        of_tables = changed(
            tables,
            missing_words=development.missing_words,
            notes=development.notes,
            n_unscored=development.n_unscored,
        )
        is_equal = is_equal and of_tables == development
    terminal.note("All numbers are those of result.json." if is_equal else "Some numbers are NOT those of result.json.")
    return 0 if is_equal else 1
