"""Names of all keys in Redis; their contents can be rebuilt from disk."""

from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)

EVENT_STREAM = "trainer:events"
"""Stream with one entry per event of any run; it wakes the bot."""
EVENT_GROUP = "bot"
JOB_NOTIFICATIONS = "trainer:jobs"
"""Stream with one entry per enqueued job; it wakes the workers."""
DELETED = "trainer:deleted"
"""Expires at once after a text was deleted, so that the server's count of expired keys includes the deletion."""
WORKER = "trainer:worker"
"""Exists while at least one worker is running; expires one lease after the last worker."""
INTERACTIVE_QUEUE = "interactive"
TOKENIZER_QUEUE = "tokenizers"
ABORTS = abort_jobs_ss
"""arq's abort requests, which this program neither writes nor reads."""


def definition(job_id: str) -> str:
    """Return the key of a job's definition: function and payload."""
    return job_key_prefix + job_id


def in_progress(job_id: str) -> str:
    """Return the key of a job's claim: the process that runs the job, until the lease ends."""
    return in_progress_key_prefix + job_id


def tries(job_id: str) -> str:
    """Return the key of arq's count of attempts at a job."""
    return retry_key_prefix + job_id


def result(job_id: str) -> str:
    """Return the key of arq's result of a job, which this program neither writes nor reads."""
    return result_key_prefix + job_id


def heartbeat(job_id: str) -> str:
    """Return the key of the time at which a run's or tokenizer's worker was last seen."""
    return f"runs:hb:{job_id}"


def lease(job_id: str) -> str:
    """Return the key of the process that holds the lease of a run or tokenizer."""
    return f"runs:lease:{job_id}"


def status(run_id: str) -> str:
    """Return the key of a run's RunStatus as JSON, for other readers of Redis."""
    return f"runs:status:{run_id}"


def cancelled(run_id: str) -> str:
    """Return the key that is 1 from a cancel request to the end of the run."""
    return f"runs:{run_id}:cancelled"


def run_events(run_id: str) -> str:
    """Return the key of a run's event stream."""
    return f"runs:{run_id}:events"


def inference(kind: str, run_id: str, request_id: str) -> str:
    """Return the key of an inference request, later of its result."""
    return f"runs:{_INFERENCE[kind]}:{run_id}:{request_id}"


def answer_ready(request_id: str) -> str:
    """Return the key of the stream that gets one entry when the result of a request is stored."""
    return f"trainer:answered:{request_id}"


def pieces(request_id: str) -> str:
    """Return the key of the stream of a generation's chunks."""
    return f"trainer:written:{request_id}"


def reader(request_id: str) -> str:
    """Return the key that exists while a client reads a generation's chunks."""
    return f"trainer:reading:{request_id}"


def chat(run_id: str, session_id: str) -> str:
    """Return the key of a chat: a list of turns, newest first, that starts with an empty entry."""
    return f"runs:chat:{run_id}:{session_id}"


_INFERENCE = {"score": "score", "generate": "gen", "predict": "predict", "chat": "turn", "evaluate": "eval"}
