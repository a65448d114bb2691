"""The environment of the worker's child processes: no secrets, threads and memory as torch needs them."""

from trainer.contracts.settings import Settings

_DROPPED = ("DISCORD__TOKEN", "DISCORD_TOKEN", "REDIS__URL", "REDIS_URL")

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


def child_environment(settings: Settings, environ: dict[str, str]) -> dict[str, str]:
    """Our own environment, thinned and tuned, with the places of data as absolute paths."""
    return {
        **_TUNING,
        **{name: value for name, value in environ.items() if name not in _DROPPED},
        "APP__DATA_ROOT": str(settings.app.data_root.resolve()),
        "APP__ARTIFACTS_ROOT": str(settings.app.artifacts_root.resolve()),
    }
