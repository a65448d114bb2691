"""What this installation is and can do; whatever is wrong with it is a finding, and nothing that stays is started."""

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from platform import python_version
from typing import Literal

from dotenv import dotenv_values
from pydantic import ValidationError

from trainer.artifacts.runs import RunStore
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
_LITTLE_MEMORY, _ROOM = 2 * _GIB, 2 * _GIB
_VERSION_SECONDS = 10.0
_TORCH_PROBE = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": names}))
"""


class Finding(Frozen):
    """One thing that was looked at: what is, and where that is not right, what to do."""

    name: str
    state: Literal["ok", "warning", "failure"]
    message: str


class Diagnosis(Frozen):
    """What was found; `ok` says that nothing failed."""

    ok: bool
    checks: tuple[Finding, ...]


async def diagnose() -> Diagnosis:
    """Look at everything that a training or the bot needs here."""
    torch = asyncio.create_task(torch_finding())
    findings = [library_finding(DISTRIBUTION), machine_finding()]
    try:
        settings = load_settings()
    except AppError as error:
        findings.append(Finding(name="settings", state="failure", message=error.message))
    else:
        findings += [_settings_finding(), *_folder_findings(settings), *await _queue_findings(settings)]
        findings += [_discord_finding(settings), _runs_finding(settings)]
    findings.insert(1, await torch)
    return Diagnosis(ok=all(finding.state != "failure" for finding in findings), checks=tuple(findings))


def library_finding(distribution: str) -> Finding:
    """Whether Python and the libraries are those that the package asks for."""
    name = "libraries"
    try:
        wanted = {"Python": metadata(distribution)["Requires-Python"]}
    except PackageNotFoundError:
        message = f"The package {distribution} is not installed: `pip install .` in its folder installs it."
        return Finding(name=name, state="failure", message=message)
    for requirement in requires(distribution) or []:
        match = re.fullmatch(r"([\w.-]+)(?:\[.*\])?([^;]*)", requirement)
        if match:  # others are for some systems or extras only
            wanted[match[1]] = match[2]
    troubles = [
        f"{library} {found or 'is missing'}, but {versions} is needed"
        for library, versions in wanted.items()
        if not _fits(found := _installed(library), versions)
    ]
    if troubles:
        message = f"{'; '.join(troubles)}: `pip install .` in the project's folder installs what is needed."
        return Finding(name=name, state="failure", message=message)
    return Finding(name=name, state="ok", message=f"Python {python_version()}, {len(wanted) - 1} libraries as needed.")


def _installed(library: str) -> str | None:
    try:
        return python_version() if library == "Python" else version(library)
    except PackageNotFoundError:
        return None


def _fits(found: str | None, versions: str) -> bool:
    """Whether a version is in a range that is given by `>=` and `<`."""
    if found is None:
        return False
    numbers = _numbers(found)
    bounds: list[tuple[str, str]] = re.findall(r"(>=|<)\s*([\d.]+)", versions)
    return all(numbers >= _numbers(text) if way == ">=" else numbers < _numbers(text) for way, text in bounds)


def _numbers(text: str) -> tuple[int, ...]:
    numbers: list[str] = re.findall(r"\d+", text.split("+")[0])
    return tuple(map(int, numbers))


class Torch(Frozen):
    """What torch says of itself."""

    version: str
    cuda: str | None
    """What it was built for; None: for the CPU only."""
    devices: tuple[str, ...]


async def torch_finding(seconds: float = 120.0) -> Finding:
    """Whether torch can be imported, by a process of its own: a broken one may take its process down."""
    code, output, errors = await _run(seconds, sys.executable, "-c", _TORCH_PROBE)
    try:
        return torch_found(Torch.model_validate_json(output.strip().rpartition("\n")[2]))
    except ValidationError:
        last = errors.strip().rpartition("\n")[2]
        reason = " ".join(word for word in last.split() if "/" not in word) or f"exit code {code}"
        message = f"Torch cannot be imported ({reason}): install it anew, `pip install --force-reinstall torch`."
        return Finding(name="torch", state="failure", message=message)


def torch_found(torch: Torch) -> Finding:
    """What can be computed on."""
    if torch.devices:
        message = f"{torch.version} with {', '.join(torch.devices)}."
    elif torch.cuda is None:
        message = f"{torch.version}, for the CPU only."
    else:
        message = (
            f"{torch.version} is made for CUDA {torch.cuda}, but no GPU answers: look at its driver (`nvidia-smi`)."
        )
        return Finding(name="torch", state="warning", message=message)
    return Finding(name="torch", state="ok", message=message)


async def _run(seconds: float, *command: str) -> tuple[int | None, str, str]:
    """Run a program; return its exit code and what it wrote, or None and why where it takes too long."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        return None, "", f"no answer in {seconds:g} s"
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def machine_finding(memory: int | None = None) -> Finding:
    """Cores and memory, as far as a container lets us have it."""
    memory = memory_bytes() if memory is None else memory
    threads = counted(default_threads(), "thread")
    message = f"{counted(physical_cores(), 'core')}, {threads} in a training; {memory / _GIB:.1f} GiB of memory"
    if memory < _LITTLE_MEMORY:
        return Finding(name="machine", state="warning", message=f"{message}: enough for small models only.")
    return Finding(name="machine", state="ok", message=f"{message}.")


