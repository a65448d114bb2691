"""`mt doctor`, `mt selftest` and `mt gc`: check this installation, try a training, clean the folders up."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from platform import python_version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.text import Text

from trainer.artifacts.cleanup import CleanupReport, clean_up
from trainer.artifacts.job_folder import unreadable
from trainer.artifacts.kinds import JOB_KINDS
from trainer.artifacts.replication import remove_kept_checkpoints, stored_check
from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import RUN_IDS, Argument, Commands, Options, flag
from trainer.commands.connection import full_run_id, settings_for, settings_for_here
from trainer.commands.terminal import EXIT_FAILED, Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.settings import PLAIN_NAMES, Settings, environment_names, load_settings, read_dotenv
from trainer.contracts.errors import AppError
from trainer.contracts.installation import DISTRIBUTION, EXTRA_MODULES, command_for, extras_needed, missing_extras
from trainer.contracts.units import loss_number
from trainer.contracts.wording import counted
from trainer.native.library import Build, builds
from trainer.services.health import GIB, Finding, check_data, check_torch
from trainer.system.hardware import default_threads, memory_bytes, physical_cores

_MIN_MEMORY = 2 * GIB
_NO_STEP = "There is no compiled step, so PyTorch generates: ten times as long for small models, twice for large ones"
_REMOTE = "MT_URL is set, so runs are on that server; the other checks are about this machine."


class _CleanupOptions(Options):
    dry_run = flag("--dry-run", "only list what would be removed")
    kept = Argument[str | None](
        "--kept RUN",
        completion=RUN_IDS,
        help="remove the checkpoints that the `checkpoint_schedule` of this run has kept, and nothing else",
    )


def add_to(commands: Commands) -> None:
    commands.add("doctor", Options, _doctor)
    commands.add("selftest", TrainOptions, _selftest, with_unit=True)
    commands.add("gc", _CleanupOptions, _clean_up)


def _doctor(options: Options, terminal: Terminal) -> int:
    found = asyncio.run(check_installation())
    ok = all(one.state != "failure" for one in found.values())
    checks = [{"name": name, "state": one.state, "message": one.message} for name, one in found.items()]
    terminal.show(
        {"ok": ok, "checks": checks}, columns([(one.state, name, one.message) for name, one in found.items()])
    )
    return 0 if ok else EXIT_FAILED


def _selftest(options: TrainOptions, terminal: Terminal) -> int:
    settings = settings_for_here(terminal)
    if options.file is None and options.corpus is None:
        options.corpus = "demo"
    training = read_training(options, settings, terminal)
    from trainer.training.selftest import overfit_one_batch  # torch

    path, unit = training.corpora.find(training.effective.corpus.name), terminal.unit
    found = overfit_one_batch(training.effective, path, unit)
    points = ((str(point.step), loss_number(point.loss, unit)) for point in found.curve)
    rows = [("step", f"loss ({unit} per token)"), *points]
    terminal.show(found, columns(rows), Text(found.message))
    return 0 if found.ok else EXIT_FAILED


async def check_installation() -> dict[str, Finding]:
    """Check everything that a training or the bot needs; starts nothing that stays."""
    missing = missing_extras()
    torch = Finding("warning", extras_needed("train").message) if "train" in missing else check_torch()
    findings = {"libraries": check_libraries(DISTRIBUTION), "torch": torch, "machine": check_machine()}
    findings["generation"] = check_generation(builds())
    try:
        settings = load_settings()
    except AppError as error:
        findings["settings"] = Finding("failure", error.message)
    else:
        if settings.client.url is not None:
            findings["remote"] = Finding("warning", _REMOTE)
        findings["settings"] = Finding("ok", _sources_of_settings())
        findings["folders"] = Finding("ok", settings.app.place())
        findings |= {} if "server" in missing else await check_data(settings)
        findings |= {"discord": _check_discord(settings), "runs": _check_runs(settings)}
    return findings


def check_libraries(distribution: str) -> Finding:
    """Check the versions of Python and the libraries, with those of the installed extras, against the requirements."""
    repair = f"run {command_for('all')}"
    try:
        needed = {"Python": SpecifierSet(metadata(distribution)["Requires-Python"])}
    except PackageNotFoundError:
        return Finding("failure", f"The package {distribution} is not installed: {repair}.")
    missing = missing_extras()
    extras = {"", *EXTRA_MODULES} - {*missing}
    for requirement in map(Requirement, requires(distribution) or []):
        if requirement.name != distribution and _is_needed(requirement, extras):
            needed[requirement.name] = requirement.specifier
    problems: list[str] = []
    for library, versions in needed.items():
        installed = _installed_version(library)
        if installed is None or not versions.contains(installed, prereleases=True):
            problems.append(f"{library} {installed or 'is missing'}, but {versions} is needed")
    if problems:
        return Finding("failure", f"{'; '.join(problems)}: {repair}.")
    without = f", without the extras {', '.join(missing)}" if missing else ""
    return Finding("ok", f"Python {python_version()}, {len(needed) - 1} libraries as needed{without}.")


def _is_needed(requirement: Requirement, extras: Iterable[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def _installed_version(library: str) -> str | None:
    try:
        return python_version() if library == "Python" else version(library)
    except PackageNotFoundError:
        return None


def check_machine(memory: int | None = None) -> Finding:
    """Check cores and memory, within the limits of a container."""
    memory = memory_bytes() if memory is None else memory
    cores = f"{counted(physical_cores(), 'core')}, at most {counted(default_threads(), 'thread')} in a training"
    message = f"{cores}; {memory / GIB:.1f} GiB of memory"
    if memory < _MIN_MEMORY:
        return Finding("warning", f"{message}: enough for small models only.")
    return Finding("ok", f"{message}.")


def check_generation(found: Sequence[Build]) -> Finding:
    """Say which of the builds of the decode step generates, and the cost if there is none."""
    if found:
        return Finding("ok", f"The compiled step reads each token, in its build for {found[-1].name} CPUs.")
    repair = "install a C compiler or `ziglang`, then run `python -P -m trainer.native.build`"
    return Finding("warning", f"{_NO_STEP}: {repair}.")


def _sources_of_settings() -> str:
    """List the settings by their source, without their values, which may be secrets."""
    names = {*environment_names(), *PLAIN_NAMES, "APP__CONFIG_FILE"}

    def listed(given: Iterable[str]) -> str:
        return ", ".join(sorted(name for name in given if name.upper() in names)) or "none"

    file = Path(os.environ.get("APP__CONFIG_FILE") or "mt.toml")
    in_file = f"{file.name} {'is read' if file.exists() else 'does not exist'}"
    return f"{in_file}; .env sets {listed(read_dotenv())}; the environment sets {listed(os.environ)}."


def _check_discord(settings: Settings) -> Finding:
    values = {"DISCORD__TOKEN": settings.discord.token, "DISCORD__OWNER_ID": settings.discord.owner_id}
    if missing := [name for name, value in values.items() if value is None]:
        message = f"{' and '.join(missing)} not set: `mt up` needs both, the other commands neither."
        return Finding("warning", message)
    return Finding("ok", "Token and owner are set.")


def _check_runs(settings: Settings) -> Finding:
    runs = RunStore(settings.app.artifacts_root)
    stores = [kind.store(settings.app.artifacts_root) for kind in JOB_KINDS]
    jobs = (store.directory(job_id) for store in stores for job_id in sorted(store.ids()))
    if hidden := [(job.word, one) for job in jobs if (one := unreadable(job)) is not None]:
        shown = " ".join(f"The {word} '{one.job_id}' cannot be read: {one.reason}" for word, one in hidden[:5])
        more = "" if len(hidden) <= 5 else f" {counted(len(hidden) - 5, 'other job')} cannot, either."
        return Finding(
            "failure", f"{shown}{more} The files stay as they are: update the program, or delete these jobs."
        )
    if unfinished := [run.run_id for run in runs.unfinished()]:
        more = ", …" if len(unfinished) > 5 else ""
        return Finding("ok", f"Queued or running: {', '.join(unfinished[:5])}{more}.")
    return Finding("ok", "None is queued or running.")


def _clean_up(options: _CleanupOptions, terminal: Terminal) -> int:
    settings = settings_for("model-trainer-cleanup")
    if options.kept is None:
        report = clean_up(settings, dry_run=options.dry_run, is_stored=stored_check(settings))
    else:
        report = asyncio.run(remove_kept_checkpoints(settings, full_run_id(options.kept), dry_run=options.dry_run))
    rows = [(one.path, f"{one.bytes:,}", one.reason if one.error is None else one.error) for one in report.removals]
    parts = [columns([("path", "bytes", "reason"), *rows])] if rows else []
    parts.append(Text(_cleaned(report)))
    if report.kept_checkpoints:
        kept = counted(report.kept_checkpoints, "checkpoint")
        size = counted(report.kept_bytes, "byte")
        parts.append(Text(f"{kept} of schedules with {size} stay: `mt gc --kept RUN` removes those of a run."))
    terminal.show(report, *parts)
    return EXIT_FAILED if any(removal.error is not None for removal in report.removals) else 0


def _cleaned(report: CleanupReport) -> str:
    if not report.removals:
        return "There is nothing to remove."
    if report.dry_run:
        removable = sum(removal.bytes for removal in report.removals)
        return f"Nothing was removed. Without a dry run, {counted(removable, 'byte')} would be freed."
    return f"{counted(report.bytes_freed, 'byte')} in {counted(report.files_deleted, 'file')} removed."
