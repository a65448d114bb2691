"""Every name that is used in Redis; all of it can be rebuilt from disk."""

from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)

EVENT_STREAM = "trainer:events"
"""One entry per event of any run: the bell that wakes the bot."""
EVENT_GROUP = "bot"
JOB_BELL = "trainer:bell"
"""A stream that is rung after each enqueue, so that workers need not wait for their next poll."""
FORGOTTEN = "trainer:forgotten"
"""Expires as soon as a text was deleted before its time, so that the server counts that with what has expired."""
WORKER = "trainer:worker"
"""Exists as long as at least one worker is running; it expires a lease after the last one."""
INTERACTIVE_QUEUE = "interactive"
TOKENIZER_QUEUE = "tokenizers"


ABORTS = abort_jobs_ss
"""arq's wishes to abort: never ours, and not heeded (R11)."""


def definition(job_id: str) -> str:
    """What a job in a queue is to do."""
    return job_key_prefix + job_id


def in_progress(job_id: str) -> str:
    """That a job was begun, and by which process; it ends with the lease of that one (R3)."""
    return in_progress_key_prefix + job_id


def tries(job_id: str) -> str:
    """How often arq has begun a job."""
    return retry_key_prefix + job_id


def result(job_id: str) -> str:
    """How arq has seen a job end: never ours, and not heeded."""
    return result_key_prefix + job_id


def heartbeat(job_id: str) -> str:
    """When the worker that has a run, or a tokenizer, was last seen."""
    return f"runs:hb:{job_id}"


def lease(job_id: str) -> str:
    """Who has a run, or a tokenizer."""
    return f"runs:lease:{job_id}"


def status(run_id: str) -> str:
    """How a run stands by its events: a RunStatus as JSON, for whoever reads Redis."""
    return f"runs:status:{run_id}"


def cancelled(run_id: str) -> str:
    """1 from the wish to cancel a run to its end; the wish itself is a file of the run (R11)."""
    return f"runs:{run_id}:cancelled"


def run_events(run_id: str) -> str:
    return f"runs:{run_id}:events"


def inference(kind: str, run_id: str, request_id: str) -> str:
    """A request to a finished run, and its answer."""
    return f"runs:{_INFERENCE[kind]}:{run_id}:{request_id}"


def answer_bell(request_id: str) -> str:
    """A stream that is rung once, when a request is answered: who waits for it need not look."""
    return f"trainer:answered:{request_id}"


def pieces(request_id: str) -> str:
    """A stream of the pieces of a text that is told while it is written."""
    return f"trainer:written:{request_id}"


def reader(request_id: str) -> str:
    """That somebody reads the pieces of a text."""
    return f"trainer:reading:{request_id}"


def chat(run_id: str, session_id: str) -> str:
    """The turns of a chat, the newest first, and an empty entry from its beginning."""
    return f"runs:chat:{run_id}:{session_id}"


_INFERENCE = {"score": "score", "generate": "gen", "predict": "predict", "chat": "turn", "evaluate": "eval"}
