"""Cores, memory and instruction set of this machine, read without torch."""

import ctypes
import math
import os
import platform
import re
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_OWN_STATUS = Path("/proc/self/status")
_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MAX_DESCRIPTORS, _MAX_DESCRIPTORS_OF_MACOS = 65_536, 10_240
_MAX_THREADS = 1024
"""The maximum of a request."""
_ISA_LIMITS = frozenset(("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"))
_UNKNOWN = "unknown"
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_CPU_TIMES, _MIN_WATCHED_SECONDS = Path("/proc/stat"), 0.05
_CUDA_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the driver of Linux, and that of WSL


def physical_cores() -> int:
    """Return the number of physical cores of this process; two threads of one core do not train faster."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    return len({_siblings(cpu) for cpu in cpus})


def default_threads(environ: Mapping[str, str] = os.environ) -> int:
    """Return the default number of threads of this process on this machine.

    It is the smaller of OMP_NUM_THREADS and MKL_NUM_THREADS, else the number of physical cores, at most the processors
    that a container or a batch system grants. Of an OpenMP list (`4,2`) the first number counts. Values that are not
    positive numbers are ignored.
    """
    firsts = [environ.get(name, "").split(",")[0].strip() for name in _THREAD_LIMITS]
    limits = [int(first) for first in firsts if first.isdecimal() and int(first) > 0]
    return min(_MAX_THREADS, *limits or [physical_cores(), granted_cpus() or _MAX_THREADS])


def granted_cpus(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int | None:
    """Return the processors' time that control groups grant this process, rounded up; None without a quota.

    The smallest quota of the process's group and the groups around it counts, of both versions of the kernel's files.
    """
    grants = [grant for group in _control_groups("cpu", cgroups, own) for grant in _granted(group)]
    return None if not grants else max(1, math.ceil(min(grants)))


def _control_groups(controller: str, cgroups: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those around it, in both versions of the kernel's files.

    In a container the root is the container's own group, whatever path the process reads of its group.
    """
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    found = {names: path for _, names, path in (line.split(":", 2) for line in lines if line.count(":") >= 2)}
    for names, path in ({"": "/", controller: "/"} | found).items():
        if names and controller not in names.split(","):
            continue
        root = cgroups / names
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _granted(group: Path) -> list[float]:
    """Return the quota of a control group in processors, in a list; an empty one without a quota."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):  # no such group here, or "max"
        return []


class OtherPrograms:
    """The cores that other programs of this machine use since this object was made; none outside Linux."""

    def __init__(self, times: Path = _CPU_TIMES) -> None:
        self._times = times
        self._begin = self._seconds()

    def cores(self) -> float:
        """Return the mean number of cores that they used, without programs of low priority."""
        (begin, before), (end, now) = self._begin, self._seconds()
        return max(0.0, now - before) / max(end - begin, _MIN_WATCHED_SECONDS)

    def _seconds(self) -> tuple[float, float]:
        """Return the time, and the seconds that all programs but this one have computed."""
        if not self._times.exists():
            return time.monotonic(), 0.0
        user, _, system, *_ = self._times.read_text(encoding="ascii").split()[1:]
        all_programs = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), all_programs - time.process_time()


def memory_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """Return the memory of this machine, or the smallest limit of the control groups around this process."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for group in _control_groups("memory", cgroups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # no such group here, or "max"
                memory = min(memory, int((group / name).read_text(encoding="ascii")))
    return memory


def raise_descriptor_limit() -> None:
    """Raise the number of files and connections that this process may have open, as far as the system lets it.

    The soft limit, often 1,024, is for programs that use `select`, which this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS_OF_MACOS):
        raised = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < raised:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
                return


def descriptor_limit() -> int:
    """Return the number of files and connections that this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def most_memory_bytes(status: Path = _OWN_STATUS) -> int:
    """Return the peak memory of this process; outside Linux it includes the peak of its parent at the start."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _listed_bytes("VmHWM", status) or peak


def memory_held_bytes(status: Path = _OWN_STATUS) -> int:
    """Return the resident memory of this process; 0 outside Linux."""
    return _listed_bytes("VmRSS", status)


def give_memory_back() -> None:
    """Return freed memory to the system, if the C library has a call for it."""
    with suppress(AttributeError):  # not glibc
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        trim(0)


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """Return the name of the processor."""
    names = _cpu_says(cpuinfo, "model name")
    return names[0] if names else platform.processor() or platform.machine()


def instruction_set(cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """Return the CPU, its flags on Linux, and the environment variables that limit the instructions torch may use."""
    limits = {name: os.environ[name] for name in _ISA_LIMITS if name in os.environ}
    return {"cpu": cpu_name(cpuinfo), "flags": "".join(_cpu_says(cpuinfo, "flags")[:1]), **limits}


def has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Return True if Linux lists bf16 instructions of the CPU and no variable limits torch."""
    flags = "".join(_cpu_says(cpuinfo, "flags")[:1]).split()
    return _ISA_LIMITS.isdisjoint(os.environ) and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def use_cores(count: int) -> None:
    """Restrict this process and its future threads to `count` of its cores; 0 restricts nothing."""
    with suppress(AttributeError):  # not Linux
        cpus = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(cpus)  # other restricted processes get other cores
        os.sched_setaffinity(0, (cpus + cpus)[first : first + (count or len(cpus))])


def package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a copy that is no installed package
        return _UNKNOWN


def process_name() -> str:
    """Return the name of this process: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_dead(name: str) -> bool:
    """Return True if a process of this machine has ended; False for processes of other machines."""
    host, _, pid = name.rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        with suppress(PermissionError):  # it belongs to another user, so it exists
            os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    return False


def may_have_cuda(torch_version: str | None = None, devices: tuple[Path, ...] = _CUDA_DEVICES) -> bool:
    """Return False if torch is missing or built without CUDA, or no driver is loaded; else a training may find CUDA."""
    build = torch_version or package_version("torch")
    return build != _UNKNOWN and not build.endswith("+cpu") and any(device.exists() for device in devices)


def _listed_bytes(name: str, status: Path) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text("ascii") if status.exists() else "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _cpu_says(cpuinfo: Path, name: str) -> list[str]:
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(name)]


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)
