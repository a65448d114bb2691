"""How the worker's child processes are started: no secrets, threads and memory as torch needs them."""

from trainer.contracts.settings import Settings, child_environment

TRAIN_CHILD, ANSWER_REQUESTS = "train-child", "answer-requests"
"""What `python -m trainer` is called with to be a child of the worker."""

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