def _settings_finding() -> Finding:
    """Where settings come from; of none its value, which may be a secret."""
    names = {*environment_names(), *PLAIN_NAMES, "APP__CONFIG_FILE"}
    config_file = Path(os.environ.get("APP__CONFIG_FILE") or "mt.toml")
    sources = [
        f"{config_file.name} {'is read' if config_file.exists() else 'is not there'}",
        f".env {_naming(name for name in dotenv_values('.env') if name.upper() in names)}",
        f"the environment {_naming(name for name in os.environ if name.upper() in names)}",
    ]
    return Finding(name="settings", state="ok", message=f"{'; '.join(sources)}.")


def _naming(names: Iterator[str]) -> str:
    return f"sets {listed}" if (listed := ", ".join(sorted(names))) else "sets none"


def _folder_findings(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("data", settings.app.data_root), ("artifacts", settings.app.artifacts_root)):
        yield folder_finding(name, folder.resolve())


def folder_finding(name: str, folder: Path, room_bytes: int = _ROOM) -> Finding:
    """Whether a folder, or the one that it will be made in, can be written and has room."""
    setting = f"APP__{name.upper()}_ROOT"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        message = f"It cannot be written: give this user the right to, or set {setting} to another folder."
        return Finding(name=name, state="failure", message=message)
    free = shutil.disk_usage(there).free
    message = f"{free / _GIB:.1f} GiB free{'' if there == folder else '; it is made when it is needed'}"
    if free < room_bytes:
        return Finding(name=name, state="warning", message=f"{message}: make room, or set {setting} to another disk.")
    return Finding(name=name, state="ok", message=f"{message}.")


async def _queue_findings(settings: Settings) -> list[Finding]:
    try:
        address = await answering_server(settings)
        if settings.redis.url is None:
            findings = [await _embedded_finding(running=address is not None)]
        elif address is None:
            message = "Nothing answers at `REDIS__URL`: start it, or leave the setting empty."
            return [Finding(name="redis", state="failure", message=message)]
        else:
            findings = []
        if address is None:
            return [*findings, _worker_finding(settings, seen=False)]
        store = await connect(address)
        try:
            return [*findings, *await _server_findings(settings, store)]
        finally:
            await store.close()
    except AppError as error:
        return [Finding(name="redis", state="failure", message=error.message)]


async def _embedded_finding(*, running: bool) -> Finding:
    """Whether the server that is started for a data root can be."""
    code, output, _ = await _run(_VERSION_SECONDS, find_server(), "--version")
    if code != 0:
        message = "The server program does not run: install Valkey or Redis, or set REDIS__URL to one elsewhere."
        return Finding(name="server", state="failure", message=message)
    now = "it runs" if running else "it is started when it is needed"
    return Finding(name="server", state="ok", message=f"Embedded {' '.join(output.split()[:3])}; {now}.")


async def _server_findings(settings: Settings, store: Store) -> list[Finding]:
    """What the server keeps, and whether a worker waits at it."""
    try:
        durability = await store.durability()
        has_worker = await store.has_worker()
    except STORE_ERRORS as error:
        message = (
            f"The server does not tell its settings ({type(error).__name__}): see that AOF is on and eviction off."
        )
        return [Finding(name="redis", state="warning", message=message)]
    troubles = durability.troubles()
    synced = f"appendfsync {durability.appendfsync or 'not told'}"
    message = f"It answers; AOF is on ({synced}), eviction off."
    if troubles:
        message = f"It answers, but {' and '.join(troubles)}."
    return [
        Finding(name="redis", state="warning" if troubles else "ok", message=message),
        _worker_finding(settings, seen=has_worker),
    ]


def _worker_finding(settings: Settings, *, seen: bool) -> Finding:
    if seen:
        return Finding(name="worker", state="ok", message="At least one takes jobs.")
    if settings.queue.embedded_workers:
        return Finding(name="worker", state="ok", message="None runs now; `mt train` and the bot start one.")
    message = "None is seen, and QUEUE__EMBEDDED_WORKERS is 0: start `mt worker`."
    return Finding(name="worker", state="warning", message=message)


def _discord_finding(settings: Settings) -> Finding:
    missing = [
        name
        for name, value in (
            ("DISCORD__TOKEN", settings.discord.token),
            ("DISCORD__OWNER_ID", settings.discord.owner_id),
        )
        if value is None
    ]
    if missing:
        message = f"{' and '.join(missing)} not set: `mt up` needs both, the command line neither."
        return Finding(name="discord", state="warning", message=message)
    return Finding(name="discord", state="ok", message="Token and owner are set.")


def _runs_finding(settings: Settings) -> Finding:
    runs = RunStore(settings.app.artifacts_root)
    unreadable = [run.run_id for run in runs.unreadable()]
    if unreadable:
        message = f"The request of {', '.join(unreadable[:5])} cannot be read: move its folder away."
        return Finding(name="runs", state="failure", message=message)
    unfinished = [run.run_id for run in runs.unfinished()]
    shown = f"{', '.join(unfinished[:5])}{', …' if len(unfinished) > 5 else ''} wait for a worker or train."
    return Finding(name="runs", state="ok", message=shown if unfinished else "None waits or trains.")
