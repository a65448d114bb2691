"""How the worker's child processes are started: no secrets, threads and memory as torch needs them, first to go."""

import re
from contextlib import suppress
from pathlib import Path

from trainer.config.settings import Settings, child_environment

TRAIN_CHILD, TOKENIZER_CHILD, ANSWER_REQUESTS = "train-child", "train-tokenizer", "answer-requests"
"""What `python -m trainer.worker` is called with to be a child of the worker."""
BF16_TRIAL = "try-bf16"
"""The same, with an architecture: prints whether this CPU can train it in bf16."""
BENCHMARK = "benchmark"
"""The same, to be a child of `mt bench`: with a folder, and the name of a training or this one, which comes first."""
BENCHMARK_PREPARED, BENCHMARK_PLAN, BENCHMARK_ERROR = "prepared", "plan", "error"
"""The other records in that folder; each is a JSON file."""

# glibc maps and unmaps every large buffer by default, which costs an LSTM step 40 % of its time (measured):
# keep the memory instead. Threads that wait must not spin: the machine's other processes need the cores.
_TUNING = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def tuned_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child that computes; what the user has set of the tuning stands."""
    return _TUNING | child_environment(settings)


def make_first_to_go(pid: int) -> None:
    """Have Linux end a process, rather than the worker or the server, when memory runs out."""
    with suppress(OSError):  # not Linux, or the process is gone
        Path(f"/proc/{pid}/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


_OOM_SCORE = "500"
"""As if it had half of the machine's memory more; anybody may raise that of a process of his own."""


def memory_kills(counters: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes Linux has ended so far for want of memory; None where the system does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", counters.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
