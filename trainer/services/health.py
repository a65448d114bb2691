"""Checks of an installation that the command line and the bot share: folders, server, worker, GPU."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import ValidationError

from trainer.artifacts.replication import Replication
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError
from trainer.contracts.installation import missing_extras
from trainer.services.embedded import (
    answering_server,
    find_server,
    last_lines,
    server_elsewhere,
    unreadable_files,
    worker_problem,
)
from trainer.system.files import DISK, check_writable, to_app_error
from trainer.system.hardware import may_have_cuda
from trainer.system.python import python_command
from trainer.system.sockets import socket_folder

if TYPE_CHECKING:
    from trainer.store.connection import Durability

GIB = 1 << 30
_MIN_FREE = 2 * GIB
_VERSION_SECONDS = 10.0
_NO_SYNC = "This disk cannot sync folders: after a power cut the newest files may be missing."
_TORCH_PROBE = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": names}))
"""


class Finding(NamedTuple):
    """The result of a check, and what to do where it is not ok."""

    state: Literal["ok", "warning", "failure"]
    message: str


async def check_data(settings: Settings) -> dict[str, Finding]:
    """Check the folders, the server and the worker."""
    findings = {
        "data": _check_data_root(settings.app.data_root.resolve(), settings.app.corpus_cache.resolve()),
        "artifacts": check_folder("artifacts", settings.app.artifacts_root.resolve()),
    }
    findings["sockets"] = _check_sockets()
    if settings.object_store.url:
        findings["object store"] = await _check_object_store(settings)
    try:
        return findings | await _check_services(settings)
    except AppError as error:
        return {**findings, "redis": Finding("failure", error.message)}
    except OSError as error:
        return {**findings, "redis": Finding("failure", to_app_error(error, settings.app.folders()).message)}


def check_gpu() -> Finding:
    """Check torch's GPU if this machine may have one; the bot may have no torch, as in its container."""
    if "train" in missing_extras():
        return Finding("ok", "The bot needs none: the workers compute. `/mt-admin workers` shows their devices.")
    return check_torch() if may_have_cuda() else Finding("ok", "None; models compute on the CPU.")


class Torch(Frozen):
    """Versions and devices of torch."""

    version: str
    cuda: str | None
    """CUDA version of the build; None for a CPU build."""
    devices: tuple[str, ...]


def check_torch(seconds: float = 120.0) -> Finding:
    """Import torch in its own process, since a broken build can crash it."""
    code, output, errors = _run(seconds, *python_command("-c", _TORCH_PROBE))
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


def check_folder(name: str, folder: Path, min_free: int = _MIN_FREE) -> Finding:
    """Check that a folder, or the nearest one that exists above it, is writable and has room."""
    setting = f"APP__{name.upper()}_ROOT"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = f"give this user write access, or set {setting} to another folder"
        return Finding("failure", f"It cannot be written: {remedy}.")
    try:
        check_writable(existing)
        can_sync = DISK.sync(existing)
    except (AppError, OSError) as error:
        return Finding("failure", to_app_error(error, {setting: folder}).message)
    free = shutil.disk_usage(existing).free
    message = f"{free / GIB:.1f} GiB free{'' if existing == folder else '; it is created when needed'}"
    if free < min_free:
        return Finding("warning", f"{message}: free some space, or set {setting} to another disk.")
    if not can_sync:
        return Finding("warning", f"{message}. {_NO_SYNC}")
    return Finding("ok", f"{message}.")


def _check_data_root(root: Path, cache: Path) -> Finding:
    """Check the data root; where it is only read, as in the containers, its cache must be writable."""
    if os.access(root, os.W_OK) or not cache.is_dir():
        return check_folder("data", root)
    found = check_folder("data", cache)
    return found if found.state == "failure" else found._replace(message=f"It is only read; its cache: {found.message}")


def _check_sockets() -> Finding:
    """Check that processes of this machine can reach each other by sockets, whose addresses are short."""
    try:
        socket_folder()
    except AppError as error:
        return Finding("failure", error.message)
    return Finding("ok", "A folder for them has a short path.")


async def _check_object_store(settings: Settings) -> Finding:
    try:
        await Replication(settings).check()
    except AppError as error:
        return Finding("failure", error.message)
    return Finding("ok", "It responds, and has conditional writes.")


async def _check_services(settings: Settings) -> dict[str, Finding]:
    """Check the server and the worker; raises SERVICE_UNAVAILABLE."""
    address = await answering_server(settings)
    if address is None:
        return _check_without_server(settings)
    from trainer.store.connection import STORE_ERRORS  # redis, which a client of a server lacks
    from trainer.store.store import connect

    found = {"server": _check_embedded(settings, is_running=True)} if settings.redis.url is None else {}
    store = await connect(address)
    try:
        await store.check(settings.queue.name)
        durability = await store.durability()
        found["redis"] = _check_durability(durability)
        found["worker"] = _check_worker(settings, is_running=await store.has_worker())
        for worker in await store.workers():
            if worker.reason is not None:
                found["worker"] = Finding("warning", f"{worker.name} takes no job: {worker.reason}")
    except AppError as error:
        found["redis"] = Finding("failure", error.message)
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
    return {"server": _check_embedded(settings, is_running=False), "worker": _check_worker(settings, is_running=False)}


def _check_embedded(settings: Settings, *, is_running: bool) -> Finding:
    if not is_running and (elsewhere := server_elsewhere(settings)):
        return Finding("failure", elsewhere)
    code, output, _ = _run(_VERSION_SECONDS, find_server(), "--version")
    if code != 0:
        remedy = "install Valkey or Redis, or set REDIS__URL to one elsewhere"
        return Finding("failure", f"The server program does not run: {remedy}.")
    state = "it is running" if is_running else "it is started when needed"
    message = f"Embedded {' '.join(output.split()[:3])}; {state}."
    if files := unreadable_files(settings):
        reason = last_lines(files) or "no reason is known"
        remedy = f"The queue was rebuilt from the runs; delete {files.parent.name}/{files.name} of the data folder."
        return Finding("warning", f"{message} It could not read the files of an earlier server ({reason}). {remedy}")
    return Finding("ok", message)


def _check_durability(durability: "Durability") -> Finding:
    if problems := durability.troubles():
        return Finding("warning", f"It responds, but {' and '.join(problems)}.")
    return Finding("ok", f"It responds; AOF is on (appendfsync {durability.appendfsync or 'unknown'}), eviction off.")


def _check_worker(settings: Settings, *, is_running: bool) -> Finding:
    if is_running:
        return Finding("ok", "At least one is running.")
    if problem := worker_problem(settings):
        return Finding("failure", problem)
    if settings.queue.embedded_workers:
        return Finding("ok", "None is running; `mt train` and the bot start one.")
    return Finding("warning", "None is running, and QUEUE__EMBEDDED_WORKERS is 0: start one with `mt worker`.")
