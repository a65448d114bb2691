"""Names of all keys in Redis; their contents can be rebuilt from disk."""

from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix

EVENT_STREAM = "trainer:events"
"""Stream with one entry per event of any run; it wakes the bot."""
EVENT_GROUP = "bot"
JOB_NOTIFICATIONS = "trainer:jobs"
"""Stream with one entry per enqueued job; it wakes the workers."""
DELETED = "trainer:deleted"
"""Expires at once after a text was deleted, so that the server's count of expired keys includes the deletion."""
WORKER = "trainer:worker"
"""Exists while at least one worker is running; expires one lease after the last worker."""
WORKERS = "trainer:workers"
"""The lifetime of each worker's record in ms, by process; those of ended workers are deleted when they are read."""
REPORTED = "trainer:reported"
"""The broken workers that the owner of the bot knows of."""
INTERACTIVE_QUEUE = "interactive"

owners = "trainer:owners:{}".format
"""The owner of each job of a queue that has not started yet; a job without an owner comes first."""
turns = "trainer:turns:{}".format
"""The owners of a queue's jobs by the time at which a worker last claimed a job of theirs."""

paused = "trainer:paused:{}".format
"""Exists while workers start no job of a queue."""

version = "trainer:version:{}".format
"""The version of the program that queues jobs of an artifacts folder; expires a minute after the program's end."""
worker = "trainer:worker:{}".format
"""The record that a worker publishes of itself; it expires one lease after the last one."""
drain = "trainer:drain:{}".format
"""The last order to a worker: 1 to claim no further job, 0 and the time to claim jobs again; expires when the worker
knows it."""

# keys of one job, run or request: each takes its id

definition = f"{job_key_prefix}{{}}".format
"""A job's definition: function and payload."""
in_progress = f"{in_progress_key_prefix}{{}}".format
"""A job's claim: the process that runs the job, until the lease ends."""
tries = f"{retry_key_prefix}{{}}".format
"""arq's count of attempts at a job."""
tried = "trainer:tried:{}".format
"""The workers on which a child of a job ended before its first step, each with the time until it leaves the job to
others, in milliseconds."""
heartbeat = "runs:hb:{}".format
"""The lifetime of this key in ms, which counts from the last sign of a job's worker."""
lease = "runs:lease:{}".format
"""The process that holds the lease of a run or tokenizer."""
postponed = "runs:postponed:{}".format
"""Why a worker has put a job back into the queue: a sentence, which expires after the next attempts."""
status = "runs:status:{}".format
"""A run's RunStatus as JSON, for other readers of Redis."""
cancelled = "runs:{}:cancelled".format
"""1 from a cancel request to the end of the run."""
run_events = "runs:{}:events".format
"""A run's event stream."""
answer_ready = "trainer:answered:{}".format
"""A stream that gets one entry when the result of a request is stored."""
pieces = "trainer:written:{}".format
"""The stream of a generation's chunks."""
reader = "trainer:reading:{}".format
"""Exists while a client reads a generation's chunks."""
idempotency = "trainer:idempotency:{}".format
"""The item that an Idempotency-Key of the HTTP API stands for."""
chat = "runs:chat:{}:{}".format
"""A chat by run and session: a list of turns, newest first, that starts with an empty entry."""
last_chat = "runs:lastchat:{}:{}".format
"""The session of a user's last chat with a run."""

_SHORT = {"generate": "gen", "chat": "turn", "evaluate": "eval"}


def inference(kind: str, run_id: str, request_id: str) -> str:
    """Return the key of an inference request, later of its result."""
    return f"runs:{_SHORT.get(kind, kind)}:{run_id}:{request_id}"
