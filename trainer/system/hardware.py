"""What this machine has, found out without torch."""

import ctypes
import os
import platform
import re
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_OWN_STATUS = Path("/proc/self/status")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MOST_THREADS = 1024
"""As many as a request may ask for."""
_ISA_LIMITS = frozenset(("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"))
_CUDA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the driver of Linux, and that of WSL


def physical_cores() -> int:
    """The physical cores that this process may use (DEC D51): two threads of one core do not train faster."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = {_siblings(cpu) for cpu in cpus}
    return len(cores)


def default_threads(environ: Mapping[str, str] = os.environ) -> int:
    """The threads of a computation that names none: the smaller of OMP_NUM_THREADS and MKL_NUM_THREADS, else the cores.

    A list of OpenMP (`4,2`) stands for its first number; a value that is no positive number is ignored.
    """
    firsts = [environ.get(name, "").split(",")[0].strip() for name in _THREAD_LIMITS]
    limits = [int(first) for first in firsts if first.isdecimal() and int(first) > 0]
    return min(_MOST_THREADS, *limits or [physical_cores()])


def memory_bytes(limits: Sequence[Path] = _MEMORY_LIMITS) -> int:
    """The memory of this machine, as far as a container lets us have it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = [limit.read_text(encoding="ascii").strip() for limit in limits if limit.exists()]
    return min(memory, *(int(limit) for limit in found if limit.isdecimal()), memory)


def most_memory_bytes(status: Path = _OWN_STATUS) -> int:
    """The most memory that this process has had; elsewhere than on Linux at least that of its parent at its start."""
    if found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text("ascii") if status.exists() else "", re.MULTILINE):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_held_bytes(status: Path = _OWN_STATUS) -> int:
    """The memory that this process has now; 0 elsewhere than on Linux."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status.read_text("ascii") if status.exists() else "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def give_memory_back() -> None:
    """Hand what this process has freed back to the system; does nothing where the C library has no call for it."""
    with suppress(AttributeError):  # not glibc
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        trim(0)


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """Return the processor's name from Linux's list; elsewhere what Python knows of it."""
    names = _cpu_says(cpuinfo, "model name")
    return names[0] if names else platform.processor() or platform.machine()


def instruction_set(cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """What torch may compute with: the CPU, its flags where Linux lists them, and the variables that limit them."""
    limits = {name: os.environ[name] for name in _ISA_LIMITS if name in os.environ}
    return {"cpu": cpu_name(cpuinfo), "flags": "".join(_cpu_says(cpuinfo, "flags")[:1]), **limits}


def has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU has instructions for bf16, as far as Linux says, and torch may use them all."""
    found = instruction_set(cpuinfo)
    return _ISA_LIMITS.isdisjoint(found) and not {"avx512_bf16", "amx_bf16"}.isdisjoint(found["flags"].split())


def use_cores(count: int) -> None:
    """Keep this process, however many threads it starts from now on, to so many of its cores; 0 leaves it all."""
    with suppress(AttributeError):  # not Linux
        cpus = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(cpus)  # others that are kept to a few are kept to other ones
        os.sched_setaffinity(0, (cpus + cpus)[first : first + (count or len(cpus))])


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


def _cpu_says(cpuinfo: Path, name: str) -> list[str]:
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(name)]


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)
