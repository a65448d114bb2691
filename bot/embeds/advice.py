"""Advice after a failed run: what to try next, in commands of the chat."""

from bot.embeds.text import count
from trainer.contracts.errors import FAILS_AGAIN, ErrorCode
from trainer.contracts.runs import RunStatus

_RETRYABLE = (ErrorCode.CRASH_LOOP, ErrorCode.MODEL_TRAIN_FAILED, ErrorCode.CHECKPOINT_CORRUPT)
_DISK = (ErrorCode.INSUFFICIENT_STORAGE, ErrorCode.SERVICE_UNAVAILABLE)
_CHANGES = {
    ErrorCode.CORPUS_EMPTY: "another text",
    ErrorCode.CORPUS_TOO_SHORT: "a longer text",
    ErrorCode.INVALID_INPUT: "other settings",
    ErrorCode.CUDA_NOT_AVAILABLE: "`device: cpu` in the `config` file",
}
"""Changes of a request that failed by its own fault."""


def advice(status: RunStatus) -> str:
    """Return what a failed run's owner can try."""
    code = None if status.error is None else status.error.code
    if code in _CHANGES:
        return f"Try: `/mt train` with {_CHANGES[code]}."
    if code is ErrorCode.TRAINING_NAN_LOSS:
        rate = "" if status.learning_rate is None else f" than {status.learning_rate:.2g}"
        return f"Try: `/mt train` with a smaller `learning_rate`{rate}."
    if code is ErrorCode.OUT_OF_MEMORY:
        batch = retry_batch(status)
        smaller = "" if batch is None else f"`batch_size:{batch}` instead of {count(status.batch_size or 0)}, or "
        return f"Try: `/mt train` with {smaller}`size:tiny`."
    if not can_resume(status):
        return f"Try: `/mt logs run:{status.run_id}`, then `/mt train`."
    after = " when the disk works again" if code in _DISK else ""
    return f"Try: `/mt resume run:{status.run_id}`{after}; it continues from the last checkpoint."


def can_resume(status: RunStatus) -> bool:
    """Return whether an ended run has a checkpoint from which it would not fail in the same way again."""
    fails_again = status.error is not None and status.error.code in FAILS_AGAIN
    return status.last_checkpoint_step is not None and not fails_again


def can_retry(status: RunStatus) -> bool:
    """Return whether the same request, or after OUT_OF_MEMORY one with half the batch, could succeed."""
    code = None if status.error is None else status.error.code
    return code is None or code in (*_RETRYABLE, *_DISK) or retry_batch(status) is not None


def retry_batch(status: RunStatus) -> int | None:
    """Return half the batch size of a run that ran out of memory; None for another run, or one with batch size 1."""
    is_too_large = status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY
    return status.batch_size // 2 if is_too_large and status.batch_size and status.batch_size > 1 else None
