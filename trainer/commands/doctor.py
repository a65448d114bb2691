"""`mt doctor` and `mt selftest`: check this installation, and that a training works."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from platform import python_version
from typing import Literal, NamedTuple

from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.commands.arguments import Commands, Options
from trainer.commands.connection import settings_for
from trainer.commands.terminal import EXIT_FAILED, Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.settings import PLAIN_NAMES, Settings, environment_names, load_settings
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError
from trainer.contracts.wording import counted
from trainer.jobs.services import answering_server, find_server
from trainer.store.connection import STORE_ERRORS, Durability
from trainer.store.store import connect
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


_REMOTE = "MT_URL is set, so runs are on that server; the other checks are about this machine."


def add_to(commands: Commands) -> None:
    commands.add("doctor", Options, _doctor)
    commands.add("selftest", TrainOptions, _selftest)


def _doctor(options: Options, terminal: Terminal) -> int:
    found = asyncio.run(check_installation())
    ok = all(one.state != "failure" for one in found.values())
    checks = [{"name": name, "state": one.state, "message": one.message} for name, one in found.items()]
    terminal.show(
        {"ok": ok, "checks": checks}, columns([(one.state, name, one.message) for name, one in found.items()])
    )
    return 0 if ok else EXIT_FAILED


def _selftest(options: TrainOptions, terminal: Terminal) -> int:
    settings = settings_for()
    if options.file is None and options.corpus is None:
        options.corpus = "demo"
    training = read_training(options, settings, terminal)
    from trainer.training.selftest import overfit_one_batch  # torch

    found = overfit_one_batch(training.effective, training.corpora.find(training.effective.corpus.name))
    rows = [("step", "loss"), *((str(point.step), f"{point.loss:.4f}") for point in found.curve)]
    terminal.show(found, columns(rows), Text(found.message))
    return 0 if found.ok else EXIT_FAILED


class Finding(NamedTuple):
    """The result of a check, and what to do where it is not ok."""

    state: Literal["ok", "warning", "failure"]
    message: str


async def check_installation() -> dict[str, Finding]:
    """Check everything that a training or the bot needs; starts nothing that stays."""
    findings = {"libraries": check_libraries(DISTRIBUTION), "torch": check_torch(), "machine": check_machine()}
    try:
        settings = load_settings()
    except AppError as error:
        findings["settings"] = Finding("failure", error.message)
    else:
        app = settings.app
        if settings.client.url is not None:
            findings["remote"] = Finding("warning", _REMOTE)
        findings["settings"] = Finding("ok", _sources_of_settings())
        findings["data"] = check_folder("data", app.data_root.resolve())
        findings["artifacts"] = check_folder("artifacts", app.artifacts_root.resolve())
        try:
            findings |= await _check_services(settings)
        except AppError as error:
            findings["redis"] = Finding("failure", error.message)
        findings |= {"discord": _check_discord(settings), "runs": _check_runs(settings)}
    return findings


def check_libraries(distribution: str) -> Finding:
    """Check the versions of Python and the libraries against the package's requirements."""
    try:
        needed = {"Python": SpecifierSet(metadata(distribution)["Requires-Python"])}
    except PackageNotFoundError:
        return Finding("failure", f"The package {distribution} is not installed: run `pip install .` in its folder.")
    for requirement in map(Requirement, requires(distribution) or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed[requirement.name] = requirement.specifier
    problems: list[str] = []
    for library, versions in needed.items():
        installed = _installed_version(library)
        if installed is None or not versions.contains(installed, prereleases=True):
            problems.append(f"{library} {installed or 'is missing'}, but {versions} is needed")
    if problems:
        return Finding("failure", f"{'; '.join(problems)}: run `pip install .` in the project's folder.")
    return Finding("ok", f"Python {python_version()}, {len(needed) - 1} libraries as needed.")


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


def check_torch(seconds: float = 120.0) -> Finding:
    """Import torch in its own process, since a broken build can crash it."""
    code, output, errors = _run(seconds, sys.executable, "-c", _TORCH_PROBE)
    try:
        return describe_torch(Torch.model_validate_json(output.strip().rpartition("\n")[2]))
    except ValidationError:
        last = errors.strip().rpartition("\n")[2]
        reason = " ".join(word for word in last.split() if "/" not in word) or f"exit code {code}"
        reinstall = "reinstall it with `pip install --force-reinstall torch`"
        return Finding("failure", f"Torch cannot be imported ({reason}): {reinstall}.")


def describe_torch(torch: Torch) -> Finding:
    """Describe the devices that torch can compute on."""
    if torch.devices:
        return Finding("ok", f"{torch.version} with {', '.join(torch.devices)}.")
    if torch.cuda is None:
        return Finding("ok", f"{torch.version}, for the CPU only.")
    built = f"{torch.version} is built for CUDA {torch.cuda}"
    return Finding("warning", f"{built}, but no GPU responds: check the driver (`nvidia-smi`).")


def _run(seconds: float, *command: str) -> tuple[int | None, str, str]:
    """Run a program; return its exit code (None after a timeout), its output and its errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None, "", f"no answer in {seconds:g} s"
    return done.returncode, done.stdout, done.stderr


def check_machine(memory: int | None = None) -> Finding:
    """Check cores and memory, within the limits of a container."""
    memory = memory_bytes() if memory is None else memory
    cores = f"{counted(physical_cores(), 'core')}, {counted(default_threads(), 'thread')} in a training"
    message = f"{cores}; {memory / _GIB:.1f} GiB of memory"
    if memory < _MIN_MEMORY:
        return Finding("warning", f"{message}: enough for small models only.")
    return Finding("ok", f"{message}.")


def _sources_of_settings() -> str:
    """List the settings by their source, without their values, which may be secrets."""
    names = {*environment_names(), *PLAIN_NAMES, "APP__CONFIG_FILE"}

    def listed(given: Iterable[str]) -> str:
        return ", ".join(sorted(name for name in given if name.upper() in names)) or "none"

    file = Path(os.environ.get("APP__CONFIG_FILE") or "mt.toml")
    in_file = f"{file.name} {'is read' if file.exists() else 'does not exist'}"
    return f"{in_file}; .env sets {listed(dotenv_values('.env'))}; the environment sets {listed(os.environ)}."


def check_folder(name: str, folder: Path, min_free: int = _MIN_FREE) -> Finding:
    """Check that a folder, or the nearest one that exists above it, is writable and has room."""
    setting = f"APP__{name.upper()}_ROOT"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = f"give this user write access, or set {setting} to another folder"
        return Finding("failure", f"It cannot be written: {remedy}.")
    free = shutil.disk_usage(existing).free
    message = f"{free / _GIB:.1f} GiB free{'' if existing == folder else '; it is created when needed'}"
    if free < min_free:
        return Finding("warning", f"{message}: free some space, or set {setting} to another disk.")
    return Finding("ok", f"{message}.")


async def _check_services(settings: Settings) -> dict[str, Finding]:
    """Check the server and the worker; raises SERVICE_UNAVAILABLE."""
    address = await answering_server(settings)
    if address is None:
        return _check_without_server(settings)
    found = {"server": _check_embedded(is_running=True)} if settings.redis.url is None else {}
    store = await connect(address)
    try:
        durability = await store.durability()
        found["redis"] = _check_durability(durability)
        found["worker"] = _check_worker(settings, is_running=await store.has_worker())
    except STORE_ERRORS as error:
        message = f"The server hides its settings ({type(error).__name__}): make sure AOF is on and eviction off."
        found["redis"] = Finding("warning", message)
    finally:
        await store.close()
    return found


def _check_without_server(settings: Settings) -> dict[str, Finding]:
    if settings.redis.url is not None:
        message = "`REDIS__URL` does not respond: start that server, or leave the setting empty."
        return {"redis": Finding("failure", message)}
    return {"server": _check_embedded(is_running=False), "worker": _check_worker(settings, is_running=False)}


def _check_embedded(*, is_running: bool) -> Finding:
    code, output, _ = _run(_VERSION_SECONDS, find_server(), "--version")
    if code != 0:
        remedy = "install Valkey or Redis, or set REDIS__URL to one elsewhere"
        return Finding("failure", f"The server program does not run: {remedy}.")
    state = "it is running" if is_running else "it is started when needed"
    return Finding("ok", f"Embedded {' '.join(output.split()[:3])}; {state}.")


def _check_durability(durability: Durability) -> Finding:
    if problems := durability.troubles():
        return Finding("warning", f"It responds, but {' and '.join(problems)}.")
    return Finding("ok", f"It responds; AOF is on (appendfsync {durability.appendfsync or 'unknown'}), eviction off.")


def _check_worker(settings: Settings, *, is_running: bool) -> Finding:
    if is_running:
        return Finding("ok", "At least one is running.")
    if settings.queue.embedded_workers:
        return Finding("ok", "None is running; `mt train` and the bot start one.")
    return Finding("warning", "None is running, and QUEUE__EMBEDDED_WORKERS is 0: start one with `mt worker`.")


def _check_discord(settings: Settings) -> Finding:
    values = {"DISCORD__TOKEN": settings.discord.token, "DISCORD__OWNER_ID": settings.discord.owner_id}
    if missing := [name for name, value in values.items() if value is None]:
        message = f"{' and '.join(missing)} not set: `mt up` needs both, the other commands neither."
        return Finding("warning", message)
    return Finding("ok", "Token and owner are set.")


def _check_runs(settings: Settings) -> Finding:
    runs = RunStore(settings.app.artifacts_root)
    if unreadable := [run.run_id for run in runs.unreadable()]:
        message = f"The request of {', '.join(unreadable[:5])} cannot be read: move its folder elsewhere."
        return Finding("failure", message)
    if unfinished := [run.run_id for run in runs.unfinished()]:
        more = ", …" if len(unfinished) > 5 else ""
        return Finding("ok", f"Queued or running: {', '.join(unfinished[:5])}{more}.")
    return Finding("ok", "None is queued or running.")
