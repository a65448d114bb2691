"""Environment and memory priority of the worker's child processes: no secrets, settings for torch's speed."""

import os
import re
from contextlib import suppress
from pathlib import Path

from trainer.config.settings import Settings, child_environment

# glibc maps and unmaps every large buffer by default, which costs an LSTM step 40 % of its time (measured):
# keep the memory instead. Threads that wait spin for some 10 µs: to sleep at once costs GPT-2 a third of its speed,
# and to spin for long takes the cores from the machine's other processes.
_TUNING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    "OPENBLAS_NUM_THREADS": "1",  # numpy starts threads at its import: the process that forks must have one
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # looks for a GPU without starting CUDA, which no fork survives
    "HF_HUB_OFFLINE": "on",  # by which `allow_network` knows ours: users write 1
    "TOKENIZERS_PARALLELISM": "true",
}


def tuned_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a child that computes; variables that the user has set stay."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if settings.queue.devices == "cpu" else {}
    return _TUNING | child_environment(settings) | hidden


def allow_network() -> None:
    """Let libraries of this process ask the hub, unless the user has forbidden it; call this before their import."""
    if os.environ.get("HF_HUB_OFFLINE") == _TUNING["HF_HUB_OFFLINE"]:
        del os.environ["HF_HUB_OFFLINE"]


def set_oom_score() -> None:
    """Make Linux end this process before the worker and the server when memory runs out."""
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


_OOM_SCORE = "500"
"""Counts like half of the machine's memory. A process may raise its own score without privileges."""


def memory_kills(counters: Path = Path("/proc/vmstat")) -> int | None:
    """Return the number of processes that Linux has ended because memory ran out; None if the system has no counter."""
    try:
        found = re.search(r"^oom_kill (\d+)$", counters.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
