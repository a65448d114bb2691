"""Words that depend on a number, on a time, or on what a job waits for."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from trainer.contracts.base import StopCause, WaitReason

WAIT_MESSAGES: Mapping[WaitReason, str] = {
    "turn": "Waiting for a worker.",
    "worker": "No worker is running. The job stays in the queue until one starts.",
    "gpu": "No running worker has the GPU that this run needs. The run stays in the queue until one starts.",
    "cpu": "No running worker trains on the CPU. The run stays in the queue until one starts.",
    "memory": "No running worker has the memory that this run needs. The run stays in the queue until one starts.",
    "broken": "Each worker that could take this job is broken. The job stays in the queue until one is mended.",
    "queue": "The queue is paused: no further run starts until `mt workers resume`.",
    "object_store": "The object store refuses a request of the worker. The run continues when it answers.",
    "disk_space": "The disk is full; the training continues when there is space.",
    "disk": "The disk does not work; the training continues when it does.",
}
STOP_MESSAGES: Mapping[StopCause, str] = {
    "crashed": "The training crashed; it restarts.",
    "stalled": "The training stalled and was stopped; it restarts.",
    "starved": "The system killed the training, because memory ran out; it restarts.",
    "killed": "The training was killed from outside; it restarts.",
    "not_started": "The process ended before its first step; the run is tried again, elsewhere if it can be.",
    "disk_full": WAIT_MESSAGES["disk_space"],
    "disk_unwritable": WAIT_MESSAGES["disk"],
    "worker_ended": "Paused by the end of the worker; the next worker resumes it.",
}

SAME_KEY = "Another request was sent with this Idempotency-Key. Send each request with its own key."
EXPIRED = "This request and its result have expired: send the request again."


def counted(number: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def distinct(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return sentences without those that repeat an earlier one."""
    found: dict[str, None] = {}
    for one in sentences:
        found[one] = None
    return tuple(found)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names as in "a, b and c"; of more than `most`, the first and the number of the others."""
    shown = [*names[:most], *([f"{len(names) - most:,} more"] if len(names) > most else [])]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def local_time(moment: datetime) -> str:
    """Return a time to the minute, in the time zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
