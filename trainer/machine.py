"""What this machine has, found out without torch."""

import os
import socket
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

_CUDA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the driver of Linux, and that of WSL


def physical_cores() -> int:
    """The physical cores that this process may use (DEC D51): two threads of one core do not train faster."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = {_siblings(cpu) for cpu in cpus}
    return len(cores)


def process_name() -> str:
    """This process by its machine and its number, as others know it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether a process of this machine is gone; of another machine's that is not known here."""
    host, _, pid = name.rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        with suppress(PermissionError):  # somebody else's, so it is there
            os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    return False


def may_have_cuda(torch_version: str | None = None, devices: tuple[Path, ...] = _CUDA_DEVICES) -> bool:
    """Whether a training here may find CUDA: False only where torch was built without it or no driver is loaded."""
    built_without = (torch_version or version("torch")).endswith("+cpu")
    return not built_without and any(device.exists() for device in devices)


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)
