"""`mt doctor` and `mt selftest`: check this installation, and that a training works."""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from platform import python_version
from typing import Literal

from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Commands, Options
from trainer.commands.connection import settings_for
from trainer.commands.terminal import EXIT_FAILED, EXIT_USER, Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.settings import PLAIN_NAMES, Settings, environment_names, load_settings
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError
from trainer.contracts.wording import counted
from trainer.jobs.services import answering_server, find_server
from trainer.store.connection import STORE_ERRORS
from trainer.store.store import Store, connect
from trainer.system.hardware import default_threads, memory_bytes, physical_cores

DISTRIBUTION = "model-trainer"
_GIB = 1 << 30
_MIN_MEMORY, _MIN_FREE = 2 * _GIB, 2 * _GIB
_VERSION_SECONDS = 10.0
_TORCH_PROBE = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": names}))
"""


def add_to(commands: Commands) -> None:
    about = "check this installation and suggest fixes"
    commands.add("doctor", "Check", Options, _doctor, about, "mt doctor")
    about = "overfit one small batch (a quick check that training works)"
    example = "mt selftest --model gpt2 --tokenizer bpe"
    commands.add("selftest", "Check", TrainOptions, _selftest, about, example)


def _doctor(options: Options, terminal: Terminal) -> int:
    report = asyncio.run(check_installation())
    terminal.show(report, columns([(check.state, check.name, check.message) for check in report.checks]))
    return 0 if report.ok else EXIT_FAILED


def _selftest(options: TrainOptions, terminal: Terminal) -> int:
    settings = settings_for()
    if options.file is None and options.corpus is None:
        options.corpus = "demo"
    training = read_training(options, settings, terminal)
    if training is None:
        return EXIT_USER
    from trainer.training.selftest import overfit_one_batch  # torch

    found = overfit_one_batch(training.effective, training.corpora.find(training.effective.corpus.name))
    rows = [("step", "loss"), *((str(point.step), f"{point.loss:.4f}") for point in found.curve)]
    terminal.show(found, columns(rows), Text(found.message))
    return 0 if found.ok else EXIT_FAILED


class Check(Frozen):
    """One check: its result, and what to do where it is not ok."""

    name: str
    state: Literal["ok", "warning", "failure"]
    message: str


class Report(Frozen):
    """Answer of `mt doctor --json`; `ok` is true if no check failed."""

    ok: bool
    checks: tuple[Check, ...]


async def check_installation() -> Report:
    """Check everything that a training or the bot needs; starts nothing that stays."""
    torch = asyncio.create_task(check_torch())
    checks = [check_libraries(DISTRIBUTION), check_machine()]
    try:
        settings = load_settings()
    except AppError as error:
        checks.append(Check(name="settings", state="failure", message=error.message))
    else:
        app = settings.app
        checks += [_check_settings(), check_folder("data", app.data_root.resolve())]
        checks += [check_folder("artifacts", app.artifacts_root.resolve()), *await _check_queue(settings)]
        checks += [_check_discord(settings), _check_runs(settings)]
    checks.insert(1, await torch)
    return Report(ok=all(check.state != "failure" for check in checks), checks=tuple(checks))


def check_libraries(distribution: str) -> Check:
    """Check the versions of Python and the libraries against the package's requirements."""
    try:
        python = metadata(distribution)["Requires-Python"]
    except PackageNotFoundError:
        message = f"The package {distribution} is not installed: run `pip install .` in its folder."
        return Check(name="libraries", state="failure", message=message)
    wanted = [Requirement(line) for line in requires(distribution) or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    needed = {"Python": SpecifierSet(python), **{one.name: one.specifier for one in wanted}}
    problems: list[str] = []
    for library, versions in needed.items():
        installed = _installed_version(library)
        if installed is None or not versions.contains(installed, prereleases=True):
            problems.append(f"{library} {installed or 'is missing'}, but {versions} is needed")
    if problems:
        message = f"{'; '.join(problems)}: run `pip install .` in the project's folder."
        return Check(name="libraries", state="failure", message=message)
    return Check(name="libraries", state="ok", message=f"Python {python_version()}, {len(wanted)} libraries as needed.")


def _installed_version(library: str) -> str | None:
    try:
        return python_version() if library == "Python" else version(library)
    except PackageNotFoundError:
        return None


class Torch(Frozen):
    """Versions and devices of torch."""

    version: str
    cuda: str | None
    """CUDA version of the build; None for a CPU build."""
    devices: tuple[str, ...]


async def check_torch(seconds: float = 120.0) -> Check:
    """Import torch in its own process, since a broken build can crash it."""
    code, output, errors = await _run(seconds, sys.executable, "-c", _TORCH_PROBE)
    try:
        return describe_torch(Torch.model_validate_json(output.strip().rpartition("\n")[2]))
    except ValidationError:
        last = errors.strip().rpartition("\n")[2]
        reason = " ".join(word for word in last.split() if "/" not in word) or f"exit code {code}"
        message = f"Torch cannot be imported ({reason}): reinstall it with `pip install --force-reinstall torch`."
        return Check(name="torch", state="failure", message=message)


def describe_torch(torch: Torch) -> Check:
    """Describe the devices that torch can compute on."""
    if torch.devices:
        return Check(name="torch", state="ok", message=f"{torch.version} with {', '.join(torch.devices)}.")
    if torch.cuda is None:
        return Check(name="torch", state="ok", message=f"{torch.version}, for the CPU only.")
    message = f"{torch.version} is built for CUDA {torch.cuda}, but no GPU responds: check the driver (`nvidia-smi`)."
    return Check(name="torch", state="warning", message=message)


async def _run(seconds: float, *command: str) -> tuple[int | None, str, str]:
    """Run a program; return its exit code (None after a timeout), its output and its errors."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        return None, "", f"no answer in {seconds:g} s"
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def check_machine(memory: int | None = None) -> Check:
    """Check cores and memory, within the limits of a container."""
    memory = memory_bytes() if memory is None else memory
    threads = counted(default_threads(), "thread")
    message = f"{counted(physical_cores(), 'core')}, {threads} in a training; {memory / _GIB:.1f} GiB of memory"
    if memory < _MIN_MEMORY:
        return Check(name="machine", state="warning", message=f"{message}: enough for small models only.")
    return Check(name="machine", state="ok", message=f"{message}.")


def _check_settings() -> Check:
    """List the sources of settings; never their values, which may be secrets."""
    names = {*environment_names(), *PLAIN_NAMES, "APP__CONFIG_FILE"}
    config_file = Path(os.environ.get("APP__CONFIG_FILE") or "mt.toml")
    sources = [
        f"{config_file.name} {'is read' if config_file.exists() else 'does not exist'}",
        f".env sets {_listed(name for name in dotenv_values('.env') if name.upper() in names)}",
        f"the environment sets {_listed(name for name in os.environ if name.upper() in names)}",
    ]
    return Check(name="settings", state="ok", message=f"{'; '.join(sources)}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def check_folder(name: str, folder: Path, min_free: int = _MIN_FREE) -> Check:
    """Check that a folder, or the nearest one that exists above it, is writable and has room."""
    setting = f"APP__{name.upper()}_ROOT"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        message = f"It cannot be written: give this user write access, or set {setting} to another folder."
        return Check(name=name, state="failure", message=message)
    free = shutil.disk_usage(existing).free
    message = f"{free / _GIB:.1f} GiB free{'' if existing == folder else '; it is created when needed'}"
    if free < min_free:
        message = f"{message}: free some space, or set {setting} to another disk."
        return Check(name=name, state="warning", message=message)
    return Check(name=name, state="ok", message=f"{message}.")


async def _check_queue(settings: Settings) -> list[Check]:
    try:
        address = await answering_server(settings)
        if settings.redis.url is not None and address is None:
            message = "`REDIS__URL` does not respond: start that server, or leave the setting empty."
            return [Check(name="redis", state="failure", message=message)]
        checks = [] if settings.redis.url else [await _check_embedded(is_running=address is not None)]
        if address is None:
            return [*checks, _check_worker(settings, is_running=False)]
        store = await connect(address)
        try:
            return [*checks, *await _check_server(settings, store)]
        finally:
            await store.close()
    except AppError as error:
        return [Check(name="redis", state="failure", message=error.message)]


async def _check_embedded(*, is_running: bool) -> Check:
    """Check the program of the embedded server."""
    code, output, _ = await _run(_VERSION_SECONDS, find_server(), "--version")
    if code != 0:
        message = "The server program does not run: install Valkey or Redis, or set REDIS__URL to one elsewhere."
        return Check(name="server", state="failure", message=message)
    state = "it is running" if is_running else "it is started when needed"
    return Check(name="server", state="ok", message=f"Embedded {' '.join(output.split()[:3])}; {state}.")


async def _check_server(settings: Settings, store: Store) -> list[Check]:
    """Check the durability of the server, and whether a worker is connected."""
    try:
        durability = await store.durability()
        has_worker = await store.has_worker()
    except STORE_ERRORS as error:
        message = f"The server hides its settings ({type(error).__name__}): make sure AOF is on and eviction off."
        return [Check(name="redis", state="warning", message=message)]
    problems = durability.troubles()
    message = f"It responds; AOF is on (appendfsync {durability.appendfsync or 'unknown'}), eviction off."
    if problems:
        message = f"It responds, but {' and '.join(problems)}."
    redis = Check(name="redis", state="warning" if problems else "ok", message=message)
    return [redis, _check_worker(settings, is_running=has_worker)]


def _check_worker(settings: Settings, *, is_running: bool) -> Check:
    if is_running:
        return Check(name="worker", state="ok", message="At least one is running.")
    if settings.queue.embedded_workers:
        return Check(name="worker", state="ok", message="None is running; `mt train` and the bot start one.")
    message = "None is running, and QUEUE__EMBEDDED_WORKERS is 0: start one with `mt worker`."
    return Check(name="worker", state="warning", message=message)


def _check_discord(settings: Settings) -> Check:
    discord = settings.discord
    values = {"DISCORD__TOKEN": discord.token, "DISCORD__OWNER_ID": discord.owner_id}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        message = f"{' and '.join(missing)} not set: `mt up` needs both, the other commands neither."
        return Check(name="discord", state="warning", message=message)
    return Check(name="discord", state="ok", message="Token and owner are set.")


def _check_runs(settings: Settings) -> Check:
    runs = RunStore(settings.app.artifacts_root)
    unreadable = [run.run_id for run in runs.unreadable()]
    if unreadable:
        message = f"The request of {', '.join(unreadable[:5])} cannot be read: move its folder elsewhere."
        return Check(name="runs", state="failure", message=message)
    unfinished = [run.run_id for run in runs.unfinished()]
    message = f"Queued or running: {', '.join(unfinished[:5])}{', …' if len(unfinished) > 5 else ''}."
    return Check(name="runs", state="ok", message=message if unfinished else "None is queued or running.")
