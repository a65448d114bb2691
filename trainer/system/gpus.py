"""The GPUs that this process may use, found without torch."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_GPU_DRIVER = Path("/proc/driver/nvidia/gpus")


class Gpu(NamedTuple):
    name: str
    memory_bytes: int | None
    """None if the driver does not tell it."""


def find_gpus(environ: Mapping[str, str] = os.environ, driver: Path = _GPU_DRIVER) -> list[Gpu]:
    """Return the GPUs of a machine with a CUDA driver that this process may use; waits for the driver's program.

    Without that program, the names come from the driver's files; without these, there is one GPU of unknown kind.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        files = sorted(driver.glob("*/information"))
        names = [re.search(r"^Model:\s*(.+)$", file.read_text("utf-8", "replace"), re.MULTILINE) for file in files]
        return _visible([Gpu(name[1] if name else "GPU", None) for name in names] or [Gpu("GPU", None)], environ)
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer runs no training either
        return []
    return _visible(parse_gpus(done.stdout), environ)


def parse_gpus(listed: str) -> list[Gpu]:
    """Parse the lines of nvidia-smi with name and memory of each GPU."""
    found = [re.fullmatch(r"(.+), (?:([0-9]+) MiB|.*)", line.strip()) for line in listed.splitlines()]
    return [Gpu(gpu[1], int(gpu[2]) << 20 if gpu[2] else None) for gpu in found if gpu]


def _visible(gpus: list[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, by their numbers; of other names only the count is known."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return gpus
    chosen = [name.strip() for name in named.split(",")]
    if all(name.isdecimal() for name in chosen):
        return [gpus[int(name)] for name in chosen if int(name) < len(gpus)]
    return gpus[: sum(bool(name) and name != "-1" for name in chosen)]
