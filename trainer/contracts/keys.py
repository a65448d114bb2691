"""Every name that is used in Redis; all of it can be rebuilt from disk."""

EVENT_STREAM = "trainer:events"
"""One entry per event of any run: the bell that wakes the bot."""
EVENT_GROUP = "bot"
JOB_BELL = "trainer:bell"
"""A stream that is rung after each enqueue, so that workers need not wait for their next poll."""
INTERACTIVE_QUEUE = "interactive"


def run_heartbeat(run_id: str) -> str:
    return f"runs:hb:{run_id}"


def run_lease(run_id: str) -> str:
    return f"runs:lease:{run_id}"


def run_events(run_id: str) -> str:
    return f"runs:{run_id}:events"


def inference(kind: str, run_id: str, request_id: str) -> str:
    """A score, generate or evaluate request and its answer."""
    return f"runs:{_INFERENCE[kind]}:{run_id}:{request_id}"


_INFERENCE = {"score": "score", "generate": "gen", "evaluate": "eval"}
